import { join } from 'node:path'
import {
  type Check,
  fields,
  integer,
  nullable,
  oneOf,
  optional,
  path,
  text,
} from '../../arguments.js'
import { atomicFile } from '../../checkpoint/atomic.js'
import { refuse } from '../../errors.js'
import { Desk } from '../../teacher/desk.js'
import { Meter } from '../../teacher/meter.js'
import { endings, type Prompted } from '../answer.js'
import { type Metric, writeResults } from '../results.js'
import {
  type AnswerOptions,
  answerChecks,
  endpointOf,
  kConcurrency,
  outFolder,
  withAnswerer,
} from '../run.js'
import { type Annotation, annotate } from './judge.js'
import { averageLength, matched, type Output, readInstructions, readOutputs } from './outputs.js'
import { type WinRate, winRate } from './score.js'
import { type JudgeMethod, judgeSettings, ownPrompt, readJudgePrompt } from './verdict.js'

export interface AlpacaEvalOptions extends AnswerOptions {
  /** Rows with `instruction` and `dataset`; AlpacaEval's own file is one. */
  instructions?: string | undefined
  /** `model_outputs.json` that is there, instead of a model that answers. */
  outputs?: string | undefined
  /** Outputs of the model to compare with, in the same format; the judge needs it. */
  reference?: string | undefined
  /** `weighted` by default. */
  judgeMethod?: JudgeMethod | undefined
  /** A file like AlpacaEval's prompts; our own wording by default. */
  judgePrompt?: string | undefined
  /** Content of the system turn, empty by default as Zephyr's prompt has it; null: no such turn. */
  system?: string | null | undefined
  /** Of sampling and of the order in which outputs are shown; 0. */
  seed?: number | undefined
}

const checkOptions: Check<AlpacaEvalOptions> = fields<AlpacaEvalOptions>({
  ...answerChecks,
  instructions: optional(path),
  outputs: optional(path),
  reference: optional(path),
  judgeMethod: optional(oneOf('weighted', 'rank')),
  judgePrompt: optional(path),
  system: optional(nullable(text)),
  seed: optional(integer(Number.MIN_SAFE_INTEGER)),
})

export interface AlpacaEvalResult {
  /** Where `results.json` is. */
  out: string
  model: string
  answered: number
  /** In characters. */
  avg_length: number
  /** Undefined without a judge. */
  scores: WinRate | undefined
}

/** What Zephyr's decoding configuration says. */
const temperature = 0.7

/**
 * AlpacaEval: a model answers single instructions, and a judge compares each answer with a reference
 * model's (arXiv 2305.14387). Writes `model_outputs.json`, with a judge `annotations.json` and
 * `leaderboard.csv`, and `results.json` and `samples.jsonl`; begun again, it neither computes nor pays
 * for anything twice.
 *
 * @throws ERR_INVALID_ARG; ERR_DATA for a file that is wrong; ERR_ABORTED; errors of the endpoints
 */
export async function alpacaEval(options: AlpacaEvalOptions): Promise<AlpacaEvalResult> {
  checkOptions(options, 'alpacaEval: options')
  const { signal, stream, seed = 0, judgeMethod: method = 'weighted' } = options
  const { concurrency = kConcurrency } = options
  const judge = options.judge && (await readJudge(options, method))
  const out = await outFolder(options, 'alpaca-eval')
  const desk = await Desk.open(join(out, 'journal.jsonl'), {}, signal)
  try {
    const { outputs, model, model_path, reasons } = await outputsOf(
      options,
      desk,
      judge?.references,
    )
    await writeJson(join(out, 'model_outputs.json'), outputs)
    const avg_length = averageLength(outputs)
    let annotations: Annotation[] | undefined
    let scores: WinRate | undefined
    if (judge) {
      const meter = new Meter({ label: 'judge', total: outputs.length, stream })
      const { endpoint, prompt, references } = judge
      const onProgress = () => meter.tick(desk.spent)
      const judging = { method, prompt, seed, concurrency, onProgress }
      annotations = await annotate(desk, endpoint, outputs, references, judging)
      scores = winRate(annotations.map(({ preference }) => preference))
      await writeJson(join(out, 'annotations.json'), annotations)
      await atomicFile(join(out, 'leaderboard.csv'), leaderboard(model, scores, avg_length))
    }
    await writeResults(
      out,
      {
        task: 'alpaca-eval',
        model,
        model_path,
        metrics: {
          ...metricsOf(scores),
          instructions: outputs.length,
          avg_length,
          ...endings(reasons),
        },
        groups: annotations && groupsOf(annotations),
        settings: {
          instructions: options.instructions,
          outputs: options.outputs,
          ...(options.outputs === undefined && {
            max_new_tokens: options.maxNewTokens ?? kMaxNewTokens,
            temperature,
            system: options.system === undefined ? '' : options.system,
          }),
          seed,
          ...(judge && {
            reference: options.reference,
            judge: judge.endpoint.model,
            judge_model: namesOf(annotations ?? []),
            judge_method: method,
            judge_prompt: options.judgePrompt ?? 'westwind',
            judge_settings: judgeSettings[method],
          }),
        },
      },
      samplesOf(outputs, annotations),
    )
    return { out, model, answered: outputs.length, avg_length, scores }
  } finally {
    await desk.close()
  }
}

export const kMaxNewTokens = 2048

/** All that judging needs, read before anything is paid for. */
async function readJudge(options: AlpacaEvalOptions, method: JudgeMethod) {
  const { reference, judgePrompt } = options
  if (reference === undefined) {
    refuse(
      'alpacaEval: options.reference',
      'a file of outputs for the judge to compare with',
      reference,
    )
  }
  return {
    endpoint: endpointOf(options.judge!, 'alpacaEval: options.judge'),
    prompt: await readJudgePrompt(judgePrompt ?? ownPrompt(method)),
    references: await readOutputs(reference),
  }
}

async function outputsOf(
  options: AlpacaEvalOptions,
  desk: Desk,
  references: readonly Output[] | undefined,
) {
  const { model, outputs: file, instructions, modelId } = options
  if (file !== undefined) {
    if (model !== undefined) refuse('alpacaEval: options', 'with model or with outputs', 'both')
    const given = await readOutputs(file)
    const generator = modelId ?? given[0]!.generator
    const outputs = given.map((one): Output => ({ ...one, generator }))
    return { outputs, model: generator, model_path: undefined, reasons: [] }
  }
  if (model === undefined) refuse('alpacaEval: options.model', 'a model, or outputs given', model)
  if (instructions === undefined) {
    refuse('alpacaEval: options.instructions', 'a file of instructions to answer', instructions)
  }
  const asked = await readInstructions(instructions)
  if (references) matched(asked, references) // an instruction without one shows before it costs
  const { system = '', seed = 0, maxNewTokens: max_new_tokens = kMaxNewTokens } = options
  return withAnswerer({ ...options, model }, desk, async (answerer) => {
    const prompts = asked.map(({ instruction }, i): Prompted => {
      const user = { role: 'user', content: instruction }
      const messages = system === null ? [user] : [{ role: 'system', content: system }, user]
      return { id: String(i), messages, max_new_tokens, temperature, seed }
    })
    const answers = await answerer.answer('alpaca-eval answer', prompts)
    const outputs = asked.map((one, i): Output => {
      return { ...one, output: answers[i]!.text, generator: answerer.id }
    })
    const reasons = answers.map(({ finish_reason }) => finish_reason)
    return { outputs, model: answerer.id, model_path: answerer.path, reasons }
  })
}

function writeJson(file: string, value: unknown): Promise<void> {
  return atomicFile(file, `${JSON.stringify(value, null, 2)}\n`)
}

/** The row of AlpacaEval's leaderboard; without the length-controlled win rate, which needs its own data. */
function leaderboard(model: string, scores: WinRate, avgLength: number): string {
  const columns = { ...scores, mode: 'community', avg_length: Math.floor(avgLength) }
  const name = /[",\n]/.test(model) ? `"${model.replaceAll('"', '""')}"` : model
  const header = ['', ...Object.keys(columns)].join(',')
  return `${header}\n${[name, ...Object.values(columns).map((x) => x ?? '')].join(',')}\n`
}

function metricsOf(scores: WinRate | undefined): Record<string, Metric> {
  if (!scores) return {}
  const { win_rate: value, standard_error: stderr, ...counts } = scores
  return { win_rate: stderr === null ? value : { value, stderr }, ...counts }
}

function groupsOf(annotations: readonly Annotation[]): Record<string, Record<string, Metric>> {
  const names = [...new Set(annotations.map(({ dataset }) => dataset ?? ''))]
  return Object.fromEntries(
    names.map((name) => {
      const some = annotations.filter(({ dataset }) => (dataset ?? '') === name)
      return [name, metricsOf(winRate(some.map(({ preference }) => preference)))]
    }),
  )
}

function namesOf(annotations: readonly Annotation[]): string[] {
  const names = annotations.flatMap(({ judge_model }) => judge_model ?? [])
  return [...new Set(names)].sort()
}

function samplesOf(
  outputs: readonly Output[],
  annotations: readonly Annotation[] | undefined,
): object[] {
  return outputs.map(({ instruction, dataset, output }, i) => {
    const { output_1: reference, preference } = annotations?.[i] ?? {}
    return { id: String(i), dataset, prompt: instruction, answer: output, reference, preference }
  })
}
