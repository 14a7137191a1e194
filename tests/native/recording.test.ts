import { describe, expect, it } from 'vitest'
import { embedding, gemm, rmsNorm, scale } from '../../src/ops/index.js'
import { own, scope } from '../../src/tensor/scope.js'
import { fromArray, type Tensor } from '../../src/tensor/tensor.js'
import { engines, named } from '../support/devices.js'
import { normal } from '../support/random.js'

describe.each(engines.map(named))('a recording on %s', (_, device) => {
  const weight = () => fromArray(normal(12, 2), [3, 4], 'f32', device)

  it('replays what was enqueued on the same tensors, with what they hold by then', async () => {
    using _scope = scope()
    const w = weight()
    const x = fromArray([1, 2, 3, 4], [1, 4], 'f32', device)
    const step = (input: Tensor) => {
      using _inner = scope()
      const { y } = rmsNorm(input, w.rows(0, 1).reshape([4]), 1e-6)
      return own(gemm(y, w, { transB: true }))
    }
    let out: Tensor | undefined
    using recording = device.record(() => {
      out = step(x)
    })
    const fresh = async (values: number[]) => {
      using result = step(fromArray(values, [1, 4], 'f32', device))
      return await result.read()
    }
    expect(await out!.read()).toEqual(await fresh([1, 2, 3, 4]))
    for (const values of [
      [4, 3, 2, 1],
      [-1, 0, 7, 0.5],
      [1, 2, 3, 4],
    ]) {
      x.write(values)
      recording.replay()
      expect(await out!.read()).toEqual(await fresh(values))
    }
    out!.dispose()
  })

  it('holds its memory, also of tensors disposed in it, until it is disposed', async () => {
    const before = device.stats().liveBytes
    {
      using _scope = scope()
      const x = fromArray(normal(1024, 1), [16, 64], 'f32', device)
      const recording = device.record(() => gemm(x, x, { transB: true }).dispose())
      const other = fromArray(normal(256, 3), [16, 16], 'f32', device) // not where the product was
      const held = await other.read()
      recording.replay()
      expect(await other.read()).toEqual(held)
      recording.dispose()
      recording.dispose()
      expect(() => recording.replay()).toThrow('recording is disposed')
    }
    expect(device.stats().liveBytes).toBe(before)
  })

  it('takes ops alone: no write, no read, no recording in it, and goes on after each', async () => {
    using _scope = scope()
    const x = fromArray([1, 2], [2], 'f32', device)
    const refused = (work: () => unknown) =>
      expect(() => device.record(() => void work())).toThrow()
    refused(() => x.write([3, 4]))
    refused(() => device.record(() => scale(x, 2)))
    let reading: Promise<unknown> | undefined
    using _nothing = device.record(() => {
      reading = x.read().catch((error: unknown) => error)
    })
    expect(String(await reading)).toContain('waiting cannot be recorded')
    scale(x, 2)
    expect([...(await x.read())]).toEqual([2, 4])
  })

  it('tells what is wrong in its data at the next wait, and can be replayed after', async () => {
    using _scope = scope()
    const table = weight()
    const ids = fromArray([2, 0], [2], 'i32', device)
    let out: Tensor | undefined
    using recording = device.record(() => {
      out = own(embedding(table, ids))
    })
    const rows = await table.read()
    ids.write([1, 9])
    recording.replay()
    await expect(device.synchronize()).rejects.toThrow('0 <= row < 3, got 9 at index 1')
    ids.write([1, 1])
    recording.replay()
    expect([...(await out!.read())]).toEqual([...rows.slice(4, 8), ...rows.slice(4, 8)])
    out!.dispose()
  })
})
