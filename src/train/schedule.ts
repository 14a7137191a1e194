import { WestwindError } from '../errors.js'

export const scheduleNames = ['linear', 'cosine', 'constant', 'constant_with_warmup'] as const
export type ScheduleName = (typeof scheduleNames)[number]

/** Learning rate over a run, as transformers' `get_scheduler` gives it. */
export interface Schedule {
  type: ScheduleName
  /** Peak learning rate. */
  learningRate: number
  /** Optimizer steps from 0 to the peak. `constant` has none and ignores it, as transformers does. */
  warmupSteps: number
  /** Optimizer steps of the whole run; linear and cosine reach 0 there. */
  totalSteps: number
}

/**
 * Learning rate of optimizer step `step`, counted from 0. With a warm-up the first step has rate 0: it only
 * fills the optimizer's moments.
 */
export function lrAt(schedule: Schedule, step: number): number {
  const { type, learningRate, warmupSteps, totalSteps } = schedule
  if (type === 'constant') return learningRate
  if (step < warmupSteps) return (learningRate * step) / warmupSteps
  if (type === 'constant_with_warmup') return learningRate
  const progress = (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps)
  const factor = type === 'linear' ? 1 - progress : 0.5 * (1 + Math.cos(Math.PI * progress))
  return learningRate * Math.max(0, factor)
}

/** Warm-up length: a given number of steps above 0 wins over the ratio, which is rounded up. */
export function warmupLength(
  totalSteps: number,
  options: { warmupSteps?: number; warmupRatio?: number },
): number {
  const { warmupSteps = 0, warmupRatio = 0 } = options
  if (!(warmupRatio >= 0 && warmupRatio <= 1))
    throw new WestwindError('ERR_CONFIG', `warmup_ratio must be in [0, 1], got ${warmupRatio}`)
  if (warmupSteps < 0)
    throw new WestwindError('ERR_CONFIG', `warmup_steps must not be negative, got ${warmupSteps}`)
  if (warmupSteps >= 1) return Math.floor(warmupSteps)
  const ratio = warmupSteps > 0 ? warmupSteps : warmupRatio // transformers 5: a fraction is a ratio
  return Math.ceil(totalSteps * ratio)
}

export interface StepPlan {
  /** Optimizer steps per epoch; the last window of an epoch may have fewer micro-batches. */
  stepsPerEpoch: number
  totalSteps: number
  /** Epochs begun, the last one possibly in part. */
  epochs: number
}

/** Optimizer steps of a run, as transformers' Trainer plans them: a short last window is a step too. */
export function planSteps(options: {
  microBatchesPerEpoch: number
  accumulation: number
  /** May be a fraction. */
  epochs: number
  /** Above 0 it decides, and epochs do not. */
  maxSteps?: number
}): StepPlan {
  const { microBatchesPerEpoch, accumulation, epochs, maxSteps = -1 } = options
  if (microBatchesPerEpoch < 1)
    throw new WestwindError(
      'ERR_DATA',
      'no training micro-batch: the training split is empty after filtering',
    )
  const stepsPerEpoch = Math.ceil(microBatchesPerEpoch / accumulation)
  const totalSteps = maxSteps > 0 ? maxSteps : Math.ceil(epochs * stepsPerEpoch)
  if (!(totalSteps >= 1))
    throw new WestwindError(
      'ERR_CONFIG',
      `num_train_epochs=${epochs} and max_steps=${maxSteps} give no step: set one of them above 0`,
    )
  return { stepsPerEpoch, totalSteps, epochs: Math.ceil(totalSteps / stepsPerEpoch) }
}
