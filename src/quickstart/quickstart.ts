import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { atomicFile } from '../checkpoint/atomic.js'
import { tokenizerFromFiles } from '../data/tokenizer/tokenizer.js'
import { device as openDevice } from '../device/device.js'
import { WestwindError } from '../errors.js'
import { loadModel } from '../model/model.js'
import { loadRecipe } from '../recipe/recipe.js'
import { dpo } from '../train/dpo.js'
import type { ProgressStream } from '../train/progress.js'
import { sft } from '../train/sft.js'
import type { RunOptions, RunResult } from '../train/story.js'
import { type Comparison, meansOf, outcomeOf } from './compare.js'
import { dialogues, tasksOf } from './data.js'
import { Display } from './display.js'
import { type Preference, rank } from './feedback.js'
import { seeded } from './random.js'
import { dpoRecipe, type Layout, layout, sftRecipe } from './recipes.js'
import { closingLines, type Report, reportHtml } from './report.js'
import { type Answer, answers } from './sampling.js'
import { fullSizes, type Sizes } from './sizes.js'
import type { Task } from './tasks.js'
import { trainTokenizer } from './tokenizer.js'

export interface QuickstartOptions {
  /** Folder of everything that is made; `runs/quickstart` by default. */
  out?: string
  /** Of data, weights, order and sampling; 42 by default. */
  seed?: number
  /** 'auto', 'cpu', 'cuda' or 'cuda:N'. */
  device?: string
  signal?: AbortSignal
  /** Progress and results for people; silent without. */
  stream?: ProgressStream
  /** How much of everything; by default what fits five minutes on two cores. */
  sizes?: Sizes
}

/** Streams of random choices, by what they decide. */
const streams = {
  dialogues: 0,
  testDialogues: 1,
  feedback: 2,
  testFeedback: 3,
  ranking: 4,
  held: 5,
}

/** Candidates are drawn as they come; the comparison uses the temperature of most chat programs. */
const temperatures = { feedback: 1, comparison: 0.7 }

/**
 * The whole way on a small scale: generates instruction data, trains a tokenizer and, from random weights,
 * a small Mistral with dSFT; has it answer prompts several times and a rule-based teacher rank the answers;
 * aligns it with dDPO; and compares both models on held-out prompts, judged by the same teacher. Every run
 * with the same seed on the same kind of machine gives the same numbers, times aside.
 *
 * @throws ERR_ABORTED where the signal stops it, and what `sft`, `dpo` and `generate` throw
 */
export async function quickstart(options: QuickstartOptions = {}): Promise<Report> {
  const { out = join('runs', 'quickstart'), seed = 42, sizes = fullSizes } = options
  const begin = performance.now()
  const paths = layout(out)
  const display = new Display(options.stream, 5)
  const on = openDevice(options.device)
  display.line(`westwind quickstart: from random weights to an aligned chat model, on ${on}`)

  display.begin('data')
  const vocabSize = await makeData(paths, sizes, seed)
  display.end(`${sizes.sft.dialogues} dialogues, a tokenizer of ${vocabSize} tokens`)

  display.begin('dSFT')
  await atomicFile(paths.sftRecipe, sftRecipe(paths, vocabSize, sizes, seed))
  const run = runOptions(options, display, sizes.sft.steps)
  const tuned = completed(await sft(await loadRecipe('sft', paths.sftRecipe), run))
  const sftLoss = tuned.metrics.eval_loss!
  display.end(`${tuned.steps} steps, loss on held-out dialogues ${sftLoss.toFixed(3)}`)

  display.begin('feedback')
  const feedback = await makeFeedback(paths, sizes, seed, options)
  const [pairs, meanScore] = [feedback.train.length, feedback.meanScore]
  display.end(
    `${sizes.feedback.answers} answers to each of ${sizes.feedback.prompts} prompts, mean score ${meanScore.toFixed(1)} of 10; ${pairs} pairs`,
  )

  display.begin('dDPO')
  await atomicFile(paths.dpoRecipe, dpoRecipe(paths, sizes, seed))
  const steps = Math.ceil(pairs / sizes.dpo.pairs) * sizes.dpo.epochs
  const aligned = completed(
    await dpo(await loadRecipe('dpo', paths.dpoRecipe), runOptions(options, display, steps)),
  )
  const rewardAccuracy = aligned.metrics['eval_rewards/accuracies']!
  display.end(
    `${aligned.steps} steps, reward accuracy on held-out pairs ${(100 * rewardAccuracy).toFixed(1)} %`,
  )

  display.begin('compare')
  const comparisons = await compare(paths, sizes, seed, options)
  const outcome = outcomeOf(comparisons)
  display.end(
    `${comparisons.length} held-out prompts: ${outcome.wins} wins, ${outcome.ties} ties, ${outcome.losses} losses`,
  )

  const report: Report = {
    ...outcome,
    evalPrompts: comparisons.length,
    sftLoss,
    dpoLoss: aligned.metrics.eval_loss!,
    rewardAccuracy,
    scores: {
      sft: meansOf(comparisons.map(({ sft }) => sft)),
      aligned: meansOf(comparisons.map(({ aligned }) => aligned)),
    },
    pairs,
    seed,
    device: `${on}`,
    processor: on.description,
    seconds: (performance.now() - begin) / 1000,
    curves: { sft: join(paths.sft, 'metrics.jsonl'), dpo: join(paths.dpo, 'metrics.jsonl') },
    answers: paths.comparison,
  }
  await atomicFile(paths.json, `${JSON.stringify(report, null, 2)}\n`)
  const curves = { sft: tuned.history, dpo: aligned.history }
  await atomicFile(paths.html, reportHtml(report, curves, comparisons))
  for (const line of closingLines(report, comparisons, paths)) display.line(line)
  return report
}

/** Writes dialogues and tokenizer; returns the size of its vocabulary. */
async function makeData(paths: Layout, sizes: Sizes, seed: number): Promise<number> {
  const { dialogues: n, testDialogues } = sizes.sft
  const train = dialogues('dialogues', n, seed, streams.dialogues)
  const test = dialogues('held out', testDialogues, seed, streams.testDialogues)
  await writeRows(join(paths.dialogues, 'train.jsonl'), train)
  await writeRows(join(paths.dialogues, 'test.jsonl'), test)
  const texts = train.flatMap(({ messages }) =>
    messages.map(({ role, content }) => `<|${role}|>\n${content}`),
  )
  const files = trainTokenizer(texts, sizes.tokenizer.vocabSize)
  await mkdir(paths.tokenizer, { recursive: true })
  for (const [name, text] of Object.entries(files)) {
    await atomicFile(join(paths.tokenizer, name), text)
  }
  return tokenizerFromFiles(files).vocabSize
}

/** The dSFT model answers, the teacher ranks: pairs to align with, and others to evaluate on. */
async function makeFeedback(
  paths: Layout,
  sizes: Sizes,
  seed: number,
  { device, signal }: QuickstartOptions,
): Promise<{ train: Preference[]; meanScore: number }> {
  const { prompts, testPrompts, answers: n } = sizes.feedback
  using model = await loadModel(paths.sft, { ...(device && { device }) })
  const pairsOf = async (tasks: Task[], stream: number) => {
    const sampling = { n, temperature: temperatures.feedback, seed: seed + stream, signal }
    const judged = await answers(model, tasks, sampling)
    return { judged, pairs: rank(tasks, judged, seeded(seed + stream, streams.ranking).next) }
  }
  const random = (stream: number) => seeded(seed, stream)
  const train = await pairsOf(
    tasksOf('preferences', prompts, random(streams.feedback)),
    streams.feedback,
  )
  const test = await pairsOf(
    tasksOf('held out', testPrompts, random(streams.testFeedback)),
    streams.testFeedback,
  )
  await writeRows(join(paths.preferences, 'train.jsonl'), train.pairs)
  await writeRows(join(paths.preferences, 'test.jsonl'), test.pairs)
  return { train: train.pairs, meanScore: meansOf(train.judged.flat()).score }
}

/** Both models answer the same held-out prompts, with the same settings and random numbers. */
async function compare(
  paths: Layout,
  sizes: Sizes,
  seed: number,
  { device, signal }: QuickstartOptions,
): Promise<Comparison[]> {
  const tasks = tasksOf('held out', sizes.evalPrompts, seeded(seed, streams.held))
  const answersOf = async (path: string): Promise<Answer[]> => {
    using model = await loadModel(path, { ...(device && { device }) })
    const sampling = {
      n: 1,
      temperature: temperatures.comparison,
      seed: seed + streams.held,
      signal,
    }
    return (await answers(model, tasks, sampling)).flat()
  }
  const before = await answersOf(paths.sft)
  const after = await answersOf(paths.dpo)
  const comparisons = tasks.map((task, i) => ({ task, sft: before[i]!, aligned: after[i]! }))
  const rows = comparisons.map(({ task: { kind, prompt, answer }, sft, aligned }) => {
    return { kind, prompt, answer: answer.join(', '), sft, aligned }
  })
  await writeRows(paths.comparison, rows)
  return comparisons
}

function runOptions(
  { device, signal }: QuickstartOptions,
  display: Display,
  steps: number,
): RunOptions {
  return {
    ...(device && { device }),
    ...(signal && { signal }),
    onLog: ({ step = 0, loss }) => {
      if (loss !== undefined)
        display.update(step, steps, `${step}/${steps}  loss ${loss.toFixed(3)}`)
    },
  }
}

function completed(result: RunResult): RunResult {
  if (!result.stopped) return result
  throw new WestwindError(
    'ERR_ABORTED',
    'the quickstart was stopped; start it again from the beginning',
  )
}

async function writeRows(file: string, rows: readonly object[]): Promise<void> {
  await mkdir(join(file, '..'), { recursive: true })
  await atomicFile(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
}
