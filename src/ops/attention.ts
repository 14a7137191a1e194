import { type Check, fields } from '../arguments.js'
import { native } from '../native/addon.js'
import { checkTensor, empty, type Tensor } from '../tensor/tensor.js'
import { checkArgs, checkAttentionOptions, type Expectation, floats } from './check.js'

/** How a packed row is cut: see {@link attention}. All i32 on the device. */
export interface Segments {
  /** `[S+1]`, ascending from 0 to T: segment s is rows `start[s]` to `start[s+1] − 1`. */
  start: Tensor
  /**
   * `[S]`: index of the earlier segment that s sees as a whole, or −1. In forward −2 too: no query of s is
   * answered, its rows are keys of later segments only.
   */
  prefix: Tensor
  /** `[T]`: for RoPE and the sliding window. */
  positions: Tensor
}

export interface AttentionOptions {
  heads: number
  kvHeads: number
  /** Keys further back than this are not seen: visible if `pos_q − pos_k < window`. null: all are. */
  window: number | null
  /** Factor of the scores; the default is `1 / sqrt(D)`. */
  scale?: number
}

const checkSegments: Check<Segments> = fields<Segments>({
  start: checkTensor,
  prefix: checkTensor,
  positions: checkTensor,
})
function prepare(
  op: string,
  qkv: Tensor,
  segments: Segments,
  options: AttentionOptions,
  others: Record<string, Expectation> = {},
) {
  checkSegments(segments, `${op}: segments`)
  const { heads, kvHeads, window } = options
  const S = segments.prefix.size
  const dims = checkArgs<'T' | 'D'>(op, {
    qkv: [qkv, floats, ['T', heads + 2 * kvHeads, 'D']],
    'segments.start': [segments.start, 'i32', [S + 1]],
    'segments.prefix': [segments.prefix, 'i32', [S]],
    'segments.positions': [segments.positions, 'i32', ['T']],
    ...others,
  })
  const { start, prefix, positions } = segments
  const native = [start.handle, prefix.handle, positions.handle, S, window ?? 0] as const
  return { ...dims, segments: native, scale: options.scale ?? 1 / Math.sqrt(dims.D) }
}

/**
 * Attention over segments: each token sees its own segment up to itself and, if the segment has one,
 * the whole of its prefix segment. Packed documents, shared prompts and sliding windows are all this.
 * Blocked softmax (arXiv:2307.08691): no T×T matrix exists.
 *
 * @param qkv `[T, heads + 2·kvHeads, D]`: q, then k, then v heads, rope applied
 * @returns `out` `[T, heads, D]` and `lse` `[heads, T]` f32, the log-sum-exp of the scores
 * @throws at the next wait, if the segments are not ascending or a prefix is not an earlier segment
 */
export function attention(
  qkv: Tensor,
  segments: Segments,
  options: AttentionOptions,
): { out: Tensor; lse: Tensor } {
  checkAttentionOptions('attention', options)
  const p = prepare('attention', qkv, segments, options)
  const out = empty([p.T, options.heads, p.D], qkv.dtype, p.device)
  const lse = empty([options.heads, p.T], 'f32', p.device)
  native().attention(
    ...([qkv.handle, out.handle, lse.handle] as const),
    ...p.segments,
    ...([p.T, options.heads, options.kvHeads, p.D, p.scale] as const),
  )
  return { out, lse }
}

/**
 * Gradient of {@link attention}; scores are computed again, block by block. Deterministic.
 *
 * @param dout `[T, heads, D]`
 * @returns `dqkv` `[T, heads + 2·kvHeads, D]`
 */
export function attentionBackward(
  dout: Tensor,
  qkv: Tensor,
  out: Tensor,
  lse: Tensor,
  segments: Segments,
  options: AttentionOptions,
): Tensor {
  const op = 'attentionBackward'
  checkAttentionOptions(op, options)
  const { heads } = options
  const p = prepare(op, qkv, segments, options, {
    dout: [dout, 'like qkv', ['T', heads, 'D']],
    out: [out, 'like qkv', ['T', heads, 'D']],
    lse: [lse, 'f32', [heads, 'T']],
  })
  const dqkv = empty(qkv.shape, qkv.dtype, p.device)
  native().attentionBackward(
    ...([dout.handle, qkv.handle, out.handle] as const),
    ...p.segments,
    ...([lse.handle, dqkv.handle, p.T, options.heads, options.kvHeads, p.D, p.scale] as const),
  )
  return dqkv
}
