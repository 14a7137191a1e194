import { describe, expect, it } from 'vitest'
import { adamw, rmsprop, sumSquares } from '../../src/ops/optimizer.js'
import { roundToBf16 } from '../../src/tensor/dtype.js'
import { scope } from '../../src/tensor/scope.js'
import { fromArray } from '../../src/tensor/tensor.js'
import * as reference from '../reference/optimizer.js'
import { expectSameBits } from '../support/determinism.js'
import { devices, named } from '../support/devices.js'
import { expectExactF32, relativeError } from '../support/exactness.js'
import { normal } from '../support/random.js'

const options = { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, gradScale: 0.5 }
const rmspropOptions = { lr: 1e-3, alpha: 0.99, eps: 1e-8, gradScale: 0.5 }
const sizes = [1, 37, 65536 + 13] // a tail; more than one piece of the kernel
const decays = [0.1, 0, 0.01]

function initial(n: number, seed: number): reference.State {
  return { w: normal(n, seed), m: new Float64Array(n), v: new Float64Array(n) }
}

const gradient = (n: number, tensor: number, step: number) => normal(n, 100 * tensor + step)

describe.each(devices.map(named))('the optimizers on %s', (_, device) => {
  it.each(['adamw', 'rmsprop'])('%s: 5 updates of 3 tensors follow torch in f32', async (rule) => {
    using _scope = scope()
    const truth = sizes.map((n, i) => initial(n, i + 1))
    const f32 = sizes.map((n, i) => initial(n, i + 1))
    const tensors = sizes.map((n, i) => ({
      param: fromArray(initial(n, i + 1).w, [n], 'f32', device),
      first: fromArray(new Float32Array(n), [n], 'f32', device),
      second: fromArray(new Float32Array(n), [n], 'f32', device),
      weightDecay: decays[i]!,
    }))
    for (let step = 1; step <= 5; step++) {
      const grads = sizes.map((n, i) => gradient(n, i, step))
      const given = tensors.map((t, i) => ({
        ...t,
        grad: fromArray(grads[i]!, [sizes[i]!], 'f32', device),
      }))
      if (rule === 'adamw') adamw(given, { ...options, step })
      else rmsprop(given, rmspropOptions)
      grads.forEach((grad, i) => {
        const o = { ...options, weightDecay: decays[i]! }
        for (const [state, f] of [
          [truth[i]!, (x: number) => x],
          [f32[i]!, Math.fround],
        ] as const) {
          if (rule === 'adamw') reference.adamw(state, grad, o, step, f)
          else reference.rmsprop(state, grad, { ...o, beta2: rmspropOptions.alpha }, f)
        }
      })
    }
    for (const [i, t] of tensors.entries()) {
      const plain = relativeError(f32[i]!.w, truth[i]!.w)
      const w = await t.param.read()
      expectExactF32(w, f32[i]!.w, 5e-7)
      expect(relativeError(w, truth[i]!.w)).toBeLessThanOrEqual(2 * plain + 6e-8)
      expectExactF32(await t.second.read(), f32[i]!.v, 5e-7)
      if (rule === 'adamw') expectExactF32(await t.first.read(), f32[i]!.m, 5e-7)
    }
  })

  it('keeps small updates of bf16 parameters in the f32 master', async () => {
    using _scope = scope()
    const n = 100
    const state = initial(n, 1)
    state.w.fill(1)
    const [master, first, second] = [state.w, state.m, state.v].map((v) =>
      fromArray(v, [n], 'f32', device),
    )
    const grad = fromArray(new Float32Array(n).fill(1), [n], 'f32', device)
    const param = fromArray(state.w, [n], 'bf16', device)
    for (let step = 1; step <= 3; step++) {
      const t = { param, master: master!, grad, first: first!, second: second!, weightDecay: 0 }
      adamw([t], { ...options, step, gradScale: 1 })
    }
    const w = await master!.read()
    expect(w[0]).toBeCloseTo(1 - 3e-3, 6) // a constant gradient moves by lr a step
    expect(await param.read()).toEqual(Float32Array.from(w, roundToBf16))
  })

  it('without a master computes from the bf16 value and rounds back', async () => {
    using _scope = scope()
    const n = 53
    const state = initial(n, 2)
    state.w = state.w.map(roundToBf16)
    const grad = gradient(n, 1, 1)
    const param = fromArray(state.w, [n], 'bf16', device)
    const [g, first, second] = [grad, state.m, state.v].map((v) => fromArray(v, [n], 'f32', device))
    const t = { param, grad: g!, first: first!, second: second!, weightDecay: 0.1 }
    adamw([t], { ...options, lr: 0.1, step: 1 })
    const o = { ...options, lr: 0.1, weightDecay: 0.1 }
    reference.adamw(state, grad, o, 1, (x) => x)
    const w = await param.read()
    for (const [i, x] of state.w.entries()) {
      expect(Math.abs(w[i]! - x)).toBeLessThanOrEqual(Math.abs(x) * 2 ** -8)
    }
  })

  it('lr 0, the first step of a warm-up, leaves the parameters as they are', async () => {
    using _scope = scope()
    const w = normal(20, 3)
    const [param, grad, first, second] = [w, w, w, w.map(Math.abs)].map((v) =>
      fromArray(v, [20], 'f32', device),
    )
    const t = { param: param!, grad: grad!, first: first!, second: second!, weightDecay: 0.1 }
    adamw([t], { ...options, lr: 0, step: 1 })
    expect(await param!.read()).toEqual(Float32Array.from(w))
  })

  it('sumSquares: each tensor in f64, to the last f32 bit', async () => {
    using _scope = scope()
    const values = [normal(100_003, 1), normal(3, 2), normal(0, 3), Float64Array.of(1e19, 1e-19)]
    const tensors = values.map((v) => fromArray(v, [v.length], 'f32', device))
    const sums = await sumSquares(tensors).read()
    const truth = values.map((v) => v.reduce((sum, x) => sum + Math.fround(x) ** 2, 0))
    for (const [i, sum] of truth.entries()) {
      expect(Math.abs(sums[i]! - sum)).toBeLessThanOrEqual(6e-8 * sum)
    }
  })

  it('many small tensors, also empty ones and views off a boundary, change as each alone', async () => {
    using _scope = scope()
    const many = Array.from({ length: 70 }, (_, i) => (i * 7) % 40)
    const run = (n: number, seed: number, offset: number, dtype: 'f32' | 'bf16') => {
      const [param, master, grad, first, second] = [0, 0, 1, 2, 3].map((add, i) => {
        const values = new Float64Array(n + offset)
        values.set(i === 4 ? normal(n, seed + add).map(Math.abs) : normal(n, seed + add), offset)
        const x = fromArray(values, [n + offset], i === 0 ? dtype : 'f32', device)
        return x.rows(offset, n)
      })
      const t = {
        param: param!,
        grad: grad!,
        first: first!,
        second: second!,
        weightDecay: seed / 100,
      }
      return dtype === 'bf16' ? { ...t, master: master! } : t
    }
    for (const dtype of ['f32', 'bf16'] as const) {
      const together = many.map((n, i) => run(n, i, i % 3, dtype))
      adamw(together, { ...options, step: 2 })
      rmsprop(together, rmspropOptions)
      const sums = sumSquares(together.map((t) => t.second))
      for (const i of [0, 1, 2, 3, 69]) {
        const alone = run(many[i]!, i, 0, dtype)
        adamw([alone], { ...options, step: 2 })
        rmsprop([alone], rmspropOptions)
        const t = together[i]!
        for (const key of ['param', 'first', 'second'] as const)
          expect(await t[key].readBytes()).toEqual(await alone[key].readBytes())
        const sum = await sumSquares([alone.second]).readBytes()
        expect(await sums.rows(i, 1).readBytes()).toEqual(sum)
      }
    }
  })

  it('sumSquares shows what is not finite', async () => {
    using _scope = scope()
    const x = fromArray([1, Number.NaN, 2], [3], 'f32', device)
    const y = fromArray([1, Number.NEGATIVE_INFINITY], [2], 'f32', device)
    const z = fromArray([1e30, 1], [2], 'f32', device)
    expect(await sumSquares([x, y, z]).read()).toEqual(
      Float32Array.of(Number.NaN, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY),
    )
  })

  it('gives the same bits on any number of threads', async () => {
    const n = 200_001
    const [w, g] = [normal(n, 1), normal(n, 2)]
    await expectSameBits(device, (on) => {
      const [param, grad, first, second] = [w, g, g, g.map(Math.abs)].map((v) =>
        fromArray(v, [n], 'f32', on),
      )
      const t = { param: param!, grad: grad!, first: first!, second: second!, weightDecay: 0.1 }
      adamw([t], { ...options, step: 3 })
      rmsprop([t], rmspropOptions)
      return [param!, first!, second!, sumSquares([grad!, param!])]
    })
  })

  it('says which tensor does not fit, and takes none', () => {
    using _scope = scope()
    const [a, b] = [fromArray([1], [1], 'f32', device), fromArray([1, 2], [2], 'f32', device)]
    const t = { param: a, grad: b, first: a, second: a, weightDecay: 0 }
    expect(() => adamw([t], { ...options, step: 1 })).toThrow('grad must be [1], got [2]')
    const without = { param: a, grad: a, second: a, weightDecay: 0 }
    expect(() => adamw([without], { ...options, step: 1 })).toThrow('first is needed')
    expect(() => adamw([], { ...options, step: 0 })).toThrow('step must be an integer of at')
    adamw([], { ...options, step: 1 })
  })
})
