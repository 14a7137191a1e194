import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { parse } from 'yaml'
import { z } from 'zod'
import { exists } from '../checkpoint/atomic.js'
import { checkpointStep } from '../checkpoint/list.js'
import { trainerStateFile } from '../checkpoint/training-state.js'
import { WestwindError } from '../errors.js'
import { isRecord, readJsonObject, reason } from '../json.js'
import { type MetricsRecord, readMetrics } from '../train/metrics.js'
import { type RunRecord, readRunRecord, runRecordFile } from '../train/run-record.js'

/** What a folder holds of a run; what could not be read is in `problems`, in words. */
export interface RunFolder {
  path: string
  stage: 'sft' | 'dpo' | null
  /** 'model': no run left this folder, or nothing of it but the model. */
  state: 'finished' | 'unfinished' | 'model'
  /** Optimizer steps made, of how many; null where nothing says it. */
  step: number | null
  max_steps: number | null
  /** Steps of the complete checkpoints, ascending. */
  checkpoints: number[]
  history: MetricsRecord[]
  /** Final metrics of a finished run, else the last that was logged of each. */
  metrics: Record<string, number>
  record: RunRecord | null
  /** Settings: those of `run.json`, or what other files say. */
  recipe: Record<string, unknown>
  datasets: string[]
  base_model: string | null
  architecture: string | null
  problems: string[]
}

/**
 * Reads what a run or a model folder has to tell, of this version or an older one, finished or not. Nothing is
 * written or tidied up: the run may be under way.
 *
 * @throws ERR_DATA where `path` is no folder; what is damaged inside becomes a line of `problems`
 */
export async function readRunFolder(path: string): Promise<RunFolder> {
  const found = await stat(path).catch(() => undefined)
  if (!found?.isDirectory()) {
    const what = found ? 'is a file' : 'does not exist'
    throw new WestwindError('ERR_DATA', `${path} ${what}; expected the folder of a run or a model`)
  }
  const problems: string[] = []

  const record = await optional(path, runRecordFile, problems, () => readRunRecord(path))
  const state = await optional(path, trainerStateFile, problems, () => readLooseState(path))
  const metricsFile = join(path, 'metrics.jsonl')
  const logged = (await orProblem(metricsFile, problems, () => readMetrics(metricsFile))) ?? []
  const results = await optional(path, 'all_results.json', problems, () =>
    readJsonObject(join(path, 'all_results.json'), 'ERR_DATA'),
  )
  const card = await optional(path, 'README.md', problems, () => readCard(join(path, 'README.md')))
  const config = await optional(path, 'config.json', problems, () =>
    readJsonObject(join(path, 'config.json'), 'ERR_DATA'),
  )
  const checkpoints = await readCheckpoints(path, problems)

  const newest = checkpoints.at(-1)
  const history =
    logged.length > 0
      ? logged.map((line) => ({ ...numbersOf(line), step: line.step }))
      : (state?.history ?? newest?.history ?? [])
  const { step = 0, max_steps: most = null } = state ?? {}
  const finished = record
    ? record.finished !== undefined
    : state !== undefined && step >= (most ?? 0)
  const isRun = record !== undefined || history.length > 0 || checkpoints.length > 0
  if (!isRun && !config) problems.push(`${path}: nothing of a run or a model is here`)
  if (record && !finished && results) {
    problems.push(`${path}: all_results.json is of an earlier run in this folder; passed over`)
  }
  const settings = state?.settings ?? newest?.settings ?? {}
  return {
    path,
    stage: record?.stage ?? state?.stage ?? newest?.stage ?? null,
    state: finished ? 'finished' : isRun ? 'unfinished' : 'model',
    step: record?.finished?.step ?? (finished ? state?.step : lastStep(history, newest)) ?? null,
    max_steps: newest?.max_steps ?? state?.max_steps ?? null,
    checkpoints: checkpoints.map(({ step }) => step),
    history,
    metrics: finished && results ? numbersOf(results) : lastOfEach(history),
    record: record ?? null,
    recipe: record?.recipe ?? settings,
    datasets: record ? dataNames(record.recipe.data) : (card?.datasets ?? []),
    base_model: baseModel(record?.recipe ?? settings) ?? card?.base_model ?? null,
    architecture: record?.model.architecture ?? architectureOf(config) ?? null,
    problems,
  }
}

/** The part of `trainer_state.json` that any trainer writes, and westwind's own where it is there. */
const looseState = z.looseObject({
  global_step: z.number().int().min(0),
  max_steps: z.number().int().optional(),
  log_history: z.array(z.record(z.string(), z.unknown())).optional(),
  westwind: z
    .looseObject({ stage: z.enum(['sft', 'dpo']), settings: z.record(z.string(), z.unknown()) })
    .optional(),
})

interface State {
  step: number
  max_steps: number | null
  history: MetricsRecord[]
  stage: 'sft' | 'dpo' | null
  settings: Record<string, unknown>
}

async function readLooseState(dir: string): Promise<State> {
  const file = join(dir, trainerStateFile)
  const parsed = looseState.safeParse(await readJsonObject(file, 'ERR_DATA'))
  if (!parsed.success) {
    const problems = parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`)
    throw new WestwindError('ERR_DATA', `${file}: ${problems.slice(0, 3).join('; ')}`)
  }
  const { global_step, max_steps, log_history, westwind } = parsed.data
  return {
    step: global_step,
    max_steps: max_steps ?? null,
    history: (log_history ?? []).flatMap((line) => {
      const { step } = line
      return typeof step === 'number' ? [{ ...numbersOf(line), step }] : []
    }),
    stage: westwind?.stage ?? null,
    settings: westwind?.settings ?? {},
  }
}

/** The states of the checkpoints, by step; a damaged one is a problem and left out. */
async function readCheckpoints(dir: string, problems: string[]): Promise<State[]> {
  const names = (await orProblem(dir, problems, () => readdir(dir))) ?? []
  const states: State[] = []
  for (const name of names) {
    if (checkpointStep(name) === undefined) continue
    const state = await orProblem(join(dir, name), problems, () => readLooseState(join(dir, name)))
    if (state) states.push(state)
  }
  return states.sort((a, b) => a.step - b.step)
}

const cardSchema = z.looseObject({
  base_model: z.string().optional(),
  datasets: z.union([z.string().transform((one) => [one]), z.array(z.string())]).optional(),
})

/** Base model and data sets of a model card's front matter. */
async function readCard(file: string): Promise<{ base_model: string | null; datasets: string[] }> {
  const yaml = /^---\n([\s\S]*?)\n---/.exec(await readFile(file, 'utf8'))?.[1]
  const parsed = cardSchema.safeParse(yaml === undefined ? {} : parse(yaml))
  if (!parsed.success) {
    throw new WestwindError('ERR_DATA', `${file}: base_model and datasets are not those of a card`)
  }
  return { base_model: parsed.data.base_model ?? null, datasets: parsed.data.datasets ?? [] }
}

/** Undefined where the file is not there, or where it cannot be read, which becomes a problem. */
async function optional<T>(
  dir: string,
  name: string,
  problems: string[],
  read: () => Promise<T>,
): Promise<T | undefined> {
  const file = join(dir, name)
  return (await exists(file)) ? orProblem(file, problems, read) : undefined
}

/** What was read, or undefined and the reason as a line of `problems`, which names the file. */
export async function orProblem<T>(
  file: string,
  problems: string[],
  read: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await read()
  } catch (cause) {
    const why = reason(cause)
    problems.push(why.includes(file) ? why : `${file}: ${why}`)
    return undefined
  }
}

function numbersOf(values: Record<string, unknown>): Record<string, number> {
  const numbers = Object.entries(values).flatMap(([name, value]) =>
    typeof value === 'number' ? [[name, value] as const] : [],
  )
  return Object.fromEntries(numbers)
}

function lastOfEach(history: readonly MetricsRecord[]): Record<string, number> {
  return Object.assign({}, ...history.map(numbersOf))
}

function lastStep(history: readonly MetricsRecord[], newest: State | undefined): number {
  return Math.max(history.at(-1)?.step ?? 0, newest?.step ?? 0)
}

/** Names of the sources in the data section of a recipe, whichever of its three forms it has. */
function dataNames(data: unknown): string[] {
  if (!isRecord(data)) return []
  const list = [data.sources, data.datasets].find(Array.isArray) ?? []
  const ids = list.map((source: unknown) => (isRecord(source) ? source.id : undefined))
  return [data.name, ...ids].filter((name) => typeof name === 'string')
}

function baseModel({ model_name_or_path: name }: Record<string, unknown>): string | undefined {
  return typeof name === 'string' ? name : undefined
}

function architectureOf(config: Record<string, unknown> | undefined): string | undefined {
  const list: unknown = config?.architectures
  const first: unknown = Array.isArray(list) ? list[0] : undefined
  return typeof first === 'string' ? first : undefined
}
