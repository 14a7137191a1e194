import type { Round } from '../support/exactness.js'

function logSumExp(row: ArrayLike<number>): number {
  let max = Number.NEGATIVE_INFINITY
  for (let v = 0; v < row.length; v++) max = Math.max(max, row[v]!)
  let sum = 0
  for (let v = 0; v < row.length; v++) sum += Math.exp(row[v]! - max)
  return max + Math.log(sum)
}

/** Log-prob and log-sum-exp of each row of logits [T, V]; a negative target gives 0. */
export function tokenLogps(
  logits: ArrayLike<number>,
  target: ArrayLike<number>,
  V: number,
  round: Round,
): { logps: Float64Array; lse: Float64Array } {
  const T = target.length
  const logps = new Float64Array(T)
  const lse = new Float64Array(T)
  for (let t = 0; t < T; t++) {
    const row = Float64Array.from({ length: V }, (_, v) => round(logits[t * V + v]!))
    lse[t] = logSumExp(row)
    logps[t] = target[t]! < 0 ? 0 : row[target[t]!]! - lse[t]!
  }
  return { logps, lse }
}

/** d Σ dlogps · logps / d logits. */
export function tokenLogpsBackward(
  logits: ArrayLike<number>,
  target: ArrayLike<number>,
  dlogps: ArrayLike<number>,
  V: number,
  round: Round,
): Float64Array {
  const { lse } = tokenLogps(logits, target, V, round)
  return Float64Array.from({ length: logits.length }, (_, i) => {
    const t = Math.floor(i / V)
    if (target[t]! < 0) return 0
    const onehot = i % V === target[t] ? 1 : 0
    return round(dlogps[t]! * (onehot - Math.exp(round(logits[i]!) - lse[t]!)))
  })
}
