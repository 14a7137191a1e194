import type { ModelConfig } from '../../src/model/config.js'
import { exact } from '../support/exactness.js'
import { attention, segmentsOf } from './attention.js'
import { gemm } from './gemm.js'
import { rmsNorm } from './rms_norm.js'
import { swiglu } from './swiglu.js'

export interface ReferenceModel {
  config: ModelConfig
  /** Values of a tensor by its name in the checkpoint. */
  weight: (hfName: string) => ArrayLike<number>
  /** RoPE: `[D/2]` radians per position of each pair. */
  frequencies: readonly number[]
}

/** `theta^(−2i/D)`. */
export function ropeFrequencies({ headDim, ropeTheta }: ModelConfig): number[] {
  return Array.from({ length: headDim / 2 }, (_, i) => ropeTheta ** ((-2 * i) / headDim))
}

/** Logits `[T, V]` of one document in float64: the model as its papers have it, nothing fused. */
export function transformer(model: ReferenceModel, ids: readonly number[]): Float64Array {
  const { config, weight } = model
  const { hiddenSize: C, intermediateSize: F, heads, kvHeads, headDim: D } = config
  const T = ids.length
  const segments = segmentsOf([T], [-1])
  const linear = (x: Float64Array, name: string, [N, K]: [number, number]) =>
    gemm(x, weight(`${name}.weight`), { M: T, N, K, transB: true }, exact)
  const norm = (x: Float64Array, name: string) =>
    rmsNorm(x, weight(`${name}.weight`), config.rmsNormEps, undefined).y

  const table = weight('model.embed_tokens.weight')
  let h: Float64Array = Float64Array.from(
    { length: T * C },
    (_, i) => table[ids[Math.floor(i / C)]! * C + (i % C)]!,
  )
  for (let layer = 0; layer < config.layers; layer++) {
    const at = `model.layers.${layer}`
    const normed = norm(h, `${at}.input_layernorm`)
    const project = (name: string, count: number) =>
      linear(normed, `${at}.self_attn.${name}_proj`, [count * D, C])
    const q = rotate(project('q', heads), heads, model)
    const k = rotate(project('k', kvHeads), kvHeads, model)
    const qkv = besides([q, k, project('v', kvHeads)], T)
    const shape = { heads, kvHeads, D, ...segments, window: config.slidingWindow }
    const { out } = attention(shape, qkv)
    h = sum(h, linear(out, `${at}.self_attn.o_proj`, [C, heads * D]))
    const middle = norm(h, `${at}.post_attention_layernorm`)
    const gate = linear(middle, `${at}.mlp.gate_proj`, [F, C])
    const up = linear(middle, `${at}.mlp.up_proj`, [F, C])
    h = sum(h, linear(swiglu(besides([gate, up], T), F), `${at}.mlp.down_proj`, [C, F]))
  }
  const head = config.tieWordEmbeddings ? 'model.embed_tokens' : 'lm_head'
  return linear(norm(h, 'model.norm'), head, [config.vocabSize, C])
}

/** Turns the pairs (i, i + D/2) of every head by position times frequency. */
function rotate(x: Float64Array, heads: number, { frequencies }: ReferenceModel): Float64Array {
  const half = frequencies.length
  const out = x.slice()
  for (let row = 0; row < x.length / (2 * half); row++) {
    for (const [i, frequency] of frequencies.entries()) {
      const angle = Math.floor(row / heads) * frequency
      const low = row * 2 * half + i
      const high = low + half
      out[low] = x[low]! * Math.cos(angle) - x[high]! * Math.sin(angle)
      out[high] = x[high]! * Math.cos(angle) + x[low]! * Math.sin(angle)
    }
  }
  return out
}

/** Matrices of T rows side by side. */
function besides(parts: readonly Float64Array[], T: number): Float64Array {
  const rows = Array.from({ length: T }, (_, t) =>
    parts.flatMap((part) => [...part.subarray((t * part.length) / T, ((t + 1) * part.length) / T)]),
  )
  return Float64Array.from(rows.flat())
}

function sum(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((x, i) => x + b[i]!)
}
