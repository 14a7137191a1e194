import { describe, expect, it } from 'vitest'
import type { Device } from '../../src/device/device.js'
import { attention, attentionBackward } from '../../src/ops/attention.js'
import type { DType } from '../../src/tensor/dtype.js'
import { fromArray } from '../../src/tensor/tensor.js'
import * as reference from '../reference/attention.js'
import { type AttentionCase, segmentsOf } from '../reference/attention.js'
import { another, devices, named } from '../support/devices.js'
import { expectAsExactAsBf16, expectExactF32, sameBits } from '../support/exactness.js'
import { normal } from '../support/random.js'

const cases: [string, AttentionCase][] = [
  [
    'one document over several blocks of keys and queries',
    { heads: 4, kvHeads: 2, D: 16, window: null, ...segmentsOf([230], [-1]) },
  ],
  [
    'documents, one of them empty and one a token long',
    {
      heads: 3,
      kvHeads: 3,
      D: 8,
      window: null,
      ...segmentsOf([1, 0, 63, 64, 65], [-1, -1, -1, -1, -1]),
    },
  ],
  [
    'two pairs with shared prompts, interleaved, odd head size',
    {
      heads: 4,
      kvHeads: 1,
      D: 33,
      window: null,
      ...segmentsOf([40, 70, 31, 5, 80, 1], [-1, -1, 0, 0, 1, 1]),
    },
  ],
  [
    'a window narrower than a block, over a shared prompt',
    { heads: 2, kvHeads: 1, D: 7, window: 40, ...segmentsOf([100, 90, 30], [-1, 0, 0]) },
  ],
  ['a window of one', { heads: 2, kvHeads: 2, D: 5, window: 1, ...segmentsOf([70], [-1]) }],
  [
    'more query heads per KV head than a block has rows',
    { heads: 200, kvHeads: 1, D: 3, window: null, ...segmentsOf([5, 4], [-1, 0]) },
  ],
  [
    'positions that jump, so that the window hides the middle',
    {
      heads: 2,
      kvHeads: 1,
      D: 4,
      window: 20,
      ...segmentsOf([80, 30], [-1, 0]),
      positions: Array.from({ length: 110 }, (_, t) => (t < 80 ? (t * 7) % 50 : 30 + t)),
    },
  ],
  [
    'a prefix without tokens',
    { heads: 1, kvHeads: 1, D: 2, window: null, ...segmentsOf([0, 3], [-1, 0]) },
  ],
]

/** Head sizes of every tensor-core instance of the GPU, and sizes padded to one; bf16 only. */
const wide: [string, AttentionCase][] = [
  [
    'heads of 16, more steps of keys than are in flight, and a tail',
    { heads: 2, kvHeads: 1, D: 16, window: null, ...segmentsOf([333], [-1]) },
  ],
  [
    'heads of 24 in 32, prompts shared, a tile over the end of a prompt',
    {
      heads: 2,
      kvHeads: 1,
      D: 24,
      window: null,
      ...segmentsOf([40, 70, 31, 0, 1, 130], [-1, -1, 0, 1, 1, 1]),
    },
  ],
  [
    'heads of 64, many short documents',
    {
      heads: 2,
      kvHeads: 2,
      D: 64,
      window: null,
      ...segmentsOf(
        Array.from({ length: 40 }, (_, s) => (s * 7) % 10),
        Array.from({ length: 40 }, () => -1),
      ),
    },
  ],
  [
    'heads of 64, a window over a shared prompt that hides whole steps',
    { heads: 2, kvHeads: 1, D: 64, window: 50, ...segmentsOf([150, 120, 30], [-1, 0, 0]) },
  ],
  [
    'heads of 40 in 64, positions that jump under a window',
    {
      heads: 1,
      kvHeads: 1,
      D: 40,
      window: 20,
      ...segmentsOf([200, 70], [-1, 0]),
      positions: Array.from({ length: 270 }, (_, t) => (t < 200 ? (t * 7) % 150 : 30 + t)),
    },
  ],
  [
    'heads of 80 in 96, three query heads to a KV head',
    { heads: 3, kvHeads: 1, D: 80, window: null, ...segmentsOf([67, 40], [-1, 0]) },
  ],
  ['heads of 96', { heads: 1, kvHeads: 1, D: 96, window: null, ...segmentsOf([20, 90], [-1, -1]) }],
  [
    'heads of 128, two answers to a prompt',
    { heads: 2, kvHeads: 1, D: 128, window: null, ...segmentsOf([50, 90, 33], [-1, 0, 0]) },
  ],
  [
    'heads of 256, a prompt, an answer and a window',
    { heads: 2, kvHeads: 1, D: 256, window: 60, ...segmentsOf([70, 40], [-1, 0]) },
  ],
  [
    'heads of 8 in 64, more tiles of keys than a ring has stages',
    { heads: 1, kvHeads: 1, D: 8, window: null, ...segmentsOf([530], [-1]) },
  ],
  [
    'heads of 128, more tiles of keys than a ring has stages, prompts and answers of a token',
    {
      heads: 1,
      kvHeads: 1,
      D: 128,
      window: null,
      ...segmentsOf([1, 260, 40, 1], [-1, -1, 0, 1]),
    },
  ],
  [
    'heads of 256, more tiles of keys than a ring has stages',
    { heads: 1, kvHeads: 1, D: 256, window: null, ...segmentsOf([150, 30], [-1, 0]) },
  ],
  [
    'heads of 32, a prompt that has a prompt',
    { heads: 2, kvHeads: 1, D: 32, window: null, ...segmentsOf([70, 90, 40], [-1, 0, 1]) },
  ],
  [
    'heads of 32, more query heads per KV head than a block has rows',
    { heads: 200, kvHeads: 1, D: 32, window: null, ...segmentsOf([3, 4], [-1, 0]) },
  ],
  [
    'heads of 256, more short documents than are packed at a time',
    {
      heads: 4,
      kvHeads: 4,
      D: 256,
      window: null,
      ...segmentsOf(
        Array.from({ length: 40 }, (_, s) => 1 + (s % 3)),
        Array.from({ length: 40 }, () => -1),
      ),
    },
  ],
  [
    'heads wider than any instance',
    { heads: 1, kvHeads: 1, D: 264, window: null, ...segmentsOf([9, 5], [-1, 0]) },
  ],
]

function inputs(c: AttentionCase) {
  const T = c.positions.length
  return {
    qkv: normal(T * (c.heads + 2 * c.kvHeads) * c.D, 1),
    dout: normal(T * c.heads * c.D, 2),
  }
}

/** Forward and backward on a device; plain arrays in and out. */
async function run(
  on: Device,
  dtype: DType,
  c: AttentionCase,
  given: { qkv: Float64Array; dout: Float64Array },
) {
  const T = c.positions.length
  using qkv = fromArray(given.qkv, [T, c.heads + 2 * c.kvHeads, c.D], dtype, on)
  using dout = fromArray(given.dout, [T, c.heads, c.D], dtype, on)
  using start = fromArray(c.start, [c.start.length], 'i32', on)
  using prefix = fromArray(c.prefix, [c.prefix.length], 'i32', on)
  using positions = fromArray(c.positions, [T], 'i32', on)
  const segments = { start, prefix, positions }
  const forward = attention(qkv, segments, c)
  using out = forward.out
  using lse = forward.lse
  using dqkv = attentionBackward(dout, qkv, out, lse, segments, c)
  return { out: await out.read(), lse: await lse.read(), dqkv: await dqkv.read() }
}

/** Rows [from, to) of `[T, width]`. */
function rows<A extends { slice(from: number, to: number): A }>(
  a: A,
  width: number,
  from: number,
  to: number,
): A {
  return a.slice(from * width, to * width)
}

describe('the reference of attention', () => {
  it('has the gradient that finite differences give', () => {
    const c = { heads: 2, kvHeads: 1, D: 3, window: 6, ...segmentsOf([4, 3, 5], [-1, 0, 0]) }
    const { qkv, dout } = inputs(c)
    const objective = (x: Float64Array) =>
      reference.attention(c, x).out.reduce((sum, o, i) => sum + o * dout[i]!, 0)
    const gradient = reference.attentionBackward(c, qkv, dout)
    const h = 1e-5
    for (let i = 0; i < qkv.length; i++) {
      const at = (x: number) => objective(qkv.map((q, j) => (j === i ? q + x : q)))
      expect(gradient[i]).toBeCloseTo((at(h) - at(-h)) / (2 * h), 7)
    }
  })
})

describe.each(devices.map(named))('attention on %s', (_, device) => {
  it.each(cases)('%s: f32 agrees with float64, forward and backward', async (_title, c) => {
    const given = inputs(c)
    const { out, lse, dqkv } = await run(device, 'f32', c, given)
    const truth = reference.attention(c, given.qkv)
    expectExactF32(out, truth.out)
    expectExactF32(lse, truth.lse)
    expectExactF32(dqkv, reference.attentionBackward(c, given.qkv, given.dout))
  })

  it.each([...cases, ...wide])(
    '%s: bf16 errs at most twice as much as the same formula in bf16',
    async (_title, c) => {
      const given = inputs(c)
      const { out, dqkv } = await run(device, 'bf16', c, given)
      expectAsExactAsBf16(out, (round) => reference.attention(c, given.qkv, round).out)
      expectAsExactAsBf16(dqkv, (round) =>
        reference.attentionBackward(c, given.qkv, given.dout, round),
      )
    },
  )

  it.each([64, 128])('scores that grow from key to key, bf16 with heads of %i', async (D) => {
    const c = { heads: 1, kvHeads: 1, D, window: null, ...segmentsOf([300], [-1]) }
    const given = inputs(c)
    for (let t = 0; t < 300; t++)
      for (let d = 0; d < D; d++) given.qkv[(3 * t + 1) * D + d]! *= 1 + t / 16
    const { out, lse, dqkv } = await run(device, 'bf16', c, given)
    expectAsExactAsBf16(out, (round) => reference.attention(c, given.qkv, round).out)
    expectAsExactAsBf16(lse, (round) => reference.attention(c, given.qkv, round).lse)
    expectAsExactAsBf16(dqkv, (round) =>
      reference.attentionBackward(c, given.qkv, given.dout, round),
    )
  })

  it.each([
    ['f32', 24],
    ['bf16', 24],
    ['bf16', 64],
  ] as const)(
    'a document has the same bits alone and in any row, %s with heads of %i',
    async (dtype, D) => {
      const shape = { heads: 4, kvHeads: 2, D, window: 100 }
      const packed = { ...shape, ...segmentsOf([37, 150, 70], [-1, -1, -1]) }
      const alone = { ...shape, ...segmentsOf([150], [-1]) }
      const given = inputs(packed)
      const [q, o] = [8 * D, 4 * D]
      const all = await run(device, dtype, packed, given)
      const one = await run(device, dtype, alone, {
        qkv: rows(given.qkv, q, 37, 187),
        dout: rows(given.dout, o, 37, 187),
      })
      expect(sameBits(one.out, rows(all.out, o, 37, 187))).toBe(true)
      expect(sameBits(one.dqkv, rows(all.dqkv, q, 37, 187))).toBe(true)
    },
  )

  it.each([
    ['f32', 20],
    ['bf16', 24],
    ['bf16', 128],
  ] as const)(
    'a shared prompt gives the bits of a repeated one, %s with heads of %i',
    async (dtype, D) => {
      const shape = { heads: 4, kvHeads: 1, D, window: null }
      const [P, A, B] = [90, 50, 75]
      const shared = { ...shape, ...segmentsOf([P, A, B], [-1, 0, 0]) }
      const plain = { ...shape, ...segmentsOf([P + A, P + B], [-1, -1]) }
      const given = inputs(shared)
      const [q, o] = [6 * D, 4 * D]
      const repeat = (x: Float64Array, width: number, prompt: Float64Array) =>
        Float64Array.from([
          ...rows(x, width, 0, P + A),
          ...prompt,
          ...rows(x, width, P + A, P + A + B),
        ])
      const one = await run(device, dtype, shared, given)
      const two = await run(device, dtype, plain, {
        qkv: repeat(given.qkv, q, rows(given.qkv, q, 0, P)),
        dout: repeat(given.dout, o, new Float64Array(P * o)),
      })
      const second = P + A + P
      expect(sameBits(rows(two.out, o, 0, P + A), rows(one.out, o, 0, P + A))).toBe(true)
      expect(
        sameBits(rows(two.out, o, second, second + B), rows(one.out, o, P + A, P + A + B)),
      ).toBe(true)

      if (dtype === 'bf16') return
      // The gradient of the shared prompt is the sum of those of the repeated one.
      const sum = Float64Array.from(two.dqkv)
      for (let i = 0; i < P * q; i++) sum[i]! += sum[(P + A) * q + i]!
      expectExactF32(
        one.dqkv,
        Float64Array.from([...rows(sum, q, 0, P + A), ...rows(sum, q, second, second + B)]),
      )
    },
  )

  it.each([
    ['f32', 4],
    ['bf16', 64],
    ['bf16', 128],
  ] as const)(
    'what is not a number in a document stays in it, %s with heads of %i',
    async (dtype, D) => {
      const shape = { heads: 2, kvHeads: 1, D, window: null }
      const c = { ...shape, ...segmentsOf([20, 50, 30, 9], [-1, 0, -1, 2]) }
      const given = inputs(c)
      const clean = await run(device, dtype, c, given)
      for (const [x, width] of [
        [given.qkv, 4 * D],
        [given.dout, 2 * D],
      ] as const)
        x.fill(Number.NaN, 70 * width, 79 * width).fill(Number.NaN, 100 * width)
      const { out, dqkv } = await run(device, dtype, c, given)
      expect(sameBits(rows(out, 2 * D, 0, 70), rows(clean.out, 2 * D, 0, 70))).toBe(true)
      expect(sameBits(rows(dqkv, 4 * D, 0, 70), rows(clean.dqkv, 4 * D, 0, 70))).toBe(true)
    },
  )

  it.each([33, 64])(
    'gives the same bits again, and with one thread or two: heads of %i',
    async (D) => {
      const c = { ...cases[2]![1], D }
      const given = inputs(c)
      using one = another(device, 1)
      using two = another(device, 2)
      const first = await run(device, 'bf16', c, given)
      for (const on of [device, one, two]) {
        const again = await run(on, 'bf16', c, given)
        expect(sameBits(again.out, first.out)).toBe(true)
        expect(sameBits(again.lse, first.lse)).toBe(true)
        expect(sameBits(again.dqkv, first.dqkv)).toBe(true)
      }
    },
  )

  it('takes tensors that begin anywhere', async () => {
    const c = { heads: 2, kvHeads: 1, D: 16, window: null, ...segmentsOf([21, 20], [-1, 0]) }
    const given = inputs(c)
    using whole = fromArray(Float64Array.of(0, ...given.qkv), [41 * 64 + 1], 'bf16', device)
    using part = whole.rows(1, 41 * 64)
    using qkv = part.reshape([41, 4, 16])
    using dout = fromArray(given.dout, [41, 2, 16], 'bf16', device)
    using start = fromArray(c.start, [3], 'i32', device)
    using prefix = fromArray(c.prefix, [2], 'i32', device)
    using positions = fromArray(c.positions, [41], 'i32', device)
    const segments = { start, prefix, positions }
    const forward = attention(qkv, segments, c)
    using out = forward.out
    using lse = forward.lse
    using dqkv = attentionBackward(dout, qkv, out, lse, segments, c)
    expectAsExactAsBf16(await out.read(), (round) => reference.attention(c, given.qkv, round).out)
    expectAsExactAsBf16(await dqkv.read(), (round) =>
      reference.attentionBackward(c, given.qkv, given.dout, round),
    )
  })

  it('takes a row without tokens', async () => {
    const none = { heads: 2, kvHeads: 1, D: 4, window: null }
    const given = { qkv: new Float64Array(), dout: new Float64Array() }
    const { out } = await run(device, 'f32', { ...none, ...segmentsOf([], []) }, given)
    expect(out.length).toBe(0)
    await run(device, 'f32', { ...none, ...segmentsOf([0, 0], [-1, 0]) }, given)
  })

  it('a NaN in a key shows in the rows that see it, and only there', async () => {
    const c = { heads: 1, kvHeads: 1, D: 4, window: null, ...segmentsOf([70, 70], [-1, -1]) }
    const given = inputs(c)
    given.qkv[66 * 12 + 4] = Number.NaN // k of row 66
    const { out, lse } = await run(device, 'f32', c, given)
    for (let t = 0; t < 140; t++) {
      expect(Number.isNaN(out[t * 4]), `row ${t}`).toBe(t >= 66 && t < 70)
      expect(Number.isNaN(lse[t]), `row ${t}`).toBe(t >= 66 && t < 70)
    }
  })

  const wrong: [string, Partial<AttentionCase>, RegExp][] = [
    ['a start that is not 0', { start: [1, 3, 6] }, /segStart must begin with 0, got 1/],
    ['a start that descends', { start: [0, 7, 6] }, /segStart must ascend|segStart must end/],
    ['an end that is not T', { start: [0, 3, 5] }, /segStart must end with T=6, got 5/],
    ['an end far outside', { start: [0, 3, 2 ** 30] }, /segStart must end with T=6/],
    ['a prefix after its segment', { prefix: [1, -1] }, /earlier segment, got 1 at index 0/],
    ['a prefix that is itself', { prefix: [-1, 1] }, /earlier segment, got 1 at index 1/],
    ['a prefix below -2', { prefix: [-1, -3] }, /earlier segment, got -3 at index 1/],
    [
      'a negative position with a window',
      { window: 3, positions: [0, 1, 2, 0, -1, 2] },
      /positions must be >= 0, got -1 at index 4/,
    ],
  ]
  it.each(wrong)('refuses %s', async (_title, change, message) => {
    const c = {
      heads: 1,
      kvHeads: 1,
      D: 2,
      window: null,
      ...segmentsOf([3, 3], [-1, 0]),
      ...change,
    }
    const given = { qkv: new Float64Array(36), dout: new Float64Array(12) }
    await expect(run(device, 'f32', c, given)).rejects.toThrow(message)
  })
})
