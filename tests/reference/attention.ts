import { exact, type Round } from '../support/exactness.js'

export interface AttentionCase {
  heads: number
  kvHeads: number
  D: number
  start: number[]
  prefix: number[]
  positions: number[]
  window: number | null
}

/** A row of segments; a segment with a prefix continues its positions. */
export function segmentsOf(lengths: number[], prefix: number[]) {
  const start = [0]
  const positions: number[] = []
  lengths.forEach((length, s) => {
    start.push(start[s]! + length)
    const before = prefix[s]! < 0 ? 0 : lengths[prefix[s]!]!
    for (let i = 0; i < length; i++) positions.push(before + i)
  })
  return { start, prefix, positions }
}

/** Rows that row t sees. */
function seen(c: AttentionCase, t: number): number[] {
  const s = c.start.filter((start) => start <= t).length - 1
  const p = c.prefix[s]!
  const rows: number[] = []
  if (p >= 0) for (let j = c.start[p]!; j < c.start[p + 1]!; j++) rows.push(j)
  for (let j = c.start[s]!; j <= t; j++) rows.push(j)
  return rows.filter((j) => c.window === null || c.positions[t]! - c.positions[j]! < c.window)
}

/** Softmax weights of row t and head h, their rows, and the log-sum-exp. */
function weights(c: AttentionCase, qkv: Float64Array, t: number, h: number) {
  const { D, heads, kvHeads } = c
  const wide = heads + 2 * kvHeads
  const kvHead = Math.floor(h / (heads / kvHeads))
  const rows = seen(c, t)
  const q = (t * wide + h) * D
  const scores = rows.map((j) => {
    const k = (j * wide + heads + kvHead) * D
    let dot = 0
    for (let d = 0; d < D; d++) dot += qkv[q + d]! * qkv[k + d]!
    return dot / Math.sqrt(D)
  })
  const top = Math.max(...scores)
  const lse = top + Math.log(scores.reduce((sum, x) => sum + Math.exp(x - top), 0))
  return { rows, kvHead, lse, p: scores.map((x) => Math.exp(x - lse)) }
}

/** `qkv` is `[T, heads + 2·kvHeads, D]`; the scale is 1/√D. */
export function attention(c: AttentionCase, values: Float64Array, round: Round = exact) {
  const { D, heads, kvHeads } = c
  const wide = heads + 2 * kvHeads
  const T = c.positions.length
  const qkv = values.map(round)
  const out = new Float64Array(T * heads * D)
  const lse = new Float64Array(heads * T)
  for (let t = 0; t < T; t++)
    for (let h = 0; h < heads; h++) {
      const w = weights(c, qkv, t, h)
      lse[h * T + t] = w.lse
      w.rows.forEach((j, i) => {
        const v = (j * wide + heads + kvHeads + w.kvHead) * D
        for (let d = 0; d < D; d++) out[(t * heads + h) * D + d]! += w.p[i]! * qkv[v + d]!
      })
    }
  return { out: out.map(round), lse }
}

/** `dqkv`, of `dout` `[T, heads, D]`. */
export function attentionBackward(
  c: AttentionCase,
  values: Float64Array,
  doutValues: Float64Array,
  round: Round = exact,
): Float64Array {
  const { D, heads, kvHeads } = c
  const wide = heads + 2 * kvHeads
  const qkv = values.map(round)
  const dout = doutValues.map(round)
  const { out } = attention(c, values, round)
  const dqkv = new Float64Array(qkv.length)
  for (let t = 0; t < c.positions.length; t++)
    for (let h = 0; h < heads; h++) {
      const w = weights(c, qkv, t, h)
      const o = (t * heads + h) * D
      const q = (t * wide + h) * D
      let delta = 0
      for (let d = 0; d < D; d++) delta += dout[o + d]! * out[o + d]!
      w.rows.forEach((j, i) => {
        const k = (j * wide + heads + w.kvHead) * D
        const v = k + kvHeads * D
        let dp = 0
        for (let d = 0; d < D; d++) dp += dout[o + d]! * qkv[v + d]!
        const ds = (w.p[i]! * (dp - delta)) / Math.sqrt(D)
        for (let d = 0; d < D; d++) {
          dqkv[q + d]! += ds * qkv[k + d]!
          dqkv[k + d]! += ds * qkv[q + d]!
          dqkv[v + d]! += w.p[i]! * dout[o + d]!
        }
      })
    }
  return dqkv.map(round)
}
