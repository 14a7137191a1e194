import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import { hashFile } from '../checkpoint/hash-file.js'
import { type Row, readRows } from '../data/read-rows.js'
import { loadRows } from '../data/source.js'
import { WestwindError } from '../errors.js'
import { reason } from '../json.js'
import { loadModel, type Model, type ModelDType } from '../model/model.js'
import { type ProgressStream, progressOf } from '../train/progress.js'
import { type ChoiceSample, evaluateChoices } from './choice/choice.js'
import { type ChoiceTaskName, choiceTasks } from './choice/tasks.js'
import { evaluatePerplexity } from './perplexity.js'
import { evaluatePreferences } from './preferences.js'
import { type EvalResults, type Metric, writeResults } from './results.js'
import { outFolder } from './run.js'

// Evaluations by log-probs from files to files; what they compute is in choice/, perplexity.ts, preferences.ts.

/** What evaluations by log-probs have in common. */
export interface ScoringOptions {
  /** Folder or Hub id. */
  model: string
  /** Default for a model folder: `eval/<task>` in it. */
  out?: string | undefined
  /** Only the first so many. */
  limit?: number | undefined
  device?: string | undefined
  dtype?: ModelDType | 'auto' | undefined
  signal?: AbortSignal | undefined
  /** Progress and remarks for people; silent without. */
  stream?: ProgressStream | undefined
}

/** What an evaluation left in `out`, and what to show of it. */
export interface ScoringOutcome {
  out: string
  results: EvalResults
  headline: string
  /** Groups that are worth a line. */
  parts: Readonly<Record<string, Readonly<Record<string, Metric>>>>
}

export interface RunChoicesOptions extends ScoringOptions {
  task: ChoiceTaskName
  /** Files of questions. */
  data: readonly string[]
  fewshot?: number | undefined
  /** Files that the answered examples come from. */
  fewshotData?: readonly string[] | undefined
  /** TruthfulQA: file of text that stands before each question. */
  preset?: string | undefined
}

export async function runChoices(options: RunChoicesOptions): Promise<ScoringOutcome> {
  const { task, signal, stream, limit, fewshot = 0, fewshotData = [] } = options
  if (fewshot > 0 && fewshotData.length === 0) {
    throw new WestwindError(
      'ERR_INVALID_ARG',
      `--fewshot ${fewshot} needs --fewshot-data FILE, the split that examples are taken from`,
    )
  }
  const out = await outFolder(options, task)
  const { rows, data } = await readFiles(options.data, signal)
  const examples = await readFiles(fewshot > 0 ? fewshotData : [], signal)
  const preset = options.preset === undefined ? undefined : await readPreset(options.preset)
  if (task === 'truthfulqa' && preset === undefined) {
    stream?.write(
      'without --preset each question stands alone: mc1 and mc2 do not compare with those of ' +
        'lm-evaluation-harness, which puts six answered questions before each\n',
    )
  }
  using model = await loadModel(options.model, placed(options))
  const { metrics, groups, samples } = await evaluateChoices(model, task, rows, {
    fewshot,
    fewshotRows: examples.rows,
    ...(preset !== undefined && { preset }),
    ...common(task, options),
  })
  const settings = {
    n: samples.length,
    fewshot,
    ...(limit !== undefined && { limit }),
    ...modelSettings(model),
    data,
    ...(fewshot > 0 && { fewshot_data: examples.data }),
    ...(preset !== undefined && { preset_sha256: sha256(preset) }),
  }
  const categories = Object.keys(choiceTasks[task].categories ?? {})
  const parts = Object.fromEntries(
    Object.entries(groups ?? {}).filter(([name]) => categories.includes(name)),
  )
  const headline = `${task}: ${samples.length} questions, ${fewshot}-shot${cut(samples)}`
  const results = { ...(await namesOf(options.model)), task, metrics, groups, settings }
  await writeResults(out, results, samples)
  return { out, results, headline, parts }
}

export interface RunPerplexityOptions extends ScoringOptions {
  /** Files of rows with text or messages. */
  data: readonly string[]
  stride?: number | undefined
}

export async function runPerplexity(options: RunPerplexityOptions): Promise<ScoringOutcome> {
  const task = 'perplexity'
  const { signal, limit } = options
  const out = await outFolder(options, task)
  const { rows, data } = await readFiles(options.data, signal)
  using model = await loadModel(options.model, placed(options))
  const { stride = model.config.maxPositionEmbeddings } = options
  const { metrics, samples } = await evaluatePerplexity(model, rows, {
    stride,
    ...common(task, options),
  })
  const settings = {
    n: samples.length,
    stride,
    ...(limit !== undefined && { limit }),
    ...modelSettings(model),
    data,
  }
  const tokens = samples.reduce((sum, sample) => sum + sample.tokens, 0)
  const headline = `${task}: ${samples.length} texts, ${tokens} tokens`
  const results = { ...(await namesOf(options.model)), task, metrics, settings }
  await writeResults(out, results, samples)
  return { out, results, headline, parts: {} }
}

export interface RunPreferencesOptions extends ScoringOptions {
  /** The model that the policy was trained from. */
  reference: string
  /** Preference pairs: a file, a folder or a Hub id. */
  data: string
  /** Of the data; `test_prefs` by default. */
  split?: string | undefined
  beta?: number | undefined
  maxLength?: number | undefined
  klSamples?: number | undefined
  maxNewTokens?: number | undefined
  seed?: number | undefined
}

export async function runPreferences(options: RunPreferencesOptions): Promise<ScoringOutcome> {
  const task = 'preferences'
  const { data, split = 'test_prefs', limit, maxLength, signal } = options
  const { beta = 0.1, klSamples = 64, maxNewTokens = 128, seed = 0 } = options
  const out = await outFolder(options, task)
  const rows = await loadRows({ id: data, split }, { signal })
  using policy = await loadModel(options.model, placed(options))
  using reference = await loadModel(options.reference, placed(options))
  const { metrics, samples } = await evaluatePreferences(policy, reference, rows, {
    ...{ beta, klSamples, maxNewTokens, seed },
    ...(maxLength !== undefined && { maxLength }),
    ...common(task, options),
  })
  const dropped = samples.filter((sample) => sample.dropped).length
  const truncated = samples.filter((sample) => sample.truncated).length
  const settings = {
    n: samples.length - dropped,
    ...{ dropped, truncated, reference: options.reference, data, split, beta },
    ...(limit !== undefined && { limit }),
    ...(maxLength !== undefined && { max_length: maxLength }),
    ...{ kl_samples: klSamples, max_new_tokens: maxNewTokens, seed },
    ...modelSettings(policy),
  }
  const headline =
    `${task}: ${samples.length - dropped} pairs, beta ${beta}` +
    (dropped > 0 ? `, ${dropped} dropped` : '') +
    (truncated > 0 ? `, ${truncated} cut` : '')
  const results = { ...(await namesOf(options.model)), task, metrics, settings }
  await writeResults(out, results, samples)
  return { out, results, headline, parts: {} }
}

function placed({ device, dtype }: ScoringOptions) {
  return { ...(device !== undefined && { device }), ...(dtype !== undefined && { dtype }) }
}

function common(task: string, { limit, signal, stream }: ScoringOptions) {
  return {
    ...(limit !== undefined && { limit }),
    ...(signal && { signal }),
    onProgress: progressOf(task, stream),
  }
}

async function namesOf(model: string): Promise<{ model: string; model_path?: string }> {
  const local = await stat(model).catch(() => undefined)
  return local ? { model: basename(resolve(model)), model_path: resolve(model) } : { model }
}

/** Rows of files, and what results say of the files. */
async function readFiles(files: readonly string[], signal: AbortSignal | undefined) {
  const rows: Row[] = []
  const data: { file: string; sha256: string }[] = []
  for (const file of files) {
    for (const row of await readRows(file, { ...(signal && { signal }) })) rows.push(row)
    data.push({ file: basename(file), sha256: await hashFile(file) })
  }
  return { rows, data }
}

/** What results say of a model. */
function modelSettings({ dtype, device }: Model): { dtype: string; device: string } {
  return { dtype, device: device.name }
}

/** The file's text, without white space at its end. */
async function readPreset(file: string): Promise<string> {
  try {
    return (await readFile(file, 'utf8')).trimEnd()
  } catch (cause) {
    throw new WestwindError('ERR_DATA', `${file} cannot be read: ${reason(cause)}`, { cause })
  }
}

function cut(samples: readonly ChoiceSample[]): string {
  const n = samples.filter(({ truncated }) => truncated).length
  return n === 0 ? '' : `, ${n} prompts cut to the model's context`
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
