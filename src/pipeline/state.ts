import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { atomicFile, exists } from '../checkpoint/atomic.js'
import { WestwindError } from '../errors.js'
import { readJsonObject } from '../json.js'
import { version } from '../version.js'

const hashes = z.record(z.string(), z.string())

const stageRecord = z.object({
  status: z.enum(['running', 'done']),
  /** Hash of the config, the inputs and the version of westwind. */
  key: z.string(),
  config: z.record(z.string(), z.unknown()),
  /** For each input its files with their hashes. */
  inputs: z.record(z.string(), hashes),
  /** Files of the stage's folder with their hashes, when it is done. */
  outputs: hashes,
  westwind: z.string(),
  started: z.string(),
  finished: z.string().optional(),
  seconds: z.number().optional(),
  summary: z.string().optional(),
})

const stateSchema = z.object({
  version: z.literal(1),
  /** The file that was run last. */
  pipeline: z.string(),
  stages: z.record(z.string(), stageRecord),
  hashes: z.record(z.string(), z.object({ stamp: z.string(), sha256: z.string() })),
})

/** What is known of a stage's last run. */
export type StageRecord = z.output<typeof stageRecord>

/** What `pipeline.json` in the output folder holds. */
export type PipelineState = z.output<typeof stateSchema>

const fileOf = (outputDir: string) => join(outputDir, 'pipeline.json')

/** @throws ERR_CONFIG where the file is there and is not one of these */
export async function readState(outputDir: string, pipeline: string): Promise<PipelineState> {
  const file = fileOf(outputDir)
  if (!(await exists(file))) return { version: 1, pipeline, stages: {}, hashes: {} }
  const parsed = stateSchema.safeParse(await readJsonObject(file, 'ERR_CONFIG'))
  if (parsed.success) return { ...parsed.data, pipeline }
  const [issue] = parsed.error.issues
  throw new WestwindError(
    'ERR_CONFIG',
    `${file} is not a pipeline's state (${issue?.path.join('.')}: ${issue?.message}). Give another output_dir, or delete the file to start over`,
  )
}

export async function writeState(outputDir: string, state: PipelineState): Promise<void> {
  await mkdir(outputDir, { recursive: true })
  await atomicFile(fileOf(outputDir), `${JSON.stringify(state, null, 2)}\n`)
}

/** A record of a stage that begins now. */
export function begun(parts: Pick<StageRecord, 'key' | 'config' | 'inputs'>): StageRecord {
  const started = new Date().toISOString()
  return { status: 'running', ...parts, outputs: {}, westwind: version, started }
}
