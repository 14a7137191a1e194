import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import { cpuIsas, cudaDevices, device, openCpu } from '../../src/device/device.js'
import * as ops from '../../src/ops/index.js'
import { isolated, keep, scope } from '../../src/tensor/scope.js'
import { empty, fromArray } from '../../src/tensor/tensor.js'

const cpu = openCpu()

describe('tensors', () => {
  it('what was written is what is read, in every dtype', async () => {
    using f = fromArray([1.5, -2, 3e-9], [3], 'f32', cpu)
    using b = fromArray([1.5, -2, 1.00390625], [3], 'bf16', cpu)
    using i = fromArray([1, -2, 2147483647], [3], 'i32', cpu)
    expect([...(await f.read())]).toEqual([1.5, -2, Math.fround(3e-9)])
    expect([...(await b.read())]).toEqual([1.5, -2, 1])
    expect([...(await i.read())]).toEqual([1, -2, 2147483647])
  })

  it('views share memory and outlive the tensor they came from', async () => {
    const x = fromArray([1, 2, 3, 4, 5, 6], [3, 2], 'f32', cpu)
    using row = x.rows(1, 2)
    x.dispose()
    expect([...(await row.read())]).toEqual([3, 4, 5, 6])
  })

  it('a reader keeps its value when the memory goes to a later tensor at once', async () => {
    const x = fromArray([1, 2, 3, 4], [4], 'f32', cpu)
    const reading = x.read()
    x.dispose()
    using y = fromArray([9, 9, 9, 9], [4], 'f32', cpu)
    expect([...(await reading)]).toEqual([1, 2, 3, 4])
    expect([...(await y.read())]).toEqual([9, 9, 9, 9])
  })

  it('a disposed tensor is refused by name, and disposing twice is no error', async () => {
    const x = empty([2, 3], 'f32', cpu)
    x.dispose()
    x.dispose()
    await expect(x.read()).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    expect(() => ops.fill(x, 1)).toThrow('fill: x, a tensor f32 [2, 3] on cpu, is disposed')
  })
})

it('time() is more than nothing, and at most what passed outside', async () => {
  using x = empty([4 << 20], 'f32', cpu)
  const begin = performance.now()
  const ms = await cpu.time(() => ops.fill(x, 1))
  expect(ms).toBeGreaterThan(0)
  expect(ms).toBeLessThanOrEqual(performance.now() - begin)
})

describe('memory', () => {
  it('a scope disposes what was made in it, except what is kept', () => {
    using d = openCpu()
    let kept = empty([1], 'f32', d)
    {
      using _ = scope()
      empty([10], 'f32', d)
      kept.dispose()
      kept = keep(empty([20], 'f32', d))
      expect(d.stats().liveTensors).toBe(2)
    }
    expect(d.stats().liveTensors).toBe(1)
    kept.dispose()
    expect(d.stats().liveBytes).toBe(0)
  })

  it('tasks that interleave do not dispose each other', async () => {
    const task = (value: number) =>
      isolated(async () => {
        using _ = scope()
        const x = fromArray([value], [1], 'f32', cpu)
        await x.read()
        const y = ops.add(x, x)
        return [...(await y.read())]
      })
    expect(await Promise.all([1, 2, 3, 4].map(task))).toEqual([[2], [4], [6], [8]])
  })

  it('create and dispose a hundred times: the system is asked for memory once', () => {
    using d = openCpu()
    for (let i = 0; i < 100; i++) {
      using a = empty([1000 + i, 100], 'f32', d)
      using b = empty([i + 1], 'i32', d)
      expect(a.size + b.size).toBeGreaterThan(0)
    }
    expect(d.stats()).toMatchObject({ liveBytes: 0, liveTensors: 0, deviceAllocations: 1 })
  })

  it('counts bytes by tag, live and at the peak', () => {
    using d = openCpu()
    using w = empty([1024], 'f32', d, 'weights')
    empty([2048], 'bf16', d, 'gradients').dispose()
    expect(w.size).toBe(1024)
    expect(d.stats().live).toMatchObject({ weights: 4096, gradients: 0 })
    expect(d.stats().peak).toMatchObject({ weights: 4096, gradients: 4096 })
  })

  it('too much is an error that says what holds how much, and the device goes on', async () => {
    using w = empty([1 << 20], 'f32', cpu, 'weights')
    expect(() => empty([1e6, 1e6], 'f32', cpu)).toThrow(
      /no room for .* MiB of activations.*weights 4 MiB/,
    )
    ops.fill(w, 1)
    await cpu.synchronize()
  })
})

describe('errors', () => {
  it('work that fails is told at the next wait, with op and sizes, and then forgotten', async () => {
    using d = openCpu()
    using table = fromArray([1, 2], [2, 1], 'f32', d)
    using ids = fromArray([0, 5], [2], 'i32', d)
    using out = ops.embedding(table, ids)
    await expect(out.read()).rejects.toThrow(/embedding \[T=2, V=2, C=1\]: .*5/)
    expect([...(await table.read())]).toEqual([1, 2])
  })

  it('a wrong shape, dtype or device names op, argument, expected and got', () => {
    using d = openCpu()
    using a = empty([2, 3], 'f32', cpu)
    using b = empty([4, 5], 'f32', cpu)
    using c = empty([3, 2], 'i32', cpu)
    using e = empty([3, 2], 'f32', d)
    expect(() => ops.gemm(a, b)).toThrow('gemm: b must be [K=3, N], got [4, 5]')
    expect(() => ops.gemm(a, c)).toThrow('gemm: b must be f32 or bf16, got i32')
    expect(() => ops.gemm(a, e)).toThrow('gemm: b must be on the device of the others')
  })

  it('devices that are not there are refused by name', () => {
    if (cudaDevices().devices.length === 0) {
      expect(() => device('cuda')).toThrow(/device cuda:0: .*--device cpu/)
    }
    expect(() => device('tpu')).toThrow("got 'tpu'")
    expect(() => openCpu({ isa: 'sse9' })).toThrow(
      /'sse9' is not available here; there are: portable/,
    )
    expect(cpuIsas()).toContain('portable')
  })

  it('waits that a dispose overtakes are told so', async () => {
    const d = openCpu()
    const waits = Array.from({ length: 20 }, () =>
      d.synchronize().then(
        () => 'done',
        () => 'told',
      ),
    )
    d.dispose()
    for (const outcome of await Promise.all(waits)) expect(['done', 'told']).toContain(outcome)
    await expect(d.synchronize()).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
  })
})

it('a process that leaves devices open ends as it should', () => {
  const program = `
    import { fromArray, openCpu } from '${join(process.cwd(), 'dist/index.js')}'
    for (const on of [openCpu(), openCpu(), openCpu()]) await fromArray([1], [1], 'f32', on).read()`
  const { status, signal } = spawnSync(process.execPath, ['--input-type=module', '-e', program])
  expect({ status, signal }).toEqual({ status: 0, signal: null })
})

it('the native layer refuses foreign handles and wrong sizes instead of crashing', async () => {
  const { native } = await import('../../src/native/addon.js')
  const raw = { ...native() } as unknown as Record<string, (...args: unknown[]) => unknown>
  using x = empty([4], 'f32', cpu)
  const bad = [undefined, null, {}, 1, 'x', [], x, x.handle, -1, Number.NaN, 1e30, true]
  const data = ['Device', 'isas', 'cuda', 'cudaKernels'] // and cuda(), which takes nothing
  for (const name of Object.keys(raw).filter((key) => !data.includes(key))) {
    for (let seed = 0; seed < 60; seed++) {
      const args = Array.from(
        { length: 16 },
        (_, i) => bad[(seed * 7 + i * 5 + ((seed * i) >> 2)) % bad.length],
      )
      try {
        raw[name]!(...args)
      } catch (error) {
        expect(error).toBeInstanceOf(Error)
      }
    }
    expect(() => raw[name]!()).toThrow()
  }
  await cpu.synchronize().catch(() => undefined)
})

it('two worker threads load the addon and compute', async () => {
  const { createRequire } = await import('node:module')
  const file = createRequire(import.meta.url).resolve('../../build/Release/westwind.node')
  const code = `
    const { parentPort } = require('node:worker_threads')
    const addon = require(${JSON.stringify(file)})
    const device = new addon.Device('cpu')
    const x = device.empty(0, 4, 3)
    addon.fill(x, 2)
    x.read().then((bytes) => parentPort.postMessage([...new Float32Array(bytes)]))`
  const results = [1, 2].map(
    () =>
      new Promise((resolve, reject) => {
        const worker = new Worker(code, { eval: true })
        worker.once('message', resolve)
        worker.once('error', reject)
      }),
  )
  expect(await Promise.all(results)).toEqual([
    [2, 2, 2, 2],
    [2, 2, 2, 2],
  ])
})
