import { describe, expect, it } from 'vitest'
import { rmsNorm, rmsNormBackward } from '../../src/ops/rms-norm.js'
import { scope } from '../../src/tensor/scope.js'
import { fromArray } from '../../src/tensor/tensor.js'
import * as reference from '../reference/rms_norm.js'
import { expectSameBits } from '../support/determinism.js'
import { devices, named } from '../support/devices.js'
import { exact, expectAsExactAsBf16, expectExactF32, relativeError } from '../support/exactness.js'
import { normal } from '../support/random.js'

const eps = 1e-5
const shapes = [
  { T: 1, C: 1 },
  { T: 3, C: 7 },
  { T: 70, C: 131 }, // more than one chunk of dweight; a tail at every register width
  { T: 5, C: 512 },
  { T: 9, C: 1000 },
  { T: 6, C: 1032 },
  { T: 5, C: 2056 },
  { T: 2100, C: 8 }, // more rows than chunks of dweight
  { T: 5, C: 8211 }, // longer than a block of threads holds, no row on a boundary but the first
  { T: 2, C: 9216 },
]

function inputs(T: number, C: number) {
  return {
    x: normal(T * C, 1),
    residual: normal(T * C, 2),
    weight: normal(C, 3).map((w) => Math.fround(1 + 0.3 * w)),
    dy: normal(T * C, 4),
    dresidual: normal(T * C, 5),
  }
}

describe('the float64 reference of rmsNormBackward', () => {
  it('agrees with finite differences of forward', () => {
    const C = 5
    const { x, weight, dy, dresidual } = inputs(2, C)
    const objective = () => {
      const { y, sum } = reference.rmsNorm(x, weight, eps, undefined)
      return y.reduce((total, v, i) => total + v * dy[i]! + sum[i]! * dresidual[i]!, 0)
    }
    const slope = (values: Float64Array, i: number) => {
      const [at, h] = [values[i]!, 1e-6]
      values[i] = at + h
      const above = objective()
      values[i] = at - h
      const below = objective()
      values[i] = at
      return (above - below) / (2 * h)
    }
    const { dsum, dweight } = reference.rmsNormBackward(dy, x, weight, eps, dresidual)
    expect(
      relativeError(
        dsum,
        x.map((_, i) => slope(x, i)),
      ),
    ).toBeLessThan(1e-7)
    expect(
      relativeError(
        dweight,
        weight.map((_, i) => slope(weight, i)),
      ),
    ).toBeLessThan(1e-7)
  })
})

describe.each(devices.map(named))('rmsNorm on %s', (_, device) => {
  it.each(shapes)('T=$T C=$C f32: within 1e-6 of float64', async ({ T, C }) => {
    using _scope = scope()
    const { x, residual, weight } = inputs(T, C)
    const [tx, tr] = [x, residual].map((v) => fromArray(v, [T, C], 'f32', device))
    const tw = fromArray(weight, [C], 'f32', device)
    const truth = reference.rmsNorm(x, weight, eps, residual)
    const fused = rmsNorm(tx!, tw, eps, tr)
    expectExactF32(await fused.y.read(), truth.y, 1e-6)
    expectExactF32(await fused.sum.read(), truth.sum, 1e-6)
    expectExactF32(await fused.rstd.read(), truth.rstd, 1e-6)
    const plain = rmsNorm(tx!, tw, eps)
    expect(plain.sum).toBe(tx)
    expectExactF32(await plain.y.read(), reference.rmsNorm(x, weight, eps, undefined).y, 1e-6)
  })

  it.each(shapes)('T=$T C=$C bf16: error at most twice that of bf16 formula', async ({ T, C }) => {
    using _scope = scope()
    const { x, residual, weight } = inputs(T, C)
    const [tx, tr] = [x, residual].map((v) => fromArray(v, [T, C], 'bf16', device))
    const tw = fromArray(weight, [C], 'bf16', device)
    const { y, sum } = rmsNorm(tx!, tw, eps, tr)
    expectAsExactAsBf16(await y.read(), (r) => reference.rmsNorm(x, weight, eps, residual, r).y)
    expectAsExactAsBf16(await sum.read(), (r) => reference.rmsNorm(x, weight, eps, residual, r).sum)
  })

  // At C = 1 the gradient is all cancellation.
  it.each(shapes.slice(1))('T=$T C=$C: gradients as exact as forward', async ({ T, C }) => {
    using _scope = scope()
    const { x, weight, dy, dresidual } = inputs(T, C)
    for (const dtype of ['f32', 'bf16'] as const) {
      const [tx, tdy, tdres] = [x, dy, dresidual].map((v) => fromArray(v, [T, C], dtype, device))
      const tw = fromArray(weight, [C], dtype, device)
      const before = normal(C, 6)
      const dweight = fromArray(before, [C], 'f32', device)
      const { rstd } = rmsNorm(tx!, tw, eps)
      for (const dres of [undefined, tdres]) {
        const dsum = rmsNormBackward(tdy!, tx!, tw, rstd, dweight, dres)
        const formula = (r = exact) =>
          reference.rmsNormBackward(dy, x, weight, eps, dres && dresidual, r)
        if (dtype === 'bf16') expectAsExactAsBf16(await dsum.read(), (r) => formula(r).dsum)
        else expectExactF32(await dsum.read(), formula().dsum, 1e-6)
        const added = (await dweight.read()) as Float32Array
        const expected = (r = exact) => formula(r).dweight.map((d, i) => d + before[i]!)
        if (dtype === 'bf16') expectAsExactAsBf16(added, expected)
        else expectExactF32(added, expected())
        before.set(added)
      }
    }
  })

  it('gives the same bits on any number of threads, and per row whatever else is there', async () => {
    const [T, C] = [400, 96]
    const { x, residual, weight, dy } = inputs(T, C)
    await expectSameBits(device, (on) => {
      const [tx, tr, tdy] = [x, residual, dy].map((v) => fromArray(v, [T, C], 'bf16', on))
      const tw = fromArray(weight, [C], 'bf16', on)
      const dweight = fromArray(weight, [C], 'f32', on)
      const { y, sum, rstd } = rmsNorm(tx!, tw, eps, tr)
      return [y, rstd, rmsNormBackward(tdy!, sum, tw, rstd, dweight), dweight]
    })
    using _scope = scope()
    const [all, tw] = [fromArray(x, [T, C], 'f32', device), fromArray(weight, [C], 'f32', device)]
    const together = rmsNorm(all, tw, eps).y.rows(37, 1)
    expect(await rmsNorm(all.rows(37, 1), tw, eps).y.read()).toEqual(await together.read())
  })

  it.each(['f32', 'bf16'] as const)(
    '%s: a row gives the same bits wherever it lies in memory',
    async (dtype) => {
      using _scope = scope()
      const [T, C] = [5, 1031]
      const { x, residual, weight, dy, dresidual } = inputs(T, C)
      const tw = fromArray(weight, [C], dtype, device)
      const run = (first: number, rows: number) => {
        const [tx, tr, tdy, td] = [x, residual, dy, dresidual].map((v) =>
          fromArray(v.slice(first * C, (first + rows) * C), [rows, C], dtype, device),
        )
        const { y, sum, rstd } = rmsNorm(tx!, tw, eps, tr)
        const dweight = fromArray(new Float32Array(C), [C], 'f32', device)
        return [y, sum, rmsNormBackward(tdy!, sum, tw, rstd, dweight, td)]
      }
      const alone = run(3, 1)
      for (const [i, all] of run(0, T).entries())
        expect(await alone[i]!.readBytes()).toEqual(await all.rows(3, 1).readBytes())
    },
  )

  it('takes no rows at all', async () => {
    using _scope = scope()
    const x = fromArray([], [0, 4], 'f32', device)
    const [w, dw] = [0, 0].map(() => fromArray([1, 2, 3, 4], [4], 'f32', device))
    const { y, rstd } = rmsNorm(x, w!, eps)
    expect((await rmsNormBackward(y, x, w!, rstd, dw!).read()).length).toBe(0)
    expect(await dw!.read()).toEqual(Float32Array.of(1, 2, 3, 4))
  })

  it('says which argument does not fit', () => {
    using _scope = scope()
    const x = fromArray(normal(6, 1), [2, 3], 'f32', device)
    const w = fromArray(normal(4, 1), [4], 'f32', device)
    expect(() => rmsNorm(x, w, eps)).toThrow('rmsNorm: weight must be [C=3], got [4]')
  })
})
