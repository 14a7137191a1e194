import { join } from 'node:path'
import { type Check, fields, optional, path, text } from '../../arguments.js'
import { atomicFile, exists } from '../../checkpoint/atomic.js'
import { refuse, WestwindError } from '../../errors.js'
import { Desk } from '../../teacher/desk.js'
import { Meter } from '../../teacher/meter.js'
import { endings } from '../answer.js'
import { line, type Metric, writeResults } from '../results.js'
import {
  type AnswerOptions,
  answerChecks,
  endpointOf,
  fileName,
  kConcurrency,
  outFolder,
  withAnswerer,
} from '../run.js'
import { answerQuestions } from './answer.js'
import { judgeAnswers, judgeSettings } from './judge.js'
import { ownPrompts, readJudgePrompts } from './prompts.js'
import {
  type Answer,
  needsReference,
  type Question,
  readAnswers,
  readQuestions,
  temperatures,
} from './questions.js'
import { type Judgment, type ModelScores, readJudgments, scoreJudgments } from './score.js'

export interface MtBenchOptions extends AnswerOptions {
  /** FastChat's `question.jsonl`. */
  questions: string
  /** Answers in FastChat's format, instead of a model that answers. */
  answers?: string | undefined
  /** FastChat's `reference_answer/*.jsonl`; the judge of math, reasoning and coding needs it. */
  references?: string | undefined
  /** A file like FastChat's `judge_prompts.jsonl`; our own wording by default. */
  judgePrompts?: string | undefined
  /** Content of a system turn; none by default. */
  system?: string | undefined
}

const checkOptions: Check<MtBenchOptions> = fields<MtBenchOptions>({
  ...answerChecks,
  questions: path,
  answers: optional(path),
  references: optional(path),
  judgePrompts: optional(path),
  system: optional(text),
})

export interface MtBenchResult {
  /** Where `results.json` is. */
  out: string
  model: string
  /** Questions that were answered. */
  answered: number
  /** Undefined without a judge. */
  scores: ModelScores | undefined
}

/**
 * MT-Bench as FastChat runs it: a model answers two-turn questions, at temperatures that depend on the
 * category, and a judge rates each turn from 1 to 10 (arXiv 2306.05685). Writes FastChat's files,
 * `results.json` and `samples.jsonl`; begun again, it neither computes nor pays for anything twice.
 *
 * @throws ERR_INVALID_ARG; ERR_DATA for a file that is wrong; ERR_ABORTED; errors of the endpoints
 */
export async function mtBench(options: MtBenchOptions): Promise<MtBenchResult> {
  checkOptions(options, 'mtBench: options')
  const { signal, concurrency = kConcurrency, maxNewTokens: max_new_tokens = 1024 } = options
  const questions = await readQuestions(options.questions)
  const judge = options.judge && (await readJudge(options, questions))
  const out = await outFolder(options, 'mt-bench')
  const desk = await Desk.open(join(out, 'journal.jsonl'), {}, signal)
  try {
    const { answers, model, model_path, finishReasons } = await answersOf(options, questions, desk)
    await atomicFile(
      join(out, 'model_answer', `${fileName(model)}.jsonl`),
      [...answers.values()].sort(byQuestion).map(line).join(''),
    )
    const judgments: Judgment[] = []
    if (judge) {
      const total = [...answers.values()].flatMap(({ choices }) => choices[0]!.turns).length
      const meter = new Meter({ label: 'judge', total, stream: options.stream })
      const { endpoint, prompts, references } = judge
      const onProgress = () => meter.tick(desk.spent)
      const judging = { prompts, references, concurrency, onProgress }
      judgments.push(...(await judgeAnswers(desk, endpoint, questions, answers, judging)))
      await writeJudgments(out, endpoint.model, model, judgments)
    }
    const scores = scoreJudgments(judgments, questions)[0]
    await writeResults(
      out,
      {
        task: 'mt-bench',
        model,
        model_path,
        metrics: {
          ...metricsOf(scores, answers),
          ...endings([...(finishReasons?.values() ?? [])]),
        },
        groups: scores && groupsOf(scores),
        settings: {
          questions: options.questions,
          answers: options.answers,
          ...(options.answers === undefined && {
            max_new_tokens,
            temperatures,
            system: options.system ?? null,
          }),
          ...(judge && {
            judge: judge.endpoint.model,
            judge_model: [...new Set(judgments.map(({ judge_model }) => judge_model))].sort(),
            judge_prompts: options.judgePrompts ?? 'westwind',
            judge_settings: judgeSettings,
          }),
        },
      },
      samplesOf(questions, answers, judgments, finishReasons),
    )
    return { out, model, answered: answers.size, scores }
  } finally {
    await desk.close()
  }
}

/** All that judging needs, read before anything is paid for. */
async function readJudge(options: MtBenchOptions, questions: readonly Question[]) {
  const endpoint = endpointOf(options.judge!, 'mtBench: options.judge')
  const prompts = await readJudgePrompts(options.judgePrompts ?? ownPrompts)
  const { references: file } = options
  const references = file === undefined ? new Map<number, Answer>() : await readAnswers(file)
  const without = questions.filter((one) => needsReference(one) && !references.has(one.question_id))
  if (without.length > 0) {
    const ids = without.slice(0, 5).map(({ question_id }) => question_id)
    throw new WestwindError(
      'ERR_DATA',
      `${file ?? 'references (--references FILE): none'}: no reference answer to ` +
        `${without.length} questions of math, reasoning or coding (${ids.join(', ')}, …); ` +
        "FastChat's are in reference_answer/gpt-4.jsonl",
    )
  }
  return { endpoint, prompts, references }
}

async function answersOf(options: MtBenchOptions, questions: readonly Question[], desk: Desk) {
  const { model, answers: file, maxNewTokens: max_new_tokens = 1024, system } = options
  if (file !== undefined) {
    if (model !== undefined) refuse('mtBench: options', 'with model or with answers', 'both')
    const all = await readAnswers(file)
    const asked = questions.flatMap(({ question_id }) => all.get(question_id) ?? [])
    const id = options.modelId ?? asked[0]?.model_id
    if (id === undefined)
      throw new WestwindError('ERR_DATA', `${file}: answers none of the questions`)
    const answers = new Map(asked.map((one) => [one.question_id, { ...one, model_id: id }]))
    return { answers, model: id, model_path: undefined, finishReasons: undefined }
  }
  if (model === undefined) refuse('mtBench: options.model', 'a model, or answers given', model)
  return withAnswerer({ ...options, model }, desk, async (answerer) => {
    const done = await answerQuestions(answerer, questions, { max_new_tokens, system })
    return { ...done, model: answerer.id, model_path: answerer.path }
  })
}

/** Judgments of other models stay in the file. */
async function writeJudgments(
  out: string,
  judge: string,
  model: string,
  judgments: readonly Judgment[],
): Promise<void> {
  const file = join(out, 'model_judgment', `${fileName(judge)}_single.jsonl`)
  const before = (await exists(file)) ? await readJudgments(file) : []
  const others = before.filter((one) => one.model !== model)
  await atomicFile(file, [...others, ...judgments].map(line).join(''))
}

function byQuestion(a: Answer, b: Answer): number {
  return a.question_id - b.question_id
}

function metricsOf(
  scores: ModelScores | undefined,
  answers: ReadonlyMap<number, Answer>,
): Record<string, Metric> {
  const texts = [...answers.values()].flatMap(({ choices }) => choices[0]!.turns)
  const avg_length = texts.reduce((sum, text) => sum + [...text].length, 0) / texts.length
  const answered = { questions: answers.size, avg_length }
  if (!scores) return answered
  return { ...scoreMetrics(scores), n: scores.n, unrated: scores.unrated, ...answered }
}

function groupsOf({ categories }: ModelScores): Record<string, Record<string, Metric>> {
  const entries = Object.entries(categories)
  return Object.fromEntries(
    entries.map(([name, one]) => [name, { ...scoreMetrics(one), n: one.n }]),
  )
}

function scoreMetrics({ score, turns }: Pick<ModelScores, 'score' | 'turns'>) {
  return { score, turn_1: turns[1]?.score ?? null, turn_2: turns[2]?.score ?? null }
}

/** A line per question and turn. */
function samplesOf(
  questions: readonly Question[],
  answers: ReadonlyMap<number, Answer>,
  judgments: readonly Judgment[],
  finishReasons: ReadonlyMap<string, string | null> = new Map(),
): object[] {
  const judged = new Map(judgments.map((one) => [`${one.question_id}/${one.turn}`, one]))
  return questions.flatMap(({ question_id, category, turns }) => {
    const said = answers.get(question_id)?.choices[0]?.turns ?? []
    return said.map((answer, i) => {
      const id = `${question_id}/${i + 1}`
      const { score, judgment } = judged.get(id) ?? {}
      const finish_reason = finishReasons.get(id)
      const sample = { id, question_id, turn: i + 1, category, prompt: turns[i], answer }
      return { ...sample, finish_reason, score, judgment }
    })
  })
}
