import { atLeast, type Check, fields, finite, integer, list, optional } from '../arguments.js'
import { refuse } from '../errors.js'
import { native } from '../native/addon.js'
import { checkTensor, empty, type Tensor } from '../tensor/tensor.js'
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

const checkTensors: Check<readonly OptimizerTensors[]> = list(
  fields<OptimizerTensors>({
    param: checkTensor,
    master: optional(checkTensor),
    grad: checkTensor,
    first: optional(checkTensor),
    second: checkTensor,
    weightDecay: finite,
  }),
)
const checkAdamwOptions: Check<AdamwOptions> = fields<AdamwOptions>({
  lr: finite,
  beta1: finite,
  beta2: finite,
  eps: atLeast(0),
  step: integer(1),
  gradScale: finite,
})
const checkRmspropOptions: Check<RmspropOptions> = fields<RmspropOptions>({
  lr: finite,
  alpha: finite,
  eps: atLeast(0),
  gradScale: finite,
})
const checkList: Check<readonly Tensor[]> = list(checkTensor)

function handles(op: string, tensors: readonly OptimizerTensors[], needsFirst: boolean) {
  checkTensors(tensors, `${op}: tensors`)
  for (const [i, t] of tensors.entries()) {
    const at = `${op}: tensors[${i}]`
    checkArgs(at, {
      param: [t.param, floats, 'any'],
      'master?': [t.master, 'f32', 'like param'],
      grad: [t.grad, 'f32', 'like param'],
      'first?': [t.first, 'f32', 'like param'],
      second: [t.second, 'f32', 'like param'],
    })
    check(at, !needsFirst || t.first !== undefined, 'first is needed', t.first)
    checkOneDevice(at, t.param, tensors[0]!.param)
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

function checkOneDevice(op: string, x: Tensor, first: Tensor): void {
  check(op, x.device === first.device, 'must be on the device of the others', x)
}

/** One AdamW update (arXiv:1711.05101, torch's arithmetic) of all tensors, in one launch. */
export function adamw(tensors: readonly OptimizerTensors[], options: AdamwOptions): void {
  checkAdamwOptions(options, 'adamw: options')
  const { lr, beta1, beta2, eps, step, gradScale } = options
  const bias = [1 - beta1 ** step, 1 - beta2 ** step] as const
  native().adamw(
    ...handles('adamw', tensors, true),
    ...([lr, beta1, beta2, eps, ...bias, gradScale] as const),
  )
}

/** One RMSprop update (torch's: no momentum, not centred) of all tensors, in one launch. */
export function rmsprop(tensors: readonly OptimizerTensors[], options: RmspropOptions): void {
  checkRmspropOptions(options, 'rmsprop: options')
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
  checkList(tensors, 'sumSquares: tensors')
  const [first] = tensors
  if (!first) refuse('sumSquares: tensors', 'at least one tensor', tensors)
  for (const [i, x] of tensors.entries()) {
    checkArgs('sumSquares', { [`tensors[${i}]`]: [x, 'f32', 'any'] })
    checkOneDevice(`sumSquares: tensors[${i}]`, x, first)
  }
  const out = empty([tensors.length], 'f32', first.device)
  native().sumSquares(
    tensors.map((x) => x.handle),
    out.handle,
  )
  return out
}
