import { join } from 'node:path'
import { z } from 'zod'
import { WestwindError } from '../errors.js'
import { readJsonObject } from '../json.js'
import type { ParameterSpec } from '../model/names.js'
import { atomicFile } from './atomic.js'
import { openSafetensors, type TensorEntry } from './safetensors.js'

export const trainerStateFile = 'trainer_state.json'
export const optimizerFile = 'optimizer.safetensors'

const count = z.number().int().min(0)

/** What westwind needs to go on where a run stopped, beside weights and optimizer. */
const resumeStateSchema = z.object({
  version: z.literal(1),
  stage: z.enum(['sft', 'dpo']),
  /** The next micro-batch: epoch and its number in the order of that epoch, both from 0. */
  position: z.object({ epoch: count, microBatch: count }),
  /** Optimizer steps taken; the `t` of the bias correction. */
  optimizerStep: count,
  /** What decides the computation (seed, data hash, batch sizes, ...), to compare on resume. */
  settings: z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()])),
  /** Of the losses of all steps, for the final mean. */
  lossSum: z.number(),
  /** The log line under way: sums since the last one. */
  logWindow: z.object({
    lossSum: z.number(),
    steps: count,
    micro: z.record(z.string(), z.object({ sum: z.number(), count })),
  }),
})

const trainerStateSchema = z.looseObject({
  epoch: z.number().min(0),
  global_step: count,
  max_steps: count,
  num_train_epochs: z.number().min(0),
  logging_steps: z.number().min(0),
  eval_steps: z.number().min(0).nullable(),
  save_steps: z.number().min(0),
  train_batch_size: count,
  num_input_tokens_seen: count,
  total_flos: z.number().min(0),
  best_metric: z.number().nullable(),
  best_global_step: count.nullable(),
  best_model_checkpoint: z.string().nullable(),
  log_history: z.array(z.record(z.string(), z.unknown())),
  westwind: resumeStateSchema,
})

export type ResumeState = z.infer<typeof resumeStateSchema>
export type ResumeSettings = ResumeState['settings']

/** `trainer_state.json` in the shape of transformers, with a section `westwind` of our own. */
export type TrainerState = z.infer<typeof trainerStateSchema>

/** Fields of transformers that say nothing here, written so that its tools read the file. */
const constantFields = {
  is_hyper_param_search: false,
  is_local_process_zero: true,
  is_world_process_zero: true,
  stateful_callbacks: {},
  trial_name: null,
  trial_params: null,
}

/** Writes `trainer_state.json` into a directory. */
export async function writeTrainerState(dir: string, state: TrainerState): Promise<void> {
  const sorted = Object.entries({ ...constantFields, ...state }).sort(([a], [b]) =>
    a < b ? -1 : 1,
  )
  const json = JSON.stringify(Object.fromEntries(sorted), undefined, 2)
  await atomicFile(join(dir, trainerStateFile), `${json}\n`)
}

/** @throws ERR_CHECKPOINT where the file is missing, damaged or not one of westwind's */
export async function readTrainerState(dir: string): Promise<TrainerState> {
  const file = join(dir, trainerStateFile)
  const json = await readJsonObject(file, 'ERR_CHECKPOINT')
  if (json.westwind === undefined) {
    throw new WestwindError(
      'ERR_CHECKPOINT',
      `${file} has no section "westwind": it is a checkpoint of another trainer, whose data position and optimizer cannot be taken up. Give it as model_name_or_path to start from its weights.`,
    )
  }
  const parsed = trainerStateSchema.safeParse(json)
  if (parsed.success) return parsed.data
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`)
  throw new WestwindError('ERR_CHECKPOINT', `${file}: ${problems.slice(0, 5).join('; ')}`)
}

/**
 * Checks that a run may go on from a checkpoint: every setting that decides the computation is the
 * same as when it was saved.
 *
 * @throws ERR_CHECKPOINT naming each setting that differs, with both values
 */
export function checkResumable(dir: string, saved: ResumeSettings, now: ResumeSettings): void {
  const names = [...new Set([...Object.keys(saved), ...Object.keys(now)])].sort()
  const changed = names.filter((name) => saved[name] !== now[name])
  if (changed.length === 0) return
  const differences = changed.map((name) => `${name} was ${saved[name]}, is ${now[name]}`)
  throw new WestwindError(
    'ERR_CHECKPOINT',
    `${dir} cannot be resumed with other settings: ${differences.join('; ')}. Set them back, or start a new run from its weights (model_name_or_path).`,
  )
}

/** State tensors an optimizer keeps per parameter, by their names in torch; `master`: f32 weights. */
export type OptimizerSlot = 'exp_avg' | 'exp_avg_sq' | 'square_avg' | 'master'

/** Name in `optimizer.safetensors`: the engine's (fused) parameter name and the slot. */
export function optimizerTensorName(parameter: string, slot: OptimizerSlot): string {
  return `${parameter}.${slot}`
}

/** A state tensor and where its bytes are; f32, of the parameter's shape. */
export interface LocatedSlot {
  parameter: ParameterSpec
  slot: OptimizerSlot
  tensor: TensorEntry & { file: string }
}

/**
 * Finds every slot of every parameter in a checkpoint's `optimizer.safetensors`.
 *
 * @throws ERR_CHECKPOINT where the file is missing or does not hold exactly these tensors
 */
export async function locateOptimizerState(
  dir: string,
  parameters: readonly ParameterSpec[],
  slots: readonly OptimizerSlot[],
): Promise<LocatedSlot[]> {
  const { file, tensors } = await openSafetensors(join(dir, optimizerFile))
  const wrong = (message: string) => new WestwindError('ERR_CHECKPOINT', `${file}: ${message}`)
  const located: LocatedSlot[] = []
  for (const parameter of parameters) {
    for (const slot of slots) {
      const name = optimizerTensorName(parameter.name, slot)
      const entry = tensors.get(name)
      if (!entry) {
        throw wrong(`${name} is missing; was the run saved with another optimizer or precision?`)
      }
      if (entry.dtype !== 'F32' || entry.shape.join() !== parameter.shape.join()) {
        throw wrong(
          `${name} must be F32 [${parameter.shape.join(', ')}], got ${entry.dtype} [${entry.shape.join(', ')}]`,
        )
      }
      located.push({ parameter, slot, tensor: { ...entry, file } })
    }
  }
  if (tensors.size !== located.length) {
    const known = new Set(
      located.map((found) => optimizerTensorName(found.parameter.name, found.slot)),
    )
    const extra = [...tensors.keys()].filter((name) => !known.has(name)).slice(0, 5)
    throw wrong(`unexpected ${extra.join(', ')}; was the run saved with another optimizer?`)
  }
  return located
}
