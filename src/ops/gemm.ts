import { type Check, fields, flag, number, oneOf, optional } from '../arguments.js'
import { native } from '../native/addon.js'
import type { DType } from '../tensor/dtype.js'
import { checkTensor, empty, type Tensor } from '../tensor/tensor.js'
import { check, checkArgs, floats } from './check.js'

export interface GemmOptions {
  /** Use `aᵀ`: `a` is stored `[K, M]`. */
  transA?: boolean
  /** Use `bᵀ`: `b` is stored `[N, K]`, as linear layers keep their weights. */
  transB?: boolean
  alpha?: number
  /** What the old values of `out` count; needs `out`. */
  beta?: number
  /** Written instead of a new tensor. */
  out?: Tensor
  /** Dtype of a new output; the default is that of `a`. */
  dtype?: DType
}

const checkOptions: Check<GemmOptions> = fields<GemmOptions>({
  transA: optional(flag),
  transB: optional(flag),
  alpha: optional(number),
  beta: optional(number),
  out: optional(checkTensor),
  dtype: optional(oneOf('f32', 'bf16')),
})

/**
 * Matrix product `alpha · op(a) · op(b) + beta · out`, accumulated in f32. An element depends on its
 * row and column alone, in an order of K that the other sizes do not change.
 *
 * @param a `[M, K]` f32 or bf16 (`[K, M]` with `transA`)
 * @param b `[K, N]` f32 or bf16 (`[N, K]` with `transB`)
 * @returns `[M, N]`
 */
export function gemm(a: Tensor, b: Tensor, options: GemmOptions = {}): Tensor {
  checkOptions(options, 'gemm: options')
  const { transA = false, transB = false, alpha = 1, beta = 0, out, dtype } = options
  const { M, N, K, device } = checkArgs<'M' | 'N' | 'K'>('gemm', {
    a: [a, floats, transA ? ['K', 'M'] : ['M', 'K']],
    b: [b, floats, transB ? ['N', 'K'] : ['K', 'N']],
    'out?': [out, floats, ['M', 'N']],
  })
  check('gemm', beta === 0 || out !== undefined, 'beta needs out', beta)
  check('gemm', out === undefined || (out !== a && out !== b), 'out must not be a or b', out)
  const c = out ?? empty([M, N], dtype ?? a.dtype, device)
  const lda = Math.max(transA ? M : K, 1)
  const ldb = Math.max(transB ? K : N, 1)
  native().gemm(
    ...([a.handle, b.handle, c.handle, M, N, K, lda, ldb, Math.max(N, 1)] as const),
    ...([transA, transB, alpha, beta] as const),
  )
  return c
}
