import { describe, expect, it } from 'vitest'
import { swiglu, swigluBackward } from '../../src/ops/swiglu.js'
import { scope } from '../../src/tensor/scope.js'
import { fromArray } from '../../src/tensor/tensor.js'
import * as reference from '../reference/swiglu.js'
import { expectSameBits } from '../support/determinism.js'
import { devices, named } from '../support/devices.js'
import { expectAsExactAsBf16, expectExactF32, relativeError } from '../support/exactness.js'
import { normal } from '../support/random.js'

const shapes = [
  { T: 1, F: 1 },
  { T: 3, F: 37 },
  { T: 2, F: 1408 },
  { T: 2, F: 2056 }, // more than one block a row
]

describe('the float64 reference of swigluBackward', () => {
  it('agrees with finite differences of forward', () => {
    const [F, h] = [3, 1e-6]
    const x = normal(4 * F, 1).map((v) => 3 * v)
    const dout = normal(2 * F, 2)
    const objective = (values: Float64Array) =>
      reference.swiglu(values, F).reduce((total, v, i) => total + v * dout[i]!, 0)
    const slopes = x.map((_, i) => {
      const [above, below] = [h, -h].map((step) => objective(x.with(i, x[i]! + step)))
      return (above! - below!) / (2 * h)
    })
    expect(relativeError(reference.swigluBackward(dout, x, F), slopes)).toBeLessThan(1e-7)
  })
})

describe.each(devices.map(named))('swiglu on %s', (_, device) => {
  it.each(shapes)('T=$T F=$F f32: both ways within 1e-6 of float64', async ({ T, F }) => {
    using _scope = scope()
    const x = normal(T * 2 * F, 1).map((v) => 3 * v)
    const dout = normal(T * F, 2)
    const tx = fromArray(x, [T, 2 * F], 'f32', device)
    const td = fromArray(dout, [T, F], 'f32', device)
    expectExactF32(await swiglu(tx).read(), reference.swiglu(x, F), 1e-6)
    const dx = await swigluBackward(td, tx).read()
    expectExactF32(dx, reference.swigluBackward(dout, x, F), 1e-6)
  })

  it.each(shapes)('T=$T F=$F bf16: error at most twice that of bf16 formula', async ({ T, F }) => {
    using _scope = scope()
    const x = normal(T * 2 * F, 1).map((v) => 3 * v)
    const dout = normal(T * F, 2)
    const tx = fromArray(x, [T, 2 * F], 'bf16', device)
    const td = fromArray(dout, [T, F], 'bf16', device)
    expectAsExactAsBf16(await swiglu(tx).read(), (round) => reference.swiglu(x, F, round))
    const dx = await swigluBackward(td, tx).read()
    expectAsExactAsBf16(dx, (round) => reference.swigluBackward(dout, x, F, round))
  })

  it('stays finite for gates far from zero', async () => {
    using _scope = scope()
    const gates = [-1e4, -200, -88.5, -20, 0, 20, 88.5, 200, 1e4]
    const x = gates.flatMap((gate) => [gate, 1])
    const tx = fromArray(x, [9, 2], 'f32', device)
    const ones = fromArray(new Float32Array(9).fill(1), [9, 1], 'f32', device)
    const out = await swiglu(tx).read()
    const dx = await swigluBackward(ones, tx).read()
    const dout = new Float64Array(9).fill(1)
    gates.forEach((_, t) => {
      const truth = reference.swiglu(x.slice(2 * t, 2 * t + 2), 1)
      expect(Math.abs(out[t]! - truth[0]!)).toBeLessThanOrEqual(1e-6 * Math.abs(truth[0]!) + 1e-30)
      const slope = reference.swigluBackward(dout, x.slice(2 * t, 2 * t + 2), 1)
      for (const i of [0, 1]) {
        const error = Math.abs(dx[2 * t + i]! - slope[i]!)
        expect(error).toBeLessThanOrEqual(1e-6 * Math.abs(slope[i]!) + 1e-30)
      }
    })
  })

  it('gives the same bits on any number of threads', async () => {
    const [T, F] = [90, 301]
    const x = normal(T * 2 * F, 3)
    await expectSameBits(device, (on) => {
      const tx = fromArray(x, [T, 2 * F], 'f32', on)
      const out = swiglu(tx)
      return [out, swigluBackward(out, tx)]
    })
  })

  it('takes no rows, and says which argument does not fit', async () => {
    using _scope = scope()
    const none = fromArray([], [0, 6], 'f32', device)
    expect((await swiglu(none).read()).length).toBe(0)
    const odd = fromArray([1, 2, 3], [1, 3], 'f32', device)
    expect(() => swiglu(odd)).toThrow('swiglu: gateUp must have an even number of columns, got 3')
    expect(() => swigluBackward(odd, none)).toThrow('gateUp must be [T=1, 6], got [0, 6]')
  })
})
