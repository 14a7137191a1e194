import type { Round } from '../support/exactness.js'

export interface GemmCase {
  M: number
  N: number
  K: number
  transA?: boolean
  transB?: boolean
  alpha?: number
  beta?: number
}

/** alpha · op(a) · op(b) + beta · c in float64, inputs and result rounded. */
export function gemm(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  { M, N, K, transA, transB, alpha = 1, beta = 0 }: GemmCase,
  round: Round,
  c?: ArrayLike<number>,
): Float64Array {
  const out = new Float64Array(M * N)
  for (let i = 0; i < M; i++) {
    for (let j = 0; j < N; j++) {
      let sum = 0
      for (let k = 0; k < K; k++) {
        sum += round(a[transA ? k * M + i : i * K + k]!) * round(b[transB ? j * K + k : k * N + j]!)
      }
      out[i * N + j] = round(alpha * sum + (beta === 0 ? 0 : beta * round(c![i * N + j]!)))
    }
  }
  return out
}
