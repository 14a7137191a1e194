import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { WestwindError } from '../errors.js'
import { reason } from '../json.js'
import { exists, removeDirectory, settle } from './atomic.js'
import { openCheckpoint, readModelConfig } from './checkpoint.js'
import { readTrainerState } from './training-state.js'

/** A complete `checkpoint-<step>` of a run. */
export interface StepCheckpoint {
  step: number
  path: string
}

/** Called for a `checkpoint-<step>` that is passed over, with the reason. */
export type OnIncomplete = (path: string, reason: string) => void

/** Where the checkpoint of a step is saved. */
export function checkpointPath(dir: string, step: number): string {
  return join(dir, `checkpoint-${step}`)
}

/** The step of a checkpoint by the name of its folder; undefined for other names. */
export function checkpointStep(name: string): number | undefined {
  const digits = /^checkpoint-(0|[1-9]\d{0,14})$/.exec(name)?.[1]
  return digits === undefined ? undefined : Number(digits)
}

/**
 * The complete checkpoints in an output directory, oldest first: those with a config, all weights
 * and a trainer state of their step. First clears up after processes that died while saving.
 */
export async function listCheckpoints(
  dir: string,
  onIncomplete?: OnIncomplete,
): Promise<StepCheckpoint[]> {
  if (!(await exists(dir))) return []
  await settle(dir)
  const found: StepCheckpoint[] = []
  for (const name of await readdir(dir)) {
    const step = checkpointStep(name)
    if (step === undefined) continue
    const path = join(dir, name)
    try {
      await verifyCheckpoint(path, step)
      found.push({ step, path })
    } catch (cause) {
      onIncomplete?.(path, reason(cause))
    }
  }
  return found.sort((a, b) => a.step - b.step)
}

async function verifyCheckpoint(path: string, step: number): Promise<void> {
  const state = await readTrainerState(path)
  if (state.global_step !== step) {
    throw new WestwindError(
      'ERR_CHECKPOINT',
      `${path}: trainer_state.json is of step ${state.global_step}`,
    )
  }
  await readModelConfig(path)
  await openCheckpoint(path)
}

/** The newest complete checkpoint, or undefined where there is none. */
export async function latestCheckpoint(
  dir: string,
  onIncomplete?: OnIncomplete,
): Promise<StepCheckpoint | undefined> {
  return (await listCheckpoints(dir, onIncomplete)).at(-1)
}

/**
 * Deletes the oldest checkpoints until at most `limit` are left (`save_total_limit`).
 *
 * @param limit 0 or undefined: keep all
 * @param keep steps that are not deleted (the best one); they count towards the limit
 * @returns the steps that were deleted
 */
export async function pruneCheckpoints(
  dir: string,
  limit: number | undefined,
  keep: readonly number[] = [],
): Promise<number[]> {
  if (!limit) return []
  const all = await listCheckpoints(dir)
  const excess = all
    .slice(0, -1) // the newest is what a resume needs
    .filter(({ step }) => !keep.includes(step))
    .slice(0, Math.max(0, all.length - limit))
  for (const { path } of excess) await removeDirectory(path)
  return excess.map(({ step }) => step)
}
