import type { Device } from '../device/device.js'
import type { ModelDType } from '../model/model.js'
import { fill, linearLogps, linearLogpsBackward } from '../ops/index.js'
import { scope } from '../tensor/scope.js'
import { empty, fromArray } from '../tensor/tensor.js'
import type { BenchCase } from './harness.js'
import { bytesOf, copiesFor, normalInput, SampledError, spread } from './inputs.js'
import type { BenchModel } from './models.js'

interface Sizes {
  N: number
  C: number
  V: number
}

/**
 * The vocabulary head over N scored positions: forward (2·N·V·C operations), backward (4·N·V·C; the logits
 * that it computes again are not counted), and both in one pass as dSFT runs them (6·N·V·C). Bytes: hidden
 * states, weight and gradients, each once; what is one number a position counts none. Tensors belong to the
 * caller's scope.
 */
export function linearLogpsCases(
  model: BenchModel,
  N: number,
  device: Device,
  dtype: ModelDType,
): BenchCase[] {
  const { hidden: C, vocabulary: V } = model
  const read = bytesOf(dtype, N * C, V * C)
  const copies = copiesFor(device, read)
  const hidden = normalInput([N, C], dtype, device, { seed: 1, copies })
  const deviation = 1 / Math.sqrt(C)
  const weight = normalInput([V, C], dtype, device, { seed: 2, deviation, copies })
  const ids = Int32Array.from({ length: N }, (_, n) => (n * 7919) % V)
  const gradient = Float32Array.from({ length: N }, (_, n) => ((n % 5) - 2) / N)
  const target = fromArray(ids, [N], 'i32', device)
  const dlogps = fromArray(gradient, [N], 'f32', device)
  const dweight = empty([V, C], 'f32', device)
  const inputs = (turn: number) => [hidden.at(turn), weight.at(turn), target] as const
  const forward = (turn: number) => linearLogps(...inputs(turn))
  const { lse } = forward(0)
  const backward = (turn: number) => linearLogpsBackward(...inputs(turn), lse, dlogps, dweight)
  const both = (turn: number) => linearLogps(...inputs(turn), { dlogps, dweight })
  const zero = () => fill(dweight, 0)
  zero()
  // dhidden is written, dweight added to.
  const gradients = bytesOf(dtype, N * C) + bytesOf('f32', 2 * V * C)
  const truth = new Truth({ N, C, V }, hidden.values, weight.values, ids, gradient)
  const shared = {
    kernel: 'linear_logps',
    shape: `N=${N} C=${C} V=${V}`,
    x: { name: 'N', label: 'scored tokens', value: N },
    // Gradients by bf16 hidden states are rounded to 8 bits; log-probs are f32.
    bound: dtype === 'f32' ? 1e-4 : 2 ** -7,
  }
  const inScope = (op: (turn: number) => unknown) => (turn: number) => {
    using _ = scope()
    op(turn)
  }
  return [
    {
      ...shared,
      mode: 'forward',
      bound: 1e-5,
      flops: 2 * N * V * C,
      bytes: read,
      run: inScope(forward),
      error: async () => {
        using _ = scope()
        const out = forward(0)
        return truth.logpsError(await out.logps.read(), await out.lse.read())
      },
    },
    {
      ...shared,
      mode: 'backward',
      flops: 4 * N * V * C,
      bytes: read + gradients,
      run: inScope(backward),
      error: async () => {
        using _ = scope()
        zero()
        const dhidden = await backward(0).read()
        return truth.gradientError(await lse.read(), dhidden, await dweight.read())
      },
    },
    {
      ...shared,
      mode: 'one pass',
      flops: 6 * N * V * C,
      bytes: read + gradients,
      run: inScope(both),
      error: async () => {
        using _ = scope()
        zero()
        const out = both(0)
        const sums = await out.lse.read()
        return Math.max(
          truth.logpsError(await out.logps.read(), sums),
          truth.gradientError(sums, await out.dhidden!.read(), await dweight.read()),
        )
      },
    },
  ]
}

/** Sampled rows in float64; gradients of the weight take the log-sum-exps of the forward, checked first. */
class Truth {
  constructor(
    readonly sizes: Sizes,
    readonly hidden: Float32Array,
    readonly weight: Float32Array,
    readonly target: Int32Array,
    readonly gradient: Float32Array,
  ) {}

  logpsError(logps: ArrayLike<number>, lse: ArrayLike<number>): number {
    const error = new SampledError()
    for (const n of spread(this.sizes.N, 3)) {
      const { logits, sum } = this.#row(n)
      error.add(lse[n]!, sum)
      error.add(logps[n]!, logits[this.target[n]!]! - sum)
    }
    return error.relative
  }

  gradientError(
    lse: ArrayLike<number>,
    dhidden: ArrayLike<number>,
    dweight: ArrayLike<number>,
  ): number {
    const { N, C, V } = this.sizes
    const [ofHidden, ofWeight] = [new SampledError(), new SampledError()]
    for (const n of spread(N, 3)) {
      const { logits, sum } = this.#row(n)
      const row = new Float64Array(C)
      for (let v = 0; v < V; v++) {
        const d = this.#dlogit(n, v, logits[v]! - sum)
        for (let c = 0; c < C; c++) row[c]! += d * this.weight[v * C + c]!
      }
      for (let c = 0; c < C; c++) ofHidden.add(dhidden[n * C + c]!, row[c]!)
    }
    for (const v of [...spread(V, 3), this.target[N - 1]!]) {
      const row = new Float64Array(C)
      for (let n = 0; n < N; n++) {
        const d = this.#dlogit(n, v, this.#logit(n, v) - lse[n]!)
        for (let c = 0; c < C; c++) row[c]! += d * this.hidden[n * C + c]!
      }
      for (let c = 0; c < C; c++) ofWeight.add(dweight[v * C + c]!, row[c]!)
    }
    return Math.max(ofHidden.relative, ofWeight.relative)
  }

  #logit(n: number, v: number): number {
    const { C } = this.sizes
    let sum = 0
    for (let c = 0; c < C; c++) sum += this.hidden[n * C + c]! * this.weight[v * C + c]!
    return sum
  }

  #row(n: number): { logits: Float64Array; sum: number } {
    const logits = Float64Array.from({ length: this.sizes.V }, (_, v) => this.#logit(n, v))
    const top = logits.reduce((a, b) => Math.max(a, b))
    return { logits, sum: top + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - top), 0)) }
  }

  #dlogit(n: number, v: number, logp: number): number {
    return this.gradient[n]! * ((v === this.target[n] ? 1 : 0) - Math.exp(logp))
  }
}
