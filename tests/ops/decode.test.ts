import { describe, expect, it } from 'vitest'
import type { Device } from '../../src/device/device.js'
import { attention } from '../../src/ops/attention.js'
import { decodeAttention, kvAppend, kvGather } from '../../src/ops/decode.js'
import type { DType } from '../../src/tensor/dtype.js'
import { fromArray, type Tensor } from '../../src/tensor/tensor.js'
import { attention as formula, segmentsOf } from '../reference/attention.js'
import { another, devices, named } from '../support/devices.js'
import { expectAsExactAsBf16, expectExactF32, sameBits } from '../support/exactness.js'
import { normal } from '../support/random.js'

const shape = { heads: 6, kvHeads: 2, D: 20 }
const wide = shape.heads + 2 * shape.kvHeads

function cacheOf(
  on: Device,
  dtype: DType,
  slots: number,
  length: number,
  fill: number,
  D = shape.D,
) {
  const values = new Float32Array(slots * length * shape.kvHeads * D).fill(fill)
  const dims = [slots, length, shape.kvHeads, D]
  const k = fromArray(values, dims, dtype, on)
  const v = fromArray(values, dims, dtype, on)
  return {
    k,
    v,
    [Symbol.dispose]() {
      k.dispose()
      v.dispose()
    },
  }
}

/** Appends rows to the cache and attends, as a generation step does. */
async function step(
  qkv: Tensor,
  cache: { k: Tensor; v: Tensor },
  slots: number[],
  positions: number[],
  window: number | null,
) {
  using slot = fromArray(slots, [slots.length], 'i32', qkv.device)
  using position = fromArray(positions, [positions.length], 'i32', qkv.device)
  kvAppend(qkv, cache, { slot, position }, shape)
  using out = decodeAttention(qkv, cache, { slot, position }, { ...shape, window })
  return await out.read()
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)

describe.each(devices.map(named))('decoding on %s', (_, device) => {
  // On a GPU other kernels, with sums in another order, do whole documents.
  for (const [dtype, D] of [
    ['f32', 20],
    ['bf16', 20],
    ['bf16', 64], // on tiles
  ] as const)
    for (const window of [null, 50])
      it.runIf(device.name === 'cpu')(
        `prompts and single tokens get the bits of whole documents: ${dtype}, heads of ${D}, window ${window}`,
        async () => {
          // Two documents: a in slot 2, b in slot 0. NaN where nothing was written: it must never be read.
          const [A, B, prompt] = [150, 140, 130]
          const T = A + B
          using qkv = fromArray(normal(T * wide * D, 1), [T, wide, D], dtype, device)
          using start = fromArray([0, A, T], [3], 'i32', device)
          using prefix = fromArray([-1, -1], [2], 'i32', device)
          using positions = fromArray([...range(0, A), ...range(0, B)], [T], 'i32', device)
          const whole = attention(qkv, { start, prefix, positions }, { ...shape, window })
          using out = whole.out
          using _lse = whole.lse
          const expected = await out.read()
          using cache = cacheOf(device, dtype, 3, 160, Number.NaN, D)
          const width = shape.heads * D
          const expectRow = (row: number, actual: ArrayLike<number>, at: number) =>
            expect(
              Array.from({ length: width }, (_x, i) => actual[at * width + i]),
              `row ${row}`,
            ).toEqual([...expected.slice(row * width, (row + 1) * width)])

          using a = qkv.rows(0, prompt)
          const first = await step(a, cache, Array(prompt).fill(2), range(0, prompt), window)
          expect(sameBits(first, expected.slice(0, prompt * width))).toBe(true)
          using b = qkv.rows(A, prompt)
          const second = await step(b, cache, Array(prompt).fill(0), range(0, prompt), window)
          expect(sameBits(second, expected.slice(A * width, (A + prompt) * width))).toBe(true)

          const raw = await qkv.read()
          const row = (t: number) => raw.slice(t * wide * D, (t + 1) * wide * D)
          for (const p of range(prompt, B)) {
            const both = Float32Array.from([...row(p), ...row(A + p)])
            using next = fromArray(both, [2, wide, D], dtype, device)
            const result = await step(next, cache, [2, 0], [p, p], window)
            expectRow(p, result, 0)
            expectRow(A + p, result, 1)
          }
        },
      )

  const sizes: [
    DType,
    heads: number,
    kvHeads: number,
    D: number,
    window: number | null,
    A: number,
  ][] = [
    ['f32', 4, 2, 16, null, 530],
    ['f32', 5, 1, 20, 300, 530], // two blocks of heads
    ['f32', 2, 2, 7, null, 270], // no 16-byte loads
    ['f32', 1, 1, 140, 50, 270], // more than one load per lane
    ['bf16', 6, 2, 20, null, 270], // no 16-byte loads
    ['bf16', 4, 1, 128, null, 270],
    ['bf16', 3, 1, 72, 300, 530], // padded to 128
    ['bf16', 9, 1, 96, 50, 270], // 16 columns of a tensor core
    ['bf16', 18, 1, 8, null, 270], // two blocks of heads
    ['bf16', 2, 1, 256, 257, 270],
    ['bf16', 8, 4, 8, 300, 530], // several rows per block
    ['bf16', 16, 8, 8, null, 530],
  ]
  it.each(sizes)(
    '%s, %i / %i heads of %i, window %s: over several chunks of keys as exact as the formula, and a row alone has the bits it has among others',
    async (dtype, heads, kvHeads, D, window, A) => {
      // Two documents, in slots 2 and 0; NaN where nothing was written.
      const [B, length] = [60, 600]
      const T = A + B
      const W = heads + 2 * kvHeads
      const heading = { heads, kvHeads }
      const of = {
        ...heading,
        D,
        window,
        start: [0, A, T],
        prefix: [-1, -1],
        positions: [...range(0, A), ...range(0, B)],
      }
      const values = normal(T * W * D, heads + D)
      using qkv = fromArray(values, [T, W, D], dtype, device)
      using slot = fromArray([...Array(A).fill(2), ...Array(B).fill(0)], [T], 'i32', device)
      using position = fromArray(of.positions, [T], 'i32', device)
      const empty = new Float32Array(3 * length * kvHeads * D).fill(Number.NaN)
      using k = fromArray(empty, [3, length, kvHeads, D], dtype, device)
      using v = fromArray(empty, [3, length, kvHeads, D], dtype, device)
      kvAppend(qkv, { k, v }, { slot, position }, heading)
      using out = decodeAttention(qkv, { k, v }, { slot, position }, { ...heading, window })
      const all = await out.read()
      if (dtype === 'f32') {
        const truth = formula(of, Float64Array.from(values, Math.fround)).out
        expectExactF32(all, truth)
      } else {
        expectAsExactAsBf16(all, (round) => formula(of, values, round).out)
      }
      for (const t of [0, 255, 256, A - 1, A, T - 1]) {
        using row = qkv.rows(t, 1)
        const at = { slot: slot.rows(t, 1), position: position.rows(t, 1) }
        using alone = decodeAttention(row, { k, v }, at, { ...heading, window })
        const expected = all.slice(t * heads * D, (t + 1) * heads * D)
        expect(sameBits(await alone.read(), expected), `row ${t}`).toBe(true)
        at.slot.dispose()
        at.position.dispose()
      }
    },
  )

  it('many rows of a long cache, more than the partial results of one launch: as exact as the formula', async () => {
    const [T, heads, D, length] = [110, 64, 8, 65536]
    const heading = { heads, kvHeads: 1 }
    const positions = range(0, T)
    const of = { ...heading, D, window: null, start: [0, T], prefix: [-1], positions }
    const values = normal(T * (heads + 2) * D, 9)
    using qkv = fromArray(values, [T, heads + 2, D], 'bf16', device)
    using slot = fromArray(Array(T).fill(0), [T], 'i32', device)
    using position = fromArray(positions, [T], 'i32', device)
    const empty = new Float32Array(length * D).fill(Number.NaN)
    using k = fromArray(empty, [1, length, 1, D], 'bf16', device)
    using v = fromArray(empty, [1, length, 1, D], 'bf16', device)
    kvAppend(qkv, { k, v }, { slot, position }, heading)
    using out = decodeAttention(qkv, { k, v }, { slot, position }, { ...heading, window: null })
    expectAsExactAsBf16(await out.read(), (round) => formula(of, values, round).out)
  })

  it('rows in any order of slots and positions do not disturb each other', async () => {
    const T = 7
    using qkv = fromArray(normal(T * wide * shape.D, 4), [T, wide, shape.D], 'f32', device)
    const slots = [1, 1, 0, 1, 0, 0, 1]
    const positions = [3, 1, 0, 0, 2, 1, 2]
    using cache = cacheOf(device, 'f32', 2, 4, Number.NaN)
    const together = await step(qkv, cache, slots, positions, null)
    expect(together.some(Number.isNaN)).toBe(false)
    const width = shape.heads * shape.D
    for (let t = 0; t < T; t++) {
      using row = qkv.rows(t, 1)
      const alone = await step(row, cache, [slots[t]!], [positions[t]!], null)
      expect(sameBits(alone, together.slice(t * width, (t + 1) * width))).toBe(true)
    }
  })

  it('of two rows for one place in the cache the later stays, with one thread or two', async () => {
    for (const threads of [1, 2]) {
      using on = another(device, threads)
      const values = Float32Array.from({ length: 2 * wide * shape.D }, (_x, i) =>
        i < wide * shape.D ? 1 : 2,
      )
      using qkv = fromArray(values, [2, wide, shape.D], 'f32', on)
      using cache = cacheOf(on, 'f32', 1, 1, 0)
      const out = await step(qkv, cache, [0, 0], [0, 0], null)
      expect(out.every((x) => x === 2)).toBe(true)
    }
  })

  it('takes no rows', async () => {
    using qkv = fromArray([], [0, wide, shape.D], 'f32', device)
    using cache = cacheOf(device, 'f32', 1, 1, 0)
    expect((await step(qkv, cache, [], [], null)).length).toBe(0)
    using none = fromArray([], [0], 'i32', device)
    kvGather(qkv, cache, { slot: none, position: none }, shape)
    await device.synchronize()
  })

  it.each([
    ['f32', 20, 0],
    ['f32', 7, 1], // no 16-byte copies
    ['bf16', 16, 0],
    ['bf16', 16, 3], // more than a block of threads
    ['bf16', 5, 1],
  ] as const)(
    'rows gathered from the cache have the k and v that were appended, and their own q: %s, heads of %i, from row %i',
    async (dtype, D, skip) => {
      const [T, kvHeads] = [6, skip === 3 ? 70 : 2]
      const heading = { heads: kvHeads, kvHeads }
      const width = 3 * kvHeads * D
      using given = fromArray(normal(T * width, 3), [T, 3 * kvHeads, D], dtype, device)
      using all = fromArray(
        normal((T + skip) * width, 4),
        [T + skip, 3 * kvHeads, D],
        dtype,
        device,
      )
      const kept = await all.read()
      using slot = fromArray([1, 1, 0, 1, 2, 0], [T], 'i32', device)
      using position = fromArray([3, 1, 0, 0, 2, 3], [T], 'i32', device)
      const empty = new Float32Array(3 * 4 * kvHeads * D).fill(Number.NaN)
      using k = fromArray(empty, [3, 4, kvHeads, D], dtype, device)
      using v = fromArray(empty, [3, 4, kvHeads, D], dtype, device)
      kvAppend(given, { k, v }, { slot, position }, heading)
      using to = all.rows(skip, T)
      kvGather(to, { k, v }, { slot, position }, heading)
      const expected = await given.read()
      const q = kvHeads * D
      for (let t = 0; t < T; t++)
        expected.set(kept.subarray((t + skip) * width, (t + skip) * width + q), t * width)
      const now = await all.read()
      expect(sameBits(now.slice(0, skip * width), kept.slice(0, skip * width))).toBe(true)
      expect(sameBits(now.slice(skip * width), expected)).toBe(true)
    },
  )

  const continued: [DType, D: number, window: number | null][] = [
    ['f32', 20, null],
    ['f32', 20, 50],
    ['bf16', 20, null], // no 16-byte loads
    ['bf16', 64, null],
    ['bf16', 128, 50],
  ]
  it.each(continued)(
    'what continues the cache, as segments behind keys alone, has the bits of whole documents: %s, heads of %i, window %s',
    async (dtype, D, window) => {
      // Document a continues 70 cached rows, b as many of the same slot, c none.
      const { heads, kvHeads } = shape
      const [P, A, B, C] = [70, 40, 75, 30]
      const options = { heads, kvHeads, window }
      const values = normal((P + A + B + C) * wide * D, 6)
      const [w, o] = [wide * D, heads * D]
      const part = (from: number, to: number) => values.slice(from * w, to * w)
      const attend = async (
        rows: readonly ArrayLike<number>[],
        lengths: number[],
        prefix: number[],
        fill: (qkv: Tensor) => void = () => undefined,
      ) => {
        const { start, positions } = segmentsOf(lengths, prefix)
        const T = positions.length
        using qkv = fromArray(
          rows.flatMap((x) => [...Array.from(x)]),
          [T, wide, D],
          dtype,
          device,
        )
        fill(qkv)
        using starts = fromArray(start, [start.length], 'i32', device)
        using prefixes = fromArray(prefix, [prefix.length], 'i32', device)
        using at = fromArray(positions, [T], 'i32', device)
        const done = attention(qkv, { start: starts, prefix: prefixes, positions: at }, options)
        using out = done.out
        using _ = done.lse
        return out.read()
      }
      const shared = part(0, P)
      const [a, b, c] = [part(P, P + A), part(P + A, P + A + B), part(P + A + B, P + A + B + C)]
      const whole = await attend([shared, a, shared, b, c], [P + A, P + B, C], [-1, -1, -1])

      using slot = fromArray(Array(P).fill(1), [P], 'i32', device)
      using position = fromArray(range(0, P), [P], 'i32', device)
      const empty = new Float32Array(2 * P * kvHeads * D).fill(Number.NaN)
      using k = fromArray(empty, [2, P, kvHeads, D], dtype, device)
      using v = fromArray(empty, [2, P, kvHeads, D], dtype, device)
      using first = fromArray(shared, [P, wide, D], dtype, device)
      kvAppend(first, { k, v }, { slot, position }, shape)
      const unset = new Float32Array(P * w).fill(Number.NaN)
      const out = await attend(
        [unset, unset, a, b, c],
        [P, P, A, B, C],
        [-2, -2, 0, 1, -1],
        (qkv) => {
          for (const from of [0, P]) {
            using to = qkv.rows(from, P)
            kvGather(to, { k, v }, { slot, position }, shape)
          }
        },
      )
      const rows = (of: ArrayLike<number>, from: number, n: number) =>
        Array.from({ length: n * o }, (_x, i) => of[from * o + i]!)
      expect(rows(out, 2 * P, A)).toEqual(rows(whole, P, A))
      expect(rows(out, 2 * P + A, B)).toEqual(rows(whole, P + A + P, B))
      expect(rows(out, 2 * P + A + B, C)).toEqual(rows(whole, P + A + P + B, C))
    },
  )

  const wrong: [string, number[], number[], RegExp][] = [
    ['a slot past the cache', [0, 2], [0, 0], /slot must be in \[0, 2\), got 2 at index 1/],
    ['a negative slot', [-1, 0], [0, 0], /slot must be in \[0, 2\), got -1 at index 0/],
    ['a position past the cache', [0, 1], [0, 4], /position must be in \[0, 4\), got 4 at index 1/],
    ['a negative position', [0, 1], [-1, 4], /position must be in \[0, 4\), got -1 at index 0/],
  ]
  it.each(wrong)('refuses %s', async (_title, slots, positions, message) => {
    using on = another(device, 2)
    using qkv = fromArray(new Float32Array(2 * wide * shape.D), [2, wide, shape.D], 'f32', on)
    using cache = cacheOf(on, 'f32', 2, 4, 0)
    using slot = fromArray(slots, [2], 'i32', on)
    using position = fromArray(positions, [2], 'i32', on)
    kvAppend(qkv, cache, { slot, position }, shape)
    await expect(on.synchronize()).rejects.toThrow(message)
    using out = decodeAttention(qkv, cache, { slot, position }, { ...shape, window: null })
    await expect(out.read()).rejects.toThrow(message)
    kvGather(qkv, cache, { slot, position }, shape)
    await expect(on.synchronize()).rejects.toThrow(message)
  })
})
