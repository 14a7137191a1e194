import { describe, expect, it } from 'vitest'
import { rope } from '../../src/ops/rope.js'
import { scope } from '../../src/tensor/scope.js'
import { fromArray } from '../../src/tensor/tensor.js'
import * as reference from '../reference/rope.js'
import { expectSameBits } from '../support/determinism.js'
import { devices, named } from '../support/devices.js'
import { expectAsExactAsBf16, expectExactF32 } from '../support/exactness.js'
import { normal } from '../support/random.js'

const cases = [
  { T: 1, heads: 1, rowHeads: 1, D: 2, theta: 10000 },
  { T: 9, heads: 3, rowHeads: 4, D: 64, theta: 10000 },
  { T: 70, heads: 2, rowHeads: 2, D: 30, theta: 1e6 }, // 15 pairs: a tail at every register width
  { T: 6, heads: 5, rowHeads: 7, D: 128, theta: 10000 },
  { T: 4, heads: 11, rowHeads: 12, D: 16, theta: 10000 }, // more heads than one thread turns
  { T: 3, heads: 2, rowHeads: 2, D: 528, theta: 10000 }, // more pairs than one launch takes
]
// Around the multiples of 64 where the kernel changes its anchor, out of order, and far out.
const positions = [0, 1, 63, 64, 65, 2048, 5, 128, 32767]

describe.each(devices.map(named))('rope on %s', (_, device) => {
  it.each(cases)('T=$T D=$D: rotates the first heads, leaves the others', async (shape) => {
    using _scope = scope()
    const { T, heads, rowHeads, D, theta } = shape
    const x = normal(T * rowHeads * D, 1)
    const at = Int32Array.from({ length: T }, (_, t) => positions[t] ?? t * 3)
    const tp = fromArray(at, [T], 'i32', device)
    for (const inverse of [false, true]) {
      const how = { heads, rowHeads, D, theta, sign: inverse ? -1 : 1 }
      const f32 = fromArray(x, [T, rowHeads, D], 'f32', device)
      rope(f32, tp, heads, theta, inverse)
      expectExactF32(await f32.read(), reference.rope(x, at, how), 1e-6)
      const bf16 = fromArray(x, [T, rowHeads, D], 'bf16', device)
      rope(bf16, tp, heads, theta, inverse)
      expectAsExactAsBf16(await bf16.read(), (round) => reference.rope(x, at, how, round))
    }
  })

  it('is undone by its inverse, which is its gradient: the rotation is orthogonal', async () => {
    using _scope = scope()
    const x = normal(8 * 16, 2)
    const tp = fromArray([0, 7, 100, 4000], [4], 'i32', device)
    const y = fromArray(x, [4, 2, 16], 'f32', device)
    rope(y, tp, 2, 10000)
    rope(y, tp, 2, 10000, true)
    expectExactF32(await y.read(), x, 1e-6)
  })

  it('has angles exact to f32 at the largest position', async () => {
    using _scope = scope()
    const at = [2147483647]
    const x = fromArray([1, 0], [1, 1, 2], 'f32', device)
    rope(x, fromArray(at, [1], 'i32', device), 1, 10000)
    const truth = reference.rope([1, 0], at, { heads: 1, rowHeads: 1, D: 2, theta: 1, sign: 1 })
    expectExactF32(await x.read(), truth, 1e-6)
  })

  it('follows a change of theta or D from one call to the next', async () => {
    using _scope = scope()
    const x = normal(32, 3)
    const at = [77]
    const tp = fromArray(at, [1], 'i32', device)
    for (const [heads, D, theta] of [
      [1, 32, 10000],
      [1, 32, 500],
      [2, 16, 500],
      [1, 32, 10000],
    ] as const) {
      const y = fromArray(x, [1, heads, D], 'f32', device)
      rope(y, tp, heads, theta)
      const how = { heads, rowHeads: heads, D, theta, sign: 1 }
      expectExactF32(await y.read(), reference.rope(x, at, how), 1e-6)
    }
  })

  it('gives the same bits on any number of threads, and per position whatever comes before', async () => {
    const x = normal(200 * 24, 4)
    const at = Int32Array.from({ length: 200 }, (_, t) => (t * 37) % 500)
    await expectSameBits(device, (on) => {
      const y = fromArray(x, [200, 1, 24], 'f32', on)
      rope(y, fromArray(at, [200], 'i32', on), 1, 10000)
      return [y]
    })
    using _scope = scope()
    const y = fromArray(x, [200, 1, 24], 'f32', device)
    const alone = fromArray(x.slice(24 * 150, 24 * 151), [1, 1, 24], 'f32', device)
    const tp = fromArray(at, [200], 'i32', device)
    rope(y, tp, 1, 10000)
    rope(alone, tp.rows(150, 1), 1, 10000)
    expect(await alone.read()).toEqual(await y.rows(150, 1).read())
  })

  it('refuses a negative position by its index, before anything is written', async () => {
    using _scope = scope()
    const x = fromArray([1, 2, 3, 4], [2, 1, 2], 'f32', device)
    rope(x, fromArray([5, -3], [2], 'i32', device), 1, 10000)
    await expect(device.synchronize()).rejects.toThrow('positions must be >= 0, got -3 at index 1')
    expect(await x.read()).toEqual(Float32Array.of(1, 2, 3, 4))
  })

  it('refuses an odd D and takes no rows', async () => {
    using _scope = scope()
    const none = fromArray([], [0], 'i32', device)
    const odd = fromArray([], [0, 1, 3], 'f32', device)
    expect(() => rope(odd, none, 1, 10000)).toThrow('D must be even, got 3')
    const empty = fromArray([], [0, 1, 4], 'f32', device)
    rope(empty, none, 1, 10000)
    expect((await empty.read()).length).toBe(0)
  })
})
