import { readdir, realpath } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { z } from 'zod'
import { exists } from '../checkpoint/atomic.js'
import { readRows } from '../data/read-rows.js'
import { WestwindError } from '../errors.js'
import { readJsonObject } from '../json.js'
import { orProblem } from './read-run.js'

const metric = z.union([
  z.number().nullable(),
  z.looseObject({ value: z.number().nullable(), stderr: z.number().nullable().optional() }),
])
const metrics = z.record(z.string(), metric)

const resultsSchema = z.looseObject({
  task: z.string(),
  model: z.string(),
  model_path: z.string().optional(),
  date: z.string().optional(),
  westwind: z.string().optional(),
  metrics,
  groups: z.record(z.string(), metrics).optional(),
  settings: z.record(z.string(), z.unknown()).optional(),
  samples: z.string().optional(),
})

/** A `results.json` of an evaluation, and the answers in its samples. */
export interface Evaluation {
  file: string
  task: string
  model: string
  model_path: string | null
  date: string | null
  /** One line per number: of the whole task (group null) or of a group. */
  scores: { group: string | null; metric: string; value: number | null; stderr: number | null }[]
  settings: Record<string, unknown>
  answers: Answer[]
}

/** What a model answered to one item. */
export interface Answer {
  /** The item, the same for every model. */
  id: string
  prompt: string
  text: string
  /** A judge's; null where there is none. */
  score: number | null
}

/** Folders below a given one that are looked into for `results.json`. */
const depth = 4

/** Every evaluation in a folder and the folders in it; what is damaged becomes a line of `problems`. */
export async function readEvaluations(dir: string, problems: string[]): Promise<Evaluation[]> {
  const found: Evaluation[] = []
  for (const file of await resultFiles(dir, depth, problems)) {
    const evaluation = await orProblem(file, problems, () => readEvaluation(file, problems))
    if (evaluation) found.push(evaluation)
  }
  return found
}

async function resultFiles(dir: string, levels: number, problems: string[]): Promise<string[]> {
  const entries = await orProblem(dir, problems, () => readdir(dir, { withFileTypes: true }))
  const sorted = (entries ?? []).sort((a, b) => (a.name < b.name ? -1 : 1))
  const files: string[] = []
  for (const entry of sorted) {
    const path = join(dir, entry.name)
    if (entry.name === 'results.json') files.push(path)
    else if (entry.isDirectory() && levels > 0) {
      files.push(...(await resultFiles(path, levels - 1, problems)))
    }
  }
  return files
}

async function readEvaluation(file: string, problems: string[]): Promise<Evaluation> {
  const parsed = resultsSchema.safeParse(await readJsonObject(file, 'ERR_DATA'))
  if (!parsed.success) {
    const issues = parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`)
    throw new WestwindError('ERR_DATA', `${file}: ${issues.slice(0, 3).join('; ')}`)
  }
  const { task, model, model_path, date, metrics, groups, settings, samples } = parsed.data
  return {
    file,
    task,
    model,
    model_path: model_path ?? null,
    date: date ?? null,
    scores: [
      ...scoresOf(null, metrics),
      ...Object.entries(groups ?? {}).flatMap(([group, of]) => scoresOf(group, of)),
    ],
    settings: settings ?? {},
    answers: samples === undefined ? [] : await readAnswers(file, samples, problems),
  }
}

function scoresOf(group: string | null, of: z.infer<typeof metrics>): Evaluation['scores'] {
  return Object.entries(of).map(([metric, score]) => {
    if (score === null || typeof score === 'number') {
      return { group, metric, value: score, stderr: null }
    }
    return { group, metric, value: score.value, stderr: score.stderr ?? null }
  })
}

/** The lines of the samples that have a prompt and an answer in words; those of multiple choice have none. */
async function readAnswers(file: string, name: string, problems: string[]): Promise<Answer[]> {
  const path = join(dirname(file), name)
  if (name !== basename(name)) {
    problems.push(`${file}: samples must be the name of a file beside it, got ${name}`)
    return []
  }
  const rows = await orProblem(path, problems, () => readRows(path))
  return (rows ?? []).flatMap((row) => answerOf(row) ?? [])
}

const texts = z.array(z.string())

/** An item as MT-Bench and AlpacaEval of westwind write it, or FastChat, or alpaca_eval. */
const answered = z.looseObject({
  id: z.union([z.string(), z.number()]).optional(),
  question_id: z.union([z.string(), z.number()]).optional(),
  prompt: z.string().optional(),
  instruction: z.string().optional(),
  turns: texts.optional(),
  answer: z.string().optional(),
  output: z.string().optional(),
  choices: z.array(z.looseObject({ turns: texts })).optional(),
  score: z.number().nullable().optional(),
})

function answerOf(row: Record<string, unknown>): Answer | undefined {
  const { data } = answered.safeParse(row)
  if (!data) return undefined
  const prompt = data.prompt ?? data.instruction ?? data.turns?.join('\n\n')
  const text = data.answer ?? data.output ?? data.choices?.[0]?.turns.join('\n\n')
  if (prompt === undefined || text === undefined) return undefined
  const id = data.id ?? data.question_id ?? prompt
  return { id: String(id), prompt, text, score: data.score ?? null }
}

/** Whether a path that a file names is this folder: the same place, or the same last parts of it. */
export async function isSamePlace(named: string, folder: string): Promise<boolean> {
  const place = await realpath(folder).catch(() => folder)
  if ((await exists(named)) && (await realpath(named)) === place) return true
  const parts = (path: string) => path.split(/[\\/]+/).filter((part) => part && part !== '.')
  const [wanted, has] = [parts(named), parts(place)]
  return (
    wanted.length > 1 &&
    !(await exists(named)) &&
    has.slice(-wanted.length).join('/') === wanted.join('/')
  )
}
