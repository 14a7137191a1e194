import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { cudaDevices, device, openCuda } from '../../src/device/device.js'
import { add, embedding, fill, scale } from '../../src/ops/index.js'
import { scope } from '../../src/tensor/scope.js'
import { empty, fromArray } from '../../src/tensor/tensor.js'
import { fixturePath } from '../support/fixtures.js'
import { integers } from '../support/random.js'

const { devices: gpus, missing } = cudaDevices()
const MiB = 2 ** 20

describe.runIf(gpus.length > 0)('a GPU', () => {
  it.each([0, 1, 4 * MiB - 1, 4 * MiB, 4 * MiB + 5, 13 * MiB + 3])(
    'copies %i bytes in and out as they are, whatever the size of the staging',
    async (bytes) => {
      using on = openCuda()
      const values = integers(Math.ceil(bytes / 4), 2 ** 31 - 1, bytes)
      using x = fromArray(values, [values.length], 'i32', on)
      using copy = fromArray([], [0], 'i32', on)
      expect(Buffer.from((await x.read()).buffer).equals(Buffer.from(values.buffer))).toBe(true)
      expect((await copy.read()).length).toBe(0)
    },
  )

  it('has a stream of its own for each device that is opened, all in order', async () => {
    using one = openCuda()
    using two = openCuda()
    using x = fromArray([1, 2, 3], [3], 'f32', one)
    using y = fromArray([4, 5, 6], [3], 'f32', two)
    for (let i = 0; i < 20; i++) {
      scale(x, 2)
      scale(y, 2)
    }
    expect([...(await x.read())]).toEqual([1, 2, 3].map((v) => v * 2 ** 20))
    expect([...(await y.read())]).toEqual([4, 5, 6].map((v) => v * 2 ** 20))
    expect(() => add(x, y)).toThrow('add: b must be on the device of the others')
  })

  it('is asked for memory once, however often tensors come and go', () => {
    using on = openCuda()
    for (let i = 0; i < 100; i++) empty([1000, 1000], 'f32', on).dispose()
    const { deviceAllocations, liveBytes, peakBytes } = on.stats()
    expect({ deviceAllocations, liveBytes }).toEqual({ deviceAllocations: 1, liveBytes: 0 })
    expect(peakBytes).toBeGreaterThanOrEqual(4e6)
  })

  it('tells what holds how much when it has no room, and goes on', async () => {
    using on = openCuda()
    using x = empty([64, MiB], 'f32', on, 'weights')
    const tooMuch = () => empty([on.capacity], 'f32', on)
    expect(tooMuch).toThrow(
      /no room for \d+ MiB of activations: the device has \d+ MiB, in use 256 MiB \(weights 256 MiB, /,
    )
    expect(tooMuch).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_MEMORY' }))
    fill(x, 2)
    using row = x.rows(63, 1)
    expect((await row.read())[MiB - 1]).toBe(2)
  })

  // A real GPU's memory is not ours to fill.
  it.runIf(gpus[0]?.name.startsWith('ptxsim'))(
    'tells what an op wanted and what there is when its working memory has no room, and goes on',
    async () => {
      const run = promisify(execFile)
      const file = fixturePath('cuda-no-room.mjs')
      const { stdout } = await run(process.execPath, [file, join(process.cwd(), 'dist/index.js')], {
        env: { ...process.env, PTXSIM_MEM_GB: '1', WESTWIND_MEMCHECK: '0' },
      })
      const [told, after] = stdout.trim().split('\n')
      expect(told).toMatch(
        /^cuda:0: linear_logps \[N=64, C=1, V=1048576\]: no room for 256 MiB of working memory: of the GPU's 1024 MiB \d+ are free, 0 are working memory, and tensors or other programs hold the rest\. Take smaller batches; the device can still be used\.$/,
      )
      expect(after).toBe('3')
    },
  )

  it.runIf(gpus[0]?.name.startsWith('ptxsim'))(
    'gives back cached memory where working memory has no room, but none that the op itself reads',
    async () => {
      const run = promisify(execFile)
      const file = fixturePath('cuda-cached.mjs')
      const { stdout } = await run(process.execPath, [file, join(process.cwd(), 'dist/index.js')], {
        env: { ...process.env, PTXSIM_MEM_GB: '1', WESTWIND_MEMCHECK: '0' },
      })
      const [own, free] = stdout.trim().split('\n')
      expect(own).toMatch(/^cuda:0: linear_logps \[.*\]: no room for 32 MiB of working memory: /)
      expect(free).toBe(`${(-Math.log(2 ** 17)).toFixed(4)} and 64 MiB held`)
    },
  )

  it('tells a wrong row number at the next wait, does nothing after it, and goes on', async () => {
    using _scope = scope()
    using on = openCuda()
    const table = fromArray([1, 2, 3, 4], [2, 2], 'f32', on)
    const bad = embedding(table, fromArray([0, 7, -1], [3], 'i32', on))
    await expect(bad.read()).rejects.toThrow('ids must be 0 <= row < 2, got 7 at index 1')
    expect([...(await embedding(table, fromArray([1], [1], 'i32', on)).read())]).toEqual([3, 4])
  })

  it('times what was enqueued by its own clock', async () => {
    using on = openCuda()
    using x = empty([MiB], 'f32', on)
    expect(await on.time(() => fill(x, 1))).toBeGreaterThan(0)
  })

  it('is the automatic choice, and named cuda:0', () => {
    expect(device('auto').name).toBe('cuda:0')
    expect(device('cuda')).toBe(device('cuda:0'))
    expect(device('auto').isa).toMatch(/^sm_\d+$/)
  })

  it('refuses a GPU that is not there by its number', () => {
    expect(() => device('cuda:77')).toThrow(
      `device cuda:77: there is no such GPU: the driver sees ${gpus.length}, numbered from 0`,
    )
  })

  it('works in two worker threads at once, beside the main one', async () => {
    const run = promisify(execFile)
    const file = fixturePath('cuda-workers.mjs')
    const { stdout } = await run(process.execPath, [file, join(process.cwd(), 'dist/index.js')])
    expect(stdout.trim()).toBe('12 12 12')
  })
})

describe('without a GPU', () => {
  it.runIf(gpus.length === 0)('one sentence says what is missing and what to do', () => {
    expect(missing).toMatch(/(libcuda\.so\.1|nvcc|driver).*--device cpu/)
    expect(() => device('cuda')).toThrow(`device cuda:0: ${missing}`)
    expect(device('auto').name).toBe('cpu')
  })

  it.runIf(process.env.LD_LIBRARY_PATH)(
    'a driver that is not found is said to be missing',
    async () => {
      const { LD_LIBRARY_PATH: _, ...env } = process.env
      const program = join(process.cwd(), 'bin/westwind.js')
      const run = promisify(execFile)
      const { stdout } = await run(process.execPath, [program, 'inspect', 'device', '--json'], {
        env,
      })
      const facts: { device: string; cuda: unknown[]; cudaMissing: string | null } =
        JSON.parse(stdout)
      if (facts.cudaMissing === null) return // this machine has a driver of its own
      expect(facts.cudaMissing).toMatch(/^libcuda\.so\.1 was not found\. Install the NVIDIA driver/)
      expect(facts.device).toBe('cpu')
    },
  )
})
