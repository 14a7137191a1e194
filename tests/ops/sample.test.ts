import { describe, expect, it } from 'vitest'
import type { Device } from '../../src/device/device.js'
import { sample } from '../../src/ops/decode.js'
import type { DType } from '../../src/tensor/dtype.js'
import { roundToBf16 } from '../../src/tensor/dtype.js'
import { fromArray } from '../../src/tensor/tensor.js'
import { choose, distribution, type SampleCase } from '../reference/sample.js'
import { devices, named } from '../support/devices.js'
import { normal, uniform as random } from '../support/random.js'

const greedy: SampleCase = { temperature: 0, topK: 0, topP: 1 }

/** One row of logits drawn from with each of the random numbers. */
async function draw(
  on: Device,
  row: ArrayLike<number>,
  uniforms: number[],
  options: SampleCase,
  dtype: DType = 'f32',
): Promise<number[]> {
  const V = row.length
  const B = uniforms.length
  using logits = fromArray(
    Float32Array.from({ length: B * V }, (_, i) => row[i % V]!),
    [B, V],
    dtype,
    on,
  )
  using u = fromArray(uniforms, [B], 'f32', on)
  using out = sample(logits, u, options)
  return [...(await out.read())]
}

describe.each(devices.map(named))('sample on %s', (_, device) => {
  it('temperature 0 takes the most likely token, the first of equals', async () => {
    expect(await draw(device, [0, 3, -1, 3, 2], [0.99], greedy)).toEqual([1])
    expect(await draw(device, [Number.NEGATIVE_INFINITY, -5], [0], greedy)).toEqual([1])
  })

  const cases: SampleCase[] = [
    { temperature: 1, topK: 0, topP: 1 },
    { temperature: 0.7, topK: 0, topP: 0.9 },
    { temperature: 1.5, topK: 50, topP: 1 },
    { temperature: 1, topK: 50, topP: 0.6 },
    { temperature: 1, topK: 1, topP: 1 },
    { temperature: 1, topK: 5000, topP: 0.999 },
    { temperature: 1, topK: 0, topP: 1e-6 },
    { temperature: 1e-3, topK: 0, topP: 1 },
  ]
  it.each(cases)(
    'temperature $temperature, top_k $topK, top_p $topP: the inverse distribution function of the exact set',
    async (c) => {
      const next = random(3)
      const uniforms = Array.from({ length: 64 }, () => Math.fround(next()))
      const row = normal(1003, 5).map((x) => 3 * x)
      for (const dtype of ['f32', 'bf16'] as const) {
        const p = distribution(row, c, dtype === 'bf16' ? roundToBf16 : Math.fround)
        const expected = uniforms.map((u) => choose(p, u))
        expect(await draw(device, row, uniforms, c, dtype)).toEqual(expected)
      }
    },
  )

  it('a long vocabulary with many equal logits: the exact set still', async () => {
    const next = random(7)
    const uniforms = Array.from({ length: 12 }, () => Math.fround(next()))
    const row = normal(20011, 6)
    for (const c of [
      { temperature: 1, topK: 0, topP: 0.8 },
      { temperature: 0.5, topK: 700, topP: 0.9 },
      { temperature: 2, topK: 0, topP: 1 },
    ]) {
      const p = distribution(row, c, roundToBf16)
      const expected = uniforms.map((u) => choose(p, u))
      expect(await draw(device, row, uniforms, c, 'bf16')).toEqual(expected)
    }
  })

  it('tokens are equal when their weights are, whatever the logits', async () => {
    const uniforms = Array.from({ length: 32 }, (_, i) => i / 32)
    const kept = async (row: number[], temperature: number, topK: number, topP: number) =>
      new Set(await draw(device, row, uniforms, { temperature, topK, topP }))
    const zeros = [-0, 0, 1e-30, -0, 2e-30, -1]
    expect(await kept(zeros, 1, 2, 1)).toEqual(new Set([0, 1]))
    expect(await kept(zeros, 1, 5, 0.5)).toEqual(new Set([0, 1, 2]))
    expect(await kept([1, 2, 3, 4, 5], 1e30, 3, 1)).toEqual(new Set([0, 1, 2]))
    expect(await kept([3, Number.NEGATIVE_INFINITY, 3], 1, 2, 0.99)).toEqual(new Set([0, 2]))
    expect(await kept([3, Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY], 1, 2, 0.9)).toEqual(
      new Set([0]),
    )
  })

  it('of equal tokens top_k and top_p keep the lower ids', async () => {
    const uniforms = Array.from({ length: 64 }, (_, i) => i / 64)
    const kept = async (topK: number, topP: number) =>
      new Set(await draw(device, new Float64Array(10), uniforms, { temperature: 1, topK, topP }))
    expect(await kept(3, 1)).toEqual(new Set([0, 1, 2]))
    expect(await kept(0, 0.35)).toEqual(new Set([0, 1, 2, 3]))
    expect(await kept(4, 0.5)).toEqual(new Set([0, 1]))
  })

  it('never draws a token of probability 0, at either end of the random numbers', async () => {
    const row = [Number.NEGATIVE_INFINITY, 1, Number.NEGATIVE_INFINITY, 1, Number.NEGATIVE_INFINITY]
    const ends = [0, 1 - 2 ** -24]
    expect(await draw(device, row, ends, { temperature: 1, topK: 0, topP: 1 })).toEqual([1, 3])
  })

  it('takes a batch of no rows', async () => {
    expect(await draw(device, [1, 2], [], greedy)).toEqual([])
  })

  const bad: [string, number[]][] = [
    ['NaN', [0, Number.NaN, 1]],
    ['infinity', [0, Number.POSITIVE_INFINITY, 1]],
    ['nothing but -infinity', [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY]],
  ]
  it.each(bad)('refuses logits with %s', async (_title, row) => {
    const warm = { temperature: 1, topK: 0, topP: 1 }
    for (const c of [greedy, warm])
      await expect(draw(device, row, [0.5], c)).rejects.toThrow(/sample: logits .* in row 0/)
  })

  it('refuses a random number outside [0, 1)', async () => {
    for (const u of [1, -0.1, Number.NaN])
      await expect(draw(device, [1, 2], [0, u], greedy)).rejects.toThrow(/uniform .* at index 1/)
  })

  it('refuses a negative temperature, and top_p outside (0, 1]', async () => {
    await expect(draw(device, [1], [0], { ...greedy, temperature: -1 })).rejects.toThrow(
      /temperature/,
    )
    for (const topP of [0, 1.1, Number.NaN])
      await expect(draw(device, [1], [0], { ...greedy, topP })).rejects.toThrow(/topP/)
  })
})
