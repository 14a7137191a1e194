import { join } from 'node:path'
import { z } from 'zod'
import { atomicFile, exists } from '../checkpoint/atomic.js'
import type { DataStatistics } from '../data/statistics.js'
import { machineOf } from '../device/machine.js'
import { WestwindError } from '../errors.js'
import { readJsonObject } from '../json.js'
import type { Model } from '../model/model.js'
import type { DpoConfig, SftConfig } from '../recipe/config.js'

export const runRecordFile = 'run.json'

const count = z.number().int().min(0)

const runRecordSchema = z.object({
  version: z.literal(1),
  stage: z.enum(['sft', 'dpo']),
  /** Every setting of the recipe with the value that the run has, defaults included. */
  recipe: z.record(z.string(), z.unknown()),
  model: z.object({ architecture: z.string(), parameters: count, dtype: z.string() }),
  /** `hash` is that of the tokenised training split, which a resumed run must find again. */
  data: z.object({
    hash: z.string(),
    rows: count,
    examples: count,
    tokens: count,
    truncated: count,
    dropped: z.record(z.string(), count),
  }),
  /** Each start of the run: the first one at step 0, those of a resumed run at their checkpoint's step. */
  sessions: z.array(
    z.object({
      step: count,
      date: z.string(),
      device: z.string(),
      processor: z.string(),
      driver: z.string().optional(),
      westwind: z.string(),
      node: z.string(),
    }),
  ),
  /** When the run came to its end, and at which step; absent before. */
  finished: z.object({ date: z.string(), step: count }).optional(),
})

/** `run.json`: what a run was started with, kept from its first moment on. */
export type RunRecord = z.infer<typeof runRecordSchema>

export interface RunStart {
  config: SftConfig | DpoConfig
  model: Model
  dataHash: string
  statistics: DataStatistics
  /** The step of the checkpoint that the run goes on from; undefined for a new run. */
  resumeStep?: number | undefined
}

/** Writes `run.json` of a run that starts, or adds the start to that of a run that is resumed. */
export async function recordStart(dir: string, start: RunStart): Promise<RunRecord> {
  const { config, model, dataHash, statistics, resumeStep } = start
  const { rows, examples, tokens, truncated, dropped } = statistics
  const earlier =
    resumeStep !== undefined && (await exists(join(dir, runRecordFile)))
      ? (await readRunRecord(dir)).sessions.filter(({ step }) => step <= resumeStep)
      : []
  const record: RunRecord = {
    version: 1,
    stage: config.kind,
    recipe: recipeKeys(config),
    model: {
      architecture: model.config.architecture,
      parameters: model.parameterCount,
      dtype: model.dtype,
    },
    data: { hash: dataHash, rows, examples, tokens, truncated, dropped },
    sessions: [
      ...earlier,
      { step: resumeStep ?? 0, ...machineOf(model.device), node: process.version },
    ],
  }
  await write(dir, record)
  return record
}

/** Notes in `run.json` that the run of {@link recordStart} came to its end. */
export async function recordEnd(dir: string, record: RunRecord, step: number): Promise<void> {
  const date = new Date().toISOString().slice(0, 19)
  await write(dir, { ...record, finished: { date, step } })
}

/** @throws ERR_DATA where the file is missing, damaged or not a run's */
export async function readRunRecord(dir: string): Promise<RunRecord> {
  const file = join(dir, runRecordFile)
  const parsed = runRecordSchema.safeParse(await readJsonObject(file, 'ERR_DATA'))
  if (parsed.success) return parsed.data
  const problems = parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`)
  throw new WestwindError('ERR_DATA', `${file}: ${problems.slice(0, 5).join('; ')}`)
}

/** A config under the names of the recipe's keys; what it is not about (where a run resumes) left out. */
function recipeKeys(config: SftConfig | DpoConfig): Record<string, unknown> {
  const { kind: _kind, resumeFromCheckpoint: _resume, ...values } = config
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [
      name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      value,
    ]),
  )
}

async function write(dir: string, record: RunRecord): Promise<void> {
  await atomicFile(join(dir, runRecordFile), `${JSON.stringify(record, null, 2)}\n`)
}
