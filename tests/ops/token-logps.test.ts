import { describe, expect, it } from 'vitest'
import { tokenLogps, tokenLogpsBackward } from '../../src/ops/token-logps.js'
import { scope } from '../../src/tensor/scope.js'
import { fromArray } from '../../src/tensor/tensor.js'
import * as reference from '../reference/token-logps.js'
import { devices, named } from '../support/devices.js'
import { exact, expectAsExactAsBf16, expectExactF32 } from '../support/exactness.js'
import { integers, normal } from '../support/random.js'

describe.each(devices.map(named))('tokenLogps on %s', (_, device) => {
  const cases = [
    { T: 3, V: 32000 },
    { T: 5, V: 5003 }, // not a multiple of a register, nor of the partial sums
    { T: 40, V: 7 },
    { T: 2, V: 1 },
  ]

  it.each(cases)(
    'T=$T V=$V f32: log-probs and gradient within 1e-5 of float64',
    async ({ T, V }) => {
      const logits = normal(T * V, 1).map((x) => Math.fround(4 * x))
      const target = integers(T, V, 2)
      const dlogps = normal(T, 3)
      target[0] = -1
      using x = fromArray(logits, [T, V], 'f32', device)
      using y = fromArray(target, [T], 'i32', device)
      using d = fromArray(dlogps, [T], 'f32', device)
      const { logps, lse } = tokenLogps(x, y)
      const truth = reference.tokenLogps(logits, target, V, exact)
      expectExactF32(await logps.read(), truth.logps, 1e-6)
      expectExactF32(await lse.read(), truth.lse, 1e-6)
      expect((await logps.read())[0]).toBe(0)
      using dx = tokenLogpsBackward(x, y, lse, d)
      expectExactF32(
        await dx.read(),
        reference.tokenLogpsBackward(logits, target, dlogps, V, exact),
      )
    },
  )

  it.each(cases)(
    'T=$T V=$V bf16: error at most twice that of the formula in bf16',
    async ({ T, V }) => {
      const logits = normal(T * V, 1).map((x) => 4 * x)
      const target = integers(T, V, 2)
      const dlogps = normal(T, 3)
      using x = fromArray(logits, [T, V], 'bf16', device)
      using y = fromArray(target, [T], 'i32', device)
      using d = fromArray(dlogps, [T], 'f32', device)
      const { logps, lse } = tokenLogps(x, y)
      expectAsExactAsBf16(
        await logps.read(),
        (round) => reference.tokenLogps(logits, target, V, round).logps,
      )
      using dx = tokenLogpsBackward(x, y, lse, d)
      expectAsExactAsBf16(await dx.read(), (round) =>
        reference.tokenLogpsBackward(logits, target, dlogps, V, round),
      )
    },
  )

  it('the gradient is that of finite differences', async () => {
    const V = 11
    const logits = normal(V, 5)
    using x = fromArray(logits, [1, V], 'f32', device)
    using y = fromArray([4], [1], 'i32', device)
    using d = fromArray([0.75], [1], 'f32', device)
    const { lse } = tokenLogps(x, y)
    using dx = tokenLogpsBackward(x, y, lse, d)
    const at = (v: number, step: number) =>
      reference.tokenLogps(
        logits.map((l, i) => (i === v ? l + step : l)),
        [4],
        V,
        exact,
      ).logps[0]!
    const differences = logits.map((_, v) => (0.75 * (at(v, 1e-5) - at(v, -1e-5))) / 2e-5)
    expectExactF32(await dx.read(), differences)
  })

  it('e^x is within 1.1 units in the last place from the largest to the smallest normal result', async () => {
    // With V=2, logits (x, 0), lse = 0 given and dlogps = -1, the gradient by the first logit is e^x alone.
    const xs = Float32Array.from({ length: 20000 }, (_, i) => -87 + (i * 175.5) / 20000)
    const T = xs.length
    const logits = new Float32Array(2 * T)
    for (let t = 0; t < T; t++) logits[2 * t] = xs[t]!
    using x = fromArray(logits, [T, 2], 'f32', device)
    using y = fromArray(new Int32Array(T).fill(1), [T], 'i32', device)
    using zero = fromArray(new Float32Array(T), [T], 'f32', device)
    using minus = fromArray(new Float32Array(T).fill(-1), [T], 'f32', device)
    using dx = tokenLogpsBackward(x, y, zero, minus)
    const got = await dx.read()
    let worst = 0
    for (let t = 0; t < T; t++) {
      const truth = Math.exp(xs[t]!)
      const ulp = 2 ** (Math.floor(Math.log2(truth)) - 23)
      worst = Math.max(worst, Math.abs(got[2 * t]! - truth) / ulp)
    }
    expect(worst).toBeLessThan(1.1)
  })

  it('logits far apart neither overflow nor underflow to NaN', async () => {
    const logits = [1e30, -1e30, 0, 3e4, 3e4 - 1, -3e4, -Infinity, 0, 0]
    using x = fromArray(logits, [3, 3], 'f32', device)
    using y = fromArray([1, 0, 2], [3], 'i32', device)
    using d = fromArray([1, 1, 1], [3], 'f32', device)
    const { logps, lse } = tokenLogps(x, y)
    expectExactF32(await logps.read(), [-2e30, -Math.log(1 + Math.exp(-1)), -Math.LN2], 1e-6)
    using dx = tokenLogpsBackward(x, y, lse, d)
    const got = await dx.read()
    expect(got.every(Number.isFinite)).toBe(true)
    expect([...got.slice(0, 3)]).toEqual([-1, 1, -0])
    const nan = fromArray([Number.NaN, 0, 0], [1, 3], 'f32', device)
    using one = fromArray([1], [1], 'i32', device)
    expect(await tokenLogps(nan, one).logps.read()).toEqual(new Float32Array([Number.NaN]))
  })

  it.each(['f32', 'bf16'] as const)(
    '%s: a row gives the same bits wherever it lies in memory',
    async (dtype) => {
      using _scope = scope()
      const [T, V] = [4, 2051]
      const logits = normal(T * V, 7)
      const [target, dlogps] = [integers(T, V, 8), normal(T, 9)]
      const run = (first: number, rows: number) => {
        const end = first + rows
        const x = fromArray(logits.slice(first * V, end * V), [rows, V], dtype, device)
        const y = fromArray(target.slice(first, end), [rows], 'i32', device)
        const d = fromArray(dlogps.slice(first, end), [rows], 'f32', device)
        const { logps, lse } = tokenLogps(x, y)
        return [logps, lse, tokenLogpsBackward(x, y, lse, d)]
      }
      const alone = run(3, 1)
      for (const [i, all] of run(0, T).entries())
        expect(await alone[i]!.readBytes()).toEqual(await all.rows(3, 1).readBytes())
    },
  )

  it('T=0 is nothing, and a target of V is refused by index', async () => {
    using none = fromArray([], [0, 4], 'f32', device)
    using noTarget = fromArray([], [0], 'i32', device)
    expect((await tokenLogps(none, noTarget).logps.read()).length).toBe(0)
    using x = fromArray(normal(8, 1), [2, 4], 'f32', device)
    using y = fromArray([3, 4], [2], 'i32', device)
    using d = fromArray([1, 1], [2], 'f32', device)
    const message = 'target must be below V=4, got 4 at index 1'
    await expect(tokenLogps(x, y).logps.read()).rejects.toThrow(message)
    await expect(tokenLogpsBackward(x, y, d, d).read()).rejects.toThrow(message)
  })
})
