import { atLeast, type Check } from '../arguments.js'
import { native } from '../native/addon.js'
import { empty, type Tensor } from '../tensor/tensor.js'
import { checkArgs, floats } from './check.js'

const checkEps: Check<number> = atLeast(0)

/**
 * Root-mean-square norm (arXiv:1910.07467), with the residual add before it fused in:
 * `sum = x + residual`, `y = weight · sum / sqrt(mean(sum²) + eps)`. Statistics in f32.
 *
 * @param x `[T, C]`
 * @param weight `[C]`
 * @param residual `[T, C]`, optional
 * @returns `y`, `rstd` `[T]` f32, and `sum` (`x` itself without a residual); keep `sum` and `rstd` for
 *   {@link rmsNormBackward}
 */
export function rmsNorm(
  x: Tensor,
  weight: Tensor,
  eps: number,
  residual?: Tensor,
): { y: Tensor; sum: Tensor; rstd: Tensor } {
  const { T, C, device } = checkArgs<'T' | 'C'>('rmsNorm', {
    x: [x, floats, ['T', 'C']],
    weight: [weight, 'like x', ['C']],
    'residual?': [residual, 'like x', ['T', 'C']],
  })
  checkEps(eps, 'rmsNorm: eps')
  const y = empty([T, C], x.dtype, device)
  const rstd = empty([T], 'f32', device)
  const sum = residual ? empty([T, C], x.dtype, device) : x
  const [before, after] = residual ? [residual.handle, sum.handle] : [null, null]
  native().rmsNorm(x.handle, before, weight.handle, after, y.handle, rstd.handle, T, C, eps)
  return { y, sum, rstd }
}

/**
 * Gradient of {@link rmsNorm}: returns `dsum` (`[T, C]`, with `dresidual`, what arrives at `sum` from
 * beside the norm, added) and adds to `dweight`.
 *
 * @param dy `[T, C]`
 * @param sum `[T, C]` as forward returned it
 * @param dweight `[C]` f32, accumulated
 * @param dresidual `[T, C]`, optional
 */
export function rmsNormBackward(
  dy: Tensor,
  sum: Tensor,
  weight: Tensor,
  rstd: Tensor,
  dweight: Tensor,
  dresidual?: Tensor,
): Tensor {
  const { T, C, device } = checkArgs<'T' | 'C'>('rmsNormBackward', {
    dy: [dy, floats, ['T', 'C']],
    sum: [sum, 'like dy', ['T', 'C']],
    weight: [weight, 'like dy', ['C']],
    rstd: [rstd, 'f32', ['T']],
    dweight: [dweight, 'f32', ['C']],
    'dresidual?': [dresidual, 'like dy', ['T', 'C']],
  })
  const dsum = empty([T, C], dy.dtype, device)
  native().rmsNormBackward(
    ...([dy.handle, sum.handle, weight.handle, rstd.handle] as const),
    ...([dresidual?.handle ?? null, dsum.handle, dweight.handle, T, C] as const),
  )
  return dsum
}
