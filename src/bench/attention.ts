import type { Device } from '../device/device.js'
import type { ModelDType } from '../model/model.js'
import { attention, attentionBackward } from '../ops/index.js'
import { scope } from '../tensor/scope.js'
import { fromArray } from '../tensor/tensor.js'
import type { BenchCase } from './harness.js'
import { bytesOf, copiesFor, normalInput, SampledError, spread } from './inputs.js'
import type { BenchModel } from './models.js'

/** Shares of a row that its packed documents have. */
const documents = [0.3, 0.2, 0.18, 0.13, 0.1]

/**
 * Causal attention of one document of T tokens, and of six packed ones. Forward counts 2·D operations for
 * q·k and for p·v of each head and visible pair, n²/2 pairs in a document of n; backward 2.5 times the
 * forward, five products against two. Bytes: qkv, out, dout, dqkv and lse, each once. Tensors belong to the caller's scope.
 */
export function attentionCases(
  model: BenchModel,
  T: number,
  device: Device,
  dtype: ModelDType,
): BenchCase[] {
  const packed = documents.map((share) => Math.max(1, Math.floor(share * T)))
  const rest = T - packed.reduce((sum, n) => sum + n, 0)
  return [[T], [...packed, rest]].flatMap((lengths) => rowCases(model, lengths, device, dtype))
}

function rowCases(
  model: BenchModel,
  lengths: readonly number[],
  device: Device,
  dtype: ModelDType,
): BenchCase[] {
  const { heads, kvHeads, headDim: D } = model
  const start = [0]
  for (const n of lengths) start.push(start.at(-1)! + n)
  const T = start.at(-1)!
  const ints = (values: number[]) => fromArray(values, [values.length], 'i32', device)
  const segments = {
    start: ints(start),
    prefix: ints(lengths.map(() => -1)),
    positions: ints(lengths.flatMap((n) => Array.from({ length: n }, (_, i) => i))),
  }
  const options = { heads, kvHeads, window: null }
  const [wide, narrow] = [T * (heads + 2 * kvHeads) * D, T * heads * D]
  const copies = copiesFor(device, bytesOf(dtype, wide))
  const qkv = normalInput([T, heads + 2 * kvHeads, D], dtype, device, { seed: 1, copies })
  const dout = normalInput([T, heads, D], dtype, device, { seed: 2, copies })
  const saved = attention(qkv.tensor, segments, options)
  const backward = (turn: number) =>
    attentionBackward(dout.at(turn), qkv.at(turn), saved.out, saved.lse, segments, options)
  const ofLse = bytesOf('f32', T * heads)
  const flops = 4 * heads * D * lengths.reduce((sum, n) => sum + (n * n) / 2, 0)
  const truth = new Reference(model, start, qkv.values, dout.values)
  const shared = {
    kernel: 'attention',
    shape: `T=${T} docs=${lengths.length} H=${heads}/${kvHeads} D=${D}`,
    x: { name: 'T', label: 'tokens', value: T },
    lengths,
    bound: dtype === 'f32' ? 1e-5 : 2 ** -6,
  }
  return [
    {
      ...shared,
      mode: 'forward',
      flops,
      bytes: bytesOf(dtype, wide, narrow) + ofLse,
      run: (turn) => {
        using _ = scope()
        attention(qkv.at(turn), segments, options)
      },
      error: async () => truth.forwardError(await saved.out.read(), await saved.lse.read()),
    },
    {
      ...shared,
      mode: 'backward',
      flops: 2.5 * flops,
      bytes: bytesOf(dtype, 2 * wide, 2 * narrow) + ofLse,
      run: (turn) => {
        using _ = scope()
        backward(turn)
      },
      error: async () => {
        using _ = scope()
        const dqkv = await backward(0).read()
        return truth.backwardError(await saved.out.read(), await saved.lse.read(), dqkv)
      },
    },
  ]
}

/** Sampled rows in float64. Backward takes `out` and `lse` of the forward, which is checked first. */
class Reference {
  readonly #wide: number
  readonly #T: number

  constructor(
    readonly model: BenchModel,
    readonly start: readonly number[],
    readonly qkv: Float32Array,
    readonly dout: Float32Array,
  ) {
    this.#wide = model.heads + 2 * model.kvHeads
    this.#T = start.at(-1)!
  }

  forwardError(out: ArrayLike<number>, lse: ArrayLike<number>): number {
    const { heads, headDim: D } = this.model
    const error = new SampledError()
    const sums = new SampledError()
    for (const { t, h } of this.#samples()) {
      const rows = this.#seen(t)
      const scores = rows.map((j) => this.#score(t, j, h))
      const top = Math.max(...scores)
      const truth = top + Math.log(scores.reduce((sum, x) => sum + Math.exp(x - top), 0))
      sums.add(lse[h * this.#T + t]!, truth)
      const row = new Float64Array(D)
      for (const [i, j] of rows.entries()) {
        const p = Math.exp(scores[i]! - truth)
        for (let d = 0; d < D; d++) row[d]! += p * this.qkv[this.#v(j, h) + d]!
      }
      for (let d = 0; d < D; d++) error.add(out[(t * heads + h) * D + d]!, row[d]!)
    }
    return Math.max(error.relative, sums.relative)
  }

  backwardError(out: ArrayLike<number>, lse: ArrayLike<number>, dqkv: ArrayLike<number>): number {
    const { heads, kvHeads, headDim: D } = this.model
    const dq = new SampledError()
    const dk = new SampledError()
    const dv = new SampledError()
    for (const { t, h } of this.#samples()) {
      const query = new Float64Array(D)
      for (const j of this.#seen(t)) {
        const { ds } = this.#weights(out, lse, t, j, h)
        for (let d = 0; d < D; d++) query[d]! += ds * this.qkv[this.#k(j, h) + d]!
      }
      for (let d = 0; d < D; d++) dq.add(dqkv[this.#q(t, h) + d]!, query[d]!)
      const key = new Float64Array(D)
      const value = new Float64Array(D)
      const group = heads / kvHeads
      const first = Math.floor(h / group) * group
      for (let head = first; head < first + group; head++) {
        for (let i = t; i < this.#end(t); i++) {
          const { p, ds } = this.#weights(out, lse, i, t, head)
          for (let d = 0; d < D; d++) {
            key[d]! += ds * this.qkv[this.#q(i, head) + d]!
            value[d]! += p * this.dout[(i * heads + head) * D + d]!
          }
        }
      }
      for (let d = 0; d < D; d++) {
        dk.add(dqkv[this.#k(t, h) + d]!, key[d]!)
        dv.add(dqkv[this.#v(t, h) + d]!, value[d]!)
      }
    }
    return Math.max(dq.relative, dk.relative, dv.relative)
  }

  #samples(): { t: number; h: number }[] {
    return spread(this.#T, 7).map((t, i) => ({ t, h: i % this.model.heads }))
  }

  #q(t: number, h: number): number {
    return (t * this.#wide + h) * this.model.headDim
  }

  #k(t: number, h: number): number {
    const { heads, kvHeads, headDim: D } = this.model
    return (t * this.#wide + heads + Math.floor((h * kvHeads) / heads)) * D
  }

  #v(t: number, h: number): number {
    return this.#k(t, h) + this.model.kvHeads * this.model.headDim
  }

  #seen(t: number): number[] {
    const first = this.start.findLast((at) => at <= t)!
    return Array.from({ length: t - first + 1 }, (_, i) => first + i)
  }

  /** End of the document that t is in. */
  #end(t: number): number {
    return this.start.find((at) => at > t)!
  }

  #score(t: number, j: number, h: number): number {
    const { headDim: D } = this.model
    let dot = 0
    for (let d = 0; d < D; d++) dot += this.qkv[this.#q(t, h) + d]! * this.qkv[this.#k(j, h) + d]!
    return dot / Math.sqrt(D)
  }

  /** Softmax weight of key j for query t, and the gradient of their dot product. */
  #weights(out: ArrayLike<number>, lse: ArrayLike<number>, t: number, j: number, h: number) {
    const { heads, headDim: D } = this.model
    const p = Math.exp(this.#score(t, j, h) - lse[h * this.#T + t]!)
    let difference = 0
    for (let d = 0; d < D; d++) {
      const at = (t * heads + h) * D + d
      difference += this.dout[at]! * (this.qkv[this.#v(j, h) + d]! - out[at]!)
    }
    return { p, ds: (p * difference) / Math.sqrt(D) }
  }
}
