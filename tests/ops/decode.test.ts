import { describe, expect, it } from 'vitest'
import { type Device, openCpu } from '../../src/device/device.js'
import { attention } from '../../src/ops/attention.js'
import { decodeAttention, kvAppend } from '../../src/ops/decode.js'
import type { DType } from '../../src/tensor/dtype.js'
import { fromArray, type Tensor } from '../../src/tensor/tensor.js'
import { devices, named } from '../support/devices.js'
import { sameBits } from '../support/exactness.js'
import { normal } from '../support/random.js'

const shape = { heads: 6, kvHeads: 2, D: 20 }
const wide = shape.heads + 2 * shape.kvHeads

function cacheOf(on: Device, dtype: DType, slots: number, length: number, fill: number) {
  const values = new Float32Array(slots * length * shape.kvHeads * shape.D).fill(fill)
  const dims = [slots, length, shape.kvHeads, shape.D]
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
  for (const dtype of ['f32', 'bf16'] as const)
    for (const window of [null, 50])
      it(`prompts and single tokens get the bits of whole documents: ${dtype}, window ${window}`, async () => {
        // Two documents: a in slot 2, b in slot 0. NaN where nothing was written: it must never be read.
        const [A, B, prompt] = [150, 140, 130]
        const T = A + B
        using qkv = fromArray(normal(T * wide * shape.D, 1), [T, wide, shape.D], dtype, device)
        using start = fromArray([0, A, T], [3], 'i32', device)
        using prefix = fromArray([-1, -1], [2], 'i32', device)
        using positions = fromArray([...range(0, A), ...range(0, B)], [T], 'i32', device)
        const whole = attention(qkv, { start, prefix, positions }, { ...shape, window })
        using out = whole.out
        using _lse = whole.lse
        const expected = await out.read()
        using cache = cacheOf(device, dtype, 3, 160, Number.NaN)
        const width = shape.heads * shape.D
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
        const row = (t: number) => raw.slice(t * wide * shape.D, (t + 1) * wide * shape.D)
        for (const p of range(prompt, B)) {
          const both = Float32Array.from([...row(p), ...row(A + p)])
          using next = fromArray(both, [2, wide, shape.D], dtype, device)
          const result = await step(next, cache, [2, 0], [p, p], window)
          expectRow(p, result, 0)
          expectRow(A + p, result, 1)
        }
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
      using on = openCpu({ isa: device.isa, threads })
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
  })

  const wrong: [string, number[], number[], RegExp][] = [
    ['a slot past the cache', [0, 2], [0, 0], /slot must be in \[0, 2\), got 2 at index 1/],
    ['a negative slot', [-1, 0], [0, 0], /slot must be in \[0, 2\), got -1 at index 0/],
    ['a position past the cache', [0, 1], [0, 4], /position must be in \[0, 4\), got 4 at index 1/],
    ['a negative position', [0, 1], [-1, 4], /position must be in \[0, 4\), got -1 at index 0/],
  ]
  it.each(wrong)('refuses %s', async (_title, slots, positions, message) => {
    using on = openCpu({ isa: device.isa })
    using qkv = fromArray(new Float32Array(2 * wide * shape.D), [2, wide, shape.D], 'f32', on)
    using cache = cacheOf(on, 'f32', 2, 4, 0)
    using slot = fromArray(slots, [2], 'i32', on)
    using position = fromArray(positions, [2], 'i32', on)
    kvAppend(qkv, cache, { slot, position }, shape)
    await expect(on.synchronize()).rejects.toThrow(message)
    using out = decodeAttention(qkv, cache, { slot, position }, { ...shape, window: null })
    await expect(out.read()).rejects.toThrow(message)
  })
})
