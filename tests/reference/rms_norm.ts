import { exact, type Round } from '../support/exactness.js'

type Numbers = ArrayLike<number>

function rowRstd(s: Numbers, t: number, C: number, eps: number): number {
  let squares = 0
  for (let c = 0; c < C; c++) squares += s[t * C + c]! ** 2
  return 1 / Math.sqrt(squares / C + eps)
}

/** `sum = x + residual`, `y = weight · sum / sqrt(mean(sum²) + eps)`, row by row. */
export function rmsNorm(
  x: Numbers,
  weight: Numbers,
  eps: number,
  residual: Numbers | undefined,
  round: Round = exact,
): { y: Float64Array; sum: Float64Array; rstd: Float64Array } {
  const C = weight.length
  const T = x.length / C
  const sum = Float64Array.from(x, (v, i) => round(round(v) + round(residual?.[i] ?? 0)))
  const rstd = Float64Array.from({ length: T }, (_, t) => rowRstd(sum, t, C, eps))
  const y = sum.map((s, i) => round(round(weight[i % C]!) * s * rstd[Math.floor(i / C)]!))
  return { y, sum, rstd }
}

/** Gradient of Σ dy·y + Σ dresidual·sum with respect to sum and weight. */
export function rmsNormBackward(
  dy: Numbers,
  sum: Numbers,
  weight: Numbers,
  eps: number,
  dresidual: Numbers | undefined,
  round: Round = exact,
): { dsum: Float64Array; dweight: Float64Array } {
  const C = weight.length
  const T = sum.length / C
  const s = Float64Array.from(sum, round)
  const dsum = new Float64Array(T * C)
  const dweight = new Float64Array(C)
  for (let t = 0; t < T; t++) {
    const rstd = rowRstd(s, t, C, eps)
    let dot = 0
    for (let c = 0; c < C; c++) dot += round(dy[t * C + c]!) * round(weight[c]!) * s[t * C + c]!
    for (let c = 0; c < C; c++) {
      const i = t * C + c
      const g = round(dy[i]!) * round(weight[c]!)
      dsum[i] = round(round(dresidual?.[i] ?? 0) + rstd * (g - (s[i]! * rstd ** 2 * dot) / C))
      dweight[c] = dweight[c]! + round(dy[i]!) * s[i]! * rstd
    }
  }
  return { dsum, dweight }
}
