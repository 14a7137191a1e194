import { type Check, fields, flag, optional } from '../arguments.js'
import { native } from '../native/addon.js'
import { checkTensor, empty, type Tensor } from '../tensor/tensor.js'
import { check, checkArgs, floats } from './check.js'

export interface LinearLogpsOptions {
  /** Also return the entropy and the arg-max hit of each position. */
  statistics?: boolean
  /** `[N]` f32, the gradient of the loss by each log-prob, known beforehand: backward in the same pass. */
  dlogps?: Tensor
  /** `[V, C]` f32, accumulated; only with `dlogps`. */
  dweight?: Tensor
}

const checkOptions: Check<LinearLogpsOptions> = fields<LinearLogpsOptions>({
  statistics: optional(flag),
  dlogps: optional(checkTensor),
  dweight: optional(checkTensor),
})

export interface LinearLogps {
  /** `[N]` f32. */
  logps: Tensor
  /** `[N]` f32; keep it for {@link linearLogpsBackward}. */
  lse: Tensor
  /** `[N]` f32, nats; with `statistics`. */
  entropy?: Tensor
  /** `[N]` f32: 1 where the most likely token is the target, else 0; with `statistics`. */
  hit?: Tensor
  /** `[N, C]`; with `dlogps`. */
  dhidden?: Tensor
}

/**
 * Log-probability of each target under `logits = hidden · weightᵀ`, which are never stored.
 *
 * @param hidden `[N, C]`, the positions that count
 * @param weight `[V, C]`
 * @param target `[N]` i32
 * @throws at the next wait, if a target is not in `0 .. V − 1`
 */
export function linearLogps(
  hidden: Tensor,
  weight: Tensor,
  target: Tensor,
  options: LinearLogpsOptions = {},
): LinearLogps {
  checkOptions(options, 'linearLogps: options')
  const { dlogps, dweight } = options
  check('linearLogps', !dweight || dlogps !== undefined, 'options.dweight needs dlogps', dlogps)
  const { N, C, V, device } = checkArgs<'N' | 'C' | 'V'>('linearLogps', {
    hidden: [hidden, floats, ['N', 'C']],
    weight: [weight, 'like hidden', ['V', 'C']],
    target: [target, 'i32', ['N']],
    'dlogps?': [dlogps, 'f32', ['N']],
    'dweight?': [dweight, 'f32', ['V', 'C']],
  })
  const out: LinearLogps = { logps: empty([N], 'f32', device), lse: empty([N], 'f32', device) }
  if (options.statistics) {
    out.entropy = empty([N], 'f32', device)
    out.hit = empty([N], 'f32', device)
  }
  if (dlogps) out.dhidden = empty([N, C], hidden.dtype, device)
  native().linearLogps(
    ...([hidden.handle, weight.handle, target.handle, out.logps.handle, out.lse.handle] as const),
    ...([out.entropy?.handle ?? null, out.hit?.handle ?? null] as const),
    ...([dlogps?.handle ?? null, out.dhidden?.handle ?? null, dweight?.handle ?? null] as const),
    ...([N, C, V] as const),
  )
  return out
}

/**
 * Gradient of {@link linearLogps}: returns `dhidden` `[N, C]` and adds to `dweight`.
 *
 * @param lse `[N]` f32 from forward
 * @param dlogps `[N]` f32
 * @param dweight `[V, C]` f32, accumulated; undefined: not wanted
 */
export function linearLogpsBackward(
  hidden: Tensor,
  weight: Tensor,
  target: Tensor,
  lse: Tensor,
  dlogps: Tensor,
  dweight?: Tensor,
): Tensor {
  const { N, C, V, device } = checkArgs<'N' | 'C' | 'V'>('linearLogpsBackward', {
    hidden: [hidden, floats, ['N', 'C']],
    weight: [weight, 'like hidden', ['V', 'C']],
    target: [target, 'i32', ['N']],
    lse: [lse, 'f32', ['N']],
    dlogps: [dlogps, 'f32', ['N']],
    'dweight?': [dweight, 'f32', ['V', 'C']],
  })
  const dhidden = empty([N, C], hidden.dtype, device)
  native().linearLogpsBackward(
    ...([hidden.handle, weight.handle, target.handle, lse.handle, dlogps.handle] as const),
    ...([dhidden.handle, dweight?.handle ?? null, N, C, V] as const),
  )
  return dhidden
}
