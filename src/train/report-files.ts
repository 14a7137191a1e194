import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { atomicFile } from '../checkpoint/atomic.js'
import { readJsonObject } from '../json.js'

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

/** A damaged file is named, not overwritten. */
async function readResults(path: string): Promise<Record<string, unknown>> {
  return existsSync(path) ? readJsonObject(path, 'ERR_DATA') : {}
}

async function writeJson(path: string, value: Record<string, unknown>): Promise<void> {
  const sorted = Object.fromEntries(
    Object.entries(value).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)),
  )
  await atomicFile(path, `${JSON.stringify(sorted, null, 4)}\n`)
}

function round(x: number, digits: number): number {
  return Number(x.toFixed(digits))
}
