import type { Device } from '../../device/device.js'
import type { BenchModel } from '../models.js'

export const benchTasks = ['sft', 'dpo', 'score', 'generate'] as const
export type BenchTask = (typeof benchTasks)[number]

/** `bf16`: bf16 weights without a f32 copy; `amp`: bf16 weights with f32 masters; `fp32`: f32 throughout. */
export const precisions = ['bf16', 'amp', 'fp32'] as const
export type Precision = (typeof precisions)[number]

/** What a run of whole steps needs to know. */
export interface TrainBenchOptions {
  device: Device
  model: BenchModel
  precision: Precision
  /** Timed steps, and steps before them. */
  steps: number
  warmup: number
  seed: number
  /** `sft`, `score`: tokens of a row, rows of a step, how rows are filled. */
  seq: number
  microBatch: number
  docs: 'packed' | 'full'
  /** Compute the inside of blocks again in backward. */
  gradCkpt: boolean
  /** `dpo`: pairs of a step, tokens of a sequence, the reference's log-probs known before the first step. */
  pairs: number
  maxLength: number
  precomputeRef: boolean
  /** `dpo`: rows of `prompt_ids`, `chosen_ids`, `rejected_ids`; synthetic pairs without. */
  data?: string | undefined
  /** `generate`: prompts at once, tokens of a prompt, new tokens. */
  batch: number
  prompt: number
  new: number
  /** Token batches of another program, of `sft`, `score` and `dpo`. */
  batches?: string | undefined
  signal?: AbortSignal | undefined
}

/** Keys and definitions are those of the PyTorch programs that westwind is compared with. */
export type TrainBenchResult = Record<string, number | string | boolean>
