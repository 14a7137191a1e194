import { native } from '../native/addon.js'
import { empty, type Tensor } from '../tensor/tensor.js'
import { checkArgs, floats } from './check.js'

/**
 * Log-probability of each target token under given logits: `logits[t, target[t]] − logsumexp(logits[t])`.
 * Tokens whose target is negative are not trained on and get 0. The softmax is never stored.
 *
 * @param logits `[T, V]`
 * @param target `[T]` i32
 * @returns `logps` and `lse`, both `[T]` f32; keep `lse` for {@link tokenLogpsBackward}
 */
export function tokenLogps(logits: Tensor, target: Tensor): { logps: Tensor; lse: Tensor } {
  const { T, V, device } = checkArgs<'T' | 'V'>('tokenLogps', {
    logits: [logits, floats, ['T', 'V']],
    target: [target, 'i32', ['T']],
  })
  const logps = empty([T], 'f32', device)
  const lse = empty([T], 'f32', device)
  native().tokenLogps(logits.handle, target.handle, logps.handle, lse.handle, T, V)
  return { logps, lse }
}

/**
 * Gradient of {@link tokenLogps}.
 *
 * @param dlogps `[T]` f32: derivative of the loss with respect to each log-prob
 * @returns `dlogits` `[T, V]`
 */
export function tokenLogpsBackward(
  logits: Tensor,
  target: Tensor,
  lse: Tensor,
  dlogps: Tensor,
): Tensor {
  const { T, V, device } = checkArgs<'T' | 'V'>('tokenLogpsBackward', {
    logits: [logits, floats, ['T', 'V']],
    target: [target, 'i32', ['T']],
    lse: [lse, 'f32', ['T']],
    dlogps: [dlogps, 'f32', ['T']],
  })
  const dlogits = empty([T, V], logits.dtype, device)
  native().tokenLogpsBackward(
    ...([logits.handle, target.handle, lse.handle, dlogps.handle, dlogits.handle, T, V] as const),
  )
  return dlogits
}
