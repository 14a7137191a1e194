import { existsSync } from 'node:fs'
import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { readJsonObject } from '../json.js'
import type { MetricsRecord } from './metrics.js'

export type Results = Record<string, number | string>

/**
 * Writes `train_results.json` or `eval_results.json` and merges the values into `all_results.json`, as
 * transformers' `save_metrics` does: four spaces, names sorted.
 */
export async function saveResults(
  dir: string,
  split: 'train' | 'eval',
  results: Results,
): Promise<void> {
  await writeJson(join(dir, `${split}_results.json`), results)
  const all = join(dir, 'all_results.json')
  await writeJson(all, { ...(await readResults(all)), ...results })
}

/** `<split>_runtime`, `<split>_samples_per_second`, `<split>_steps_per_second`, rounded as transformers rounds them. */
export function speedResults(
  split: 'train' | 'eval',
  run: { seconds: number; samples: number; steps: number },
): Record<string, number> {
  const { seconds, samples, steps } = run
  return {
    [`${split}_runtime`]: round(seconds, 4),
    [`${split}_samples`]: samples,
    [`${split}_samples_per_second`]: round(samples / seconds, 3),
    [`${split}_steps_per_second`]: round(steps / seconds, 3),
  }
}

/** `trainer_state.json` of transformers, with westwind's own resume data under `westwind`. */
export interface TrainerState {
  global_step: number
  max_steps: number
  epoch: number
  num_train_epochs: number
  train_batch_size: number
  logging_steps: number
  eval_steps: number
  save_steps: number
  num_input_tokens_seen: number
  total_flos: number
  log_history: MetricsRecord[]
  westwind: Record<string, unknown>
}

/** The file's text: `state` and the fields that are always the same in a single-process run without a search. */
export function trainerStateJson(state: TrainerState): string {
  return json({
    best_global_step: null,
    best_metric: null,
    best_model_checkpoint: null,
    is_hyper_param_search: false,
    is_local_process_zero: true,
    is_world_process_zero: true,
    stateful_callbacks: {},
    trial_name: null,
    trial_params: null,
    ...state,
  })
}

/** A damaged file is named, not overwritten. */
async function readResults(path: string): Promise<Record<string, unknown>> {
  return existsSync(path) ? readJsonObject(path, 'ERR_DATA') : {}
}

/** Aside, then renamed: a reader never sees half a file. */
async function writeJson(path: string, value: Record<string, unknown>): Promise<void> {
  await writeFile(`${path}.tmp`, json(value))
  await rename(`${path}.tmp`, path)
}

function json(value: Record<string, unknown>): string {
  const sorted = Object.fromEntries(
    Object.entries(value).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)),
  )
  return `${JSON.stringify(sorted, null, 4)}\n`
}

function round(x: number, digits: number): number {
  return Number(x.toFixed(digits))
}
