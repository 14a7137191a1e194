import { WestwindError } from '../errors.js'
import { native } from '../native/addon.js'
import { empty, type Tensor } from '../tensor/tensor.js'
import { check, checkArgs, floats } from './check.js'

/** A parameter with what its optimizer keeps beside it; all of the same size. */
export interface OptimizerTensors {
  /** f32 or bf16. */
  param: Tensor
  /** f32; without it `param` is the only copy. */
  master?: Tensor
  /** f32. */
  grad: Tensor
  /** f32: adamw's m. rmsprop has none. */
  first?: Tensor
  /** f32: v. */
  second: Tensor
  weightDecay: number
}

export interface AdamwOptions {
  lr: number
  beta1: number
  beta2: number
  eps: number
  /** 1 for the first update. */
  step: number
  /** Factor of every gradient (clipping). */
  gradScale: number
}

export interface RmspropOptions {
  lr: number
  alpha: number
  eps: number
  gradScale: number
}

function handles(op: string, tensors: readonly OptimizerTensors[], needsFirst: boolean) {
  for (const t of tensors) {
    checkArgs(op, {
      param: [t.param, floats, t.param.shape],
      master: [t.master, 'f32', t.param.shape],
      grad: [t.grad, 'f32', t.param.shape],
      first: [t.first, 'f32', t.param.shape],
      second: [t.second, 'f32', t.param.shape],
    })
    check(op, !needsFirst || t.first !== undefined, 'first is needed', t.first)
  }
  return [
    tensors.map((t) => t.param.handle),
    tensors.map((t) => t.master?.handle ?? null),
    tensors.map((t) => t.grad.handle),
    tensors.map((t) => t.first?.handle ?? null),
    tensors.map((t) => t.second.handle),
    tensors.map((t) => t.weightDecay),
  ] as const
}

/** One AdamW update (arXiv:1711.05101, torch's arithmetic) of all tensors, in one launch. */
export function adamw(tensors: readonly OptimizerTensors[], options: AdamwOptions): void {
  const { lr, beta1, beta2, eps, step, gradScale } = options
  check('adamw', Number.isInteger(step) && step >= 1, 'step must be 1 or more', step)
  const bias = [1 - beta1 ** step, 1 - beta2 ** step] as const
  native().adamw(
    ...handles('adamw', tensors, true),
    ...([lr, beta1, beta2, eps, ...bias, gradScale] as const),
  )
}

/** One RMSprop update (torch's: no momentum, not centred) of all tensors, in one launch. */
export function rmsprop(tensors: readonly OptimizerTensors[], options: RmspropOptions): void {
  const { lr, alpha, eps, gradScale } = options
  native().rmsprop(
    ...handles('rmsprop', tensors, false),
    ...([lr, 0, alpha, eps, 1, 1, gradScale] as const),
  )
}

/**
 * Sum of squares of each tensor, in a fixed order.
 *
 * @param tensors f32, any shapes
 * @returns `[tensors.length]` f32
 */
export function sumSquares(tensors: readonly Tensor[]): Tensor {
  for (const x of tensors) checkArgs('sumSquares', { x: [x, 'f32', x.shape] })
  const [first] = tensors
  if (!first) throw new WestwindError('ERR_INVALID_ARG', 'sumSquares: give at least one tensor')
  const out = empty([tensors.length], 'f32', first.device)
  native().sumSquares(
    tensors.map((x) => x.handle),
    out.handle,
  )
  return out
}
