import { join } from 'node:path'
import { atomicFile } from '../checkpoint/atomic.js'
import { version } from '../version.js'

/** A number, with its standard error where there is one; null where nothing could be measured. */
export type Metric = number | null | { value: number | null; stderr: number }

/** What `results.json` of an evaluation holds. */
export interface EvalResults {
  task: string
  model: string
  model_path?: string | undefined
  metrics: Record<string, Metric>
  /** Metrics of parts: categories, subjects. */
  groups?: Record<string, Record<string, Metric>> | undefined
  settings: Record<string, unknown>
}

/** Writes `samples.jsonl`, one line per item, then `results.json` beside it. */
export async function writeResults(
  dir: string,
  results: EvalResults,
  samples: readonly object[],
): Promise<void> {
  await atomicFile(join(dir, 'samples.jsonl'), samples.map(line).join(''))
  const { task, model, model_path, metrics, groups, settings } = results
  const all = {
    task,
    model,
    model_path,
    date: new Date().toISOString(),
    westwind: version,
    metrics,
    groups,
    settings,
    samples: 'samples.jsonl',
  }
  await atomicFile(join(dir, 'results.json'), `${JSON.stringify(all, null, 2)}\n`)
}

/** A value as a line of JSON Lines. */
export function line(value: object): string {
  return `${JSON.stringify(value)}\n`
}
