import { exact, type Round } from '../support/exactness.js'
import { gemm } from './gemm.js'
import { tokenLogps, tokenLogpsBackward } from './token-logps.js'

export interface LinearCase {
  N: number
  C: number
  V: number
}

/**
 * Everything linear_logps can give, in float64: inputs and dhidden rounded, logits and their softmax not.
 * `roundGradient` rounds the gradient by the logits.
 */
export function linearLogps(
  hidden: ArrayLike<number>,
  weight: ArrayLike<number>,
  target: ArrayLike<number>,
  dlogps: ArrayLike<number>,
  { N, C, V }: LinearCase,
  round: Round,
  roundGradient: Round = exact,
) {
  const h = Float64Array.from(hidden, round)
  const w = Float64Array.from(weight, round)
  const logits = gemm(h, w, { M: N, N: V, K: C, transB: true }, exact)
  const { logps, lse } = tokenLogps(logits, target, V, exact)
  const dlogits = tokenLogpsBackward(logits, target, dlogps, V, exact).map(roundGradient)
  const entropy = new Float64Array(N)
  const hit = new Float64Array(N)
  for (let n = 0; n < N; n++) {
    const row = logits.subarray(n * V, (n + 1) * V)
    for (const x of row) entropy[n]! -= Math.exp(x - lse[n]!) * (x - lse[n]!)
    hit[n] = row.indexOf(Math.max(...row)) === target[n] ? 1 : 0
  }
  return {
    logps,
    lse,
    entropy,
    hit,
    dhidden: gemm(dlogits, w, { M: N, N: C, K: V }, exact).map(round),
    dweight: gemm(dlogits, h, { M: V, N: C, K: N, transA: true }, exact),
  }
}
