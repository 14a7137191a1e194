import { createHash } from 'node:crypto'
import {
  abortSignal,
  type Check,
  callable,
  fields,
  integer,
  oneOf,
  optional,
  plainCopy,
  text,
} from '../../arguments.js'
import { pause } from '../../data/abort.js'
import { checkRows, type Row } from '../../data/read-rows.js'
import { refuse, WestwindError } from '../../errors.js'
import { isRecord } from '../../json.js'
import { checkModel, type Model } from '../../model/model.js'
import type { Metric } from '../results.js'
import { type ScoreRequest, score } from '../score.js'
import { type Estimate, estimate, groupBy, metricOf, pooled } from '../statistics.js'
import { argmax, type ChoiceDocument, type ChoiceTask, wrong } from './document.js'
import { encodeContinuations } from './encode.js'
import { prompts } from './few-shot.js'
import { type ChoiceTaskName, choiceTasks } from './tasks.js'

export interface ChoiceOptions {
  /** Answered examples before each question; 0 by default. */
  fewshot?: number
  /** Where they come from: the train, validation or dev split. */
  fewshotRows?: Iterable<Row>
  /** TruthfulQA: questions and answers that stand before each question. */
  preset?: string
  /** Only the first so many documents; of MMLU, of each subject. */
  limit?: number
  /** Called with the choices scored so far and all. */
  onProgress?: (done: number, total: number) => void
  signal?: AbortSignal
}

/** One document and what the model made of it. */
export interface ChoiceSample {
  id: string
  group?: string
  /** SHA-256 of the prompt. */
  prompt_sha256: string
  choices: string[]
  /** Summed log-prob of each choice, in nats. */
  logprobs: number[]
  /** Scored tokens of each choice. */
  tokens: number[]
  /** Whether greedy decoding would write the choice. */
  greedy: boolean[]
  gold: number
  /** The likeliest choice. */
  predicted: number
  /** Its beginning was cut to fit the model's context. */
  truncated?: true
  /** Metrics, by name. */
  [metric: string]: unknown
}

export interface ChoiceResult {
  /** Means over the documents, with standard errors. */
  metrics: Record<string, Metric>
  /** By category and subject, with `n`, the number of documents. */
  groups?: Record<string, Record<string, Metric>>
  samples: ChoiceSample[]
}

const checkTask: Check<ChoiceTaskName> = oneOf(
  'arc',
  'hellaswag',
  'mmlu',
  'truthfulqa',
  'multiple-choice',
)
const checkOptions: Check<ChoiceOptions> = fields<ChoiceOptions>({
  fewshot: optional(integer(0)),
  fewshotRows: optional(checkRows),
  preset: optional(text),
  limit: optional(integer(1)),
  onProgress: optional(callable()),
  signal: optional(abortSignal),
})

/**
 * Scores multiple-choice questions by the log-probs of their answers, with the prompts, few-shot rules, tokenisation
 * and metrics of lm-evaluation-harness 0.4.13 (its tasks arc_challenge and arc_easy, hellaswag, mmlu, truthfulqa_mc1
 * and _mc2; `multiple-choice` for other rows). docs/eval.md has the columns.
 *
 * @throws ERR_DATA naming the row that is malformed; ERR_TOKENIZER; ERR_INVALID_ARG; ERR_ABORTED
 */
export async function evaluateChoices(
  model: Model,
  task: ChoiceTaskName,
  rows: Iterable<Row>,
  options: ChoiceOptions = {},
): Promise<ChoiceResult> {
  checkModel(model, 'evaluateChoices: model')
  checkTask(task, 'evaluateChoices: task')
  checkRows(rows, 'evaluateChoices: rows')
  checkOptions(options, 'evaluateChoices: options')
  const { fewshot = 0, fewshotRows = [], preset, limit, onProgress, signal } = options
  const rules: ChoiceTask = choiceTasks[task]
  if (fewshot > 0 && rules.fewShot === 'none') refuse('fewshot', `0 for ${task}`, fewshot)
  if (preset !== undefined && !rules.preset) refuse('preset', `left out for ${task}`, preset)
  const { tokenizer, config } = model
  if (!tokenizer) throw new WestwindError('ERR_TOKENIZER', `${task}: the model has no tokenizer`)

  const documents = limited(documentsOf(rules, rows, 'row'), limit)
  if (documents.length === 0) throw new WestwindError('ERR_DATA', `${task}: no rows`)
  const pool = fewshot > 0 ? documentsOf(rules, fewshotRows, 'fewshotRows: row') : []
  const texts = [...prompts(rules, documents, fewshot, pool, preset)]
  const requests: ScoreRequest[][] = []
  for (const [i, { choices, id }] of documents.entries()) {
    await pause(signal)
    const continuations = choices.map((choice) => ` ${choice}`)
    const length = config.maxPositionEmbeddings
    const where = `document ${id}`
    requests.push(encodeContinuations(tokenizer, texts[i]!, continuations, length, where))
  }
  const scores = await score(model, requests.flat(), { signal, onProgress })

  let next = 0
  const values: Record<string, number>[] = []
  const samples = documents.map((document, i): ChoiceSample => {
    const { id, group, choices, gold, metrics } = document
    const own = requests[i]!
    const scored = scores.slice(next, next + own.length)
    next += own.length
    const logprobs = scored.map(({ sum }) => sum)
    const value = metrics(logprobs)
    values.push(value)
    return {
      id,
      ...(group !== undefined && { group }),
      prompt_sha256: createHash('sha256').update(texts[i]!).digest('hex'),
      choices,
      logprobs,
      tokens: own.map((request) => request.scored),
      greedy: scored.map(({ greedy }) => greedy),
      gold,
      predicted: argmax(logprobs),
      ...(own.some(({ truncated }) => truncated) && { truncated: true }),
      ...value,
    }
  })
  return { ...aggregate(rules, documents, values), samples }
}

function documentsOf(task: ChoiceTask, rows: Iterable<Row>, kind: string): ChoiceDocument[] {
  const documents: ChoiceDocument[] = []
  for (const given of rows) {
    const where = `${kind} ${documents.length + 1}`
    const row: unknown = plainCopy(given, where, 'ERR_DATA')
    if (!isRecord(row)) throw wrong(where, 'an object with named fields', row)
    documents.push(task.document(row, documents.length, where))
  }
  return documents
}

function limited(documents: ChoiceDocument[], limit = Number.POSITIVE_INFINITY): ChoiceDocument[] {
  const counts = new Map<string | undefined, number>()
  return documents.filter(({ group }) => {
    const n = (counts.get(group) ?? 0) + 1
    counts.set(group, n)
    return n <= limit
  })
}

type Values = Record<string, number>

/** Means over documents; with groups, over each of them, each category, and all with the pooled error. */
function aggregate(
  task: ChoiceTask,
  documents: readonly ChoiceDocument[],
  values: readonly Values[],
): Pick<ChoiceResult, 'metrics' | 'groups'> {
  const names = Object.keys(values[0]!)
  const perName = <T>(f: (name: string) => T) =>
    Object.fromEntries(names.map((name) => [name, f(name)]))
  const over = (some: readonly Values[]) =>
    perName((name) => estimate(some.map((value) => value[name]!)))
  const members = groupBy(values.keys(), (i) => documents[i]!.group)
  if (members.has(undefined)) return { metrics: metricsOf(over(values)) }

  const parts = new Map<string, Part>()
  for (const [group, indices] of members) {
    parts.set(group!, { n: indices.length, estimates: over(indices.map((i) => values[i]!)) })
  }
  const together = (some: readonly Part[]): Part => ({
    n: some.reduce((sum, { n }) => sum + n, 0),
    estimates: perName((name) =>
      pooled(some.map(({ n, estimates }) => ({ ...estimates[name]!, n }))),
    ),
  })
  const groups: NonNullable<ChoiceResult['groups']> = {}
  const add = (name: string, { n, estimates }: Part) => {
    groups[name] = { ...metricsOf(estimates), n }
  }
  for (const [category, groupNames] of Object.entries(task.categories ?? {})) {
    const present = groupNames.flatMap((name) => parts.get(name) ?? [])
    if (present.length > 0) add(category, together(present))
  }
  for (const [group, part] of parts) add(group, part)
  return { metrics: metricsOf(together([...parts.values()]).estimates), groups }
}

interface Part {
  n: number
  estimates: Record<string, Estimate>
}

function metricsOf(estimates: Readonly<Record<string, Estimate>>): Record<string, Metric> {
  return Object.fromEntries(Object.entries(estimates).map(([name, one]) => [name, metricOf(one)]))
}
