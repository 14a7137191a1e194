import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { atomicFile } from '../checkpoint/atomic.js'
import { readTrainerState } from '../checkpoint/training-state.js'
import { readRows } from '../data/read-rows.js'
import { tokenizerFromFiles } from '../data/tokenizer/tokenizer.js'
import { device as openDevice } from '../device/device.js'
import { WestwindError } from '../errors.js'
import { readJsonObject } from '../json.js'
import { loadModel } from '../model/model.js'
import { zephyr } from '../pipeline/zephyr.js'
import type { ProgressStream } from '../train/progress.js'
import { type Comparison, meansOf, outcomeOf } from './compare.js'
import { dialogues, tasksOf } from './data.js'
import { Display } from './display.js'
import { seeded } from './random.js'
import { dpoRecipe, type Layout, layout, pipelineYaml, sftRecipe } from './recipes.js'
import { closingLines, type Report, reportHtml } from './report.js'
import { type Answer, answers } from './sampling.js'
import { fullSizes, type Sizes } from './sizes.js'
import type { Task } from './tasks.js'
import { scoreOf, serveTeacher } from './teacher-server.js'
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
const streams = { dialogues: 0, testDialogues: 1, prompts: 2, held: 5 }

/** Of most chat programs. */
const comparisonTemperature = 0.7

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

  const { tuned, aligned, pairs } = await runPipeline(paths, vocabSize, sizes, options, display)
  const rewardAccuracy = aligned.metrics['eval_rewards/accuracies']!

  display.begin('compare')
  const comparisons = await compare(paths, sizes, seed, options)
  const outcome = outcomeOf(comparisons)
  display.end(
    `${comparisons.length} held-out prompts: ${outcome.wins} wins, ${outcome.ties} ties, ${outcome.losses} losses`,
  )

  const report: Report = {
    ...outcome,
    evalPrompts: comparisons.length,
    sftLoss: tuned.metrics.eval_loss!,
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

/** dSFT, feedback and dDPO, as `westwind zephyr` runs them, with the teacher that they need. */
async function runPipeline(
  paths: Layout,
  vocabSize: number,
  sizes: Sizes,
  options: QuickstartOptions,
  display: Display,
): Promise<{ tuned: Run; aligned: Run; pairs: number }> {
  const { seed = 42 } = options
  const { answers, prompts, testPrompts } = sizes.feedback
  const tasks = await makePrompts(paths, sizes, seed)
  const teacher = await serveTeacher(tasks)
  try {
    await atomicFile(paths.sftRecipe, sftRecipe(paths, vocabSize, sizes, seed))
    await atomicFile(paths.dpoRecipe, dpoRecipe(paths, sizes, seed))
    await atomicFile(paths.pipeline, pipelineYaml(paths, sizes, seed, teacher.url))

    display.begin('dSFT')
    await runUntil('sft', paths, options, display, sizes.sft.steps)
    const tuned = await readRun(paths.sft)
    const loss = tuned.metrics.eval_loss!.toFixed(3)
    display.end(`${tuned.steps} steps, loss on held-out dialogues ${loss}`)

    display.begin('feedback')
    await runUntil('binarize', paths, options, display, 1)
    const mean = (await meanScore(paths.ratings)).toFixed(1)
    const pairs = (await readRows(join(paths.pairs, 'train_prefs.jsonl'))).length
    display.end(
      `${answers} answers to each of ${prompts + testPrompts} prompts, mean score ${mean} of 10; ${pairs} pairs`,
    )

    display.begin('dDPO')
    const steps = Math.ceil(pairs / sizes.dpo.pairs) * sizes.dpo.epochs
    await runUntil('dpo', paths, options, display, steps)
    const aligned = await readRun(paths.dpo)
    const accuracy = (100 * aligned.metrics['eval_rewards/accuracies']!).toFixed(1)
    display.end(`${aligned.steps} steps, reward accuracy on held-out pairs ${accuracy} %`)
    return { tuned, aligned, pairs }
  } finally {
    await teacher.close()
  }
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

/** Writes the prompts of the feedback; returns what each asks for. */
async function makePrompts(paths: Layout, sizes: Sizes, seed: number): Promise<Task[]> {
  const { prompts, testPrompts } = sizes.feedback
  const tasks = tasksOf('preferences', prompts + testPrompts, seeded(seed, streams.prompts))
  const rows = tasks.map(({ prompt }) => ({ prompt, source: 'quickstart' }))
  await writeRows(join(paths.prompts, 'train.jsonl'), rows)
  return tasks
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
      temperature: comparisonTemperature,
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

/** Runs the pipeline up to a stage; what is there already is skipped. */
async function runUntil(
  until: string,
  { pipeline }: Layout,
  { device, signal }: QuickstartOptions,
  display: Display,
  steps: number,
): Promise<void> {
  const { stopped } = await zephyr({
    pipeline,
    until,
    ...(device && { device }),
    ...(signal && { signal }),
    onLog: ({ step = 0, loss }) => {
      if (loss !== undefined)
        display.update(step, steps, `${step}/${steps}  loss ${loss.toFixed(3)}`)
    },
  })
  if (!stopped) return
  const message = 'the quickstart was stopped; the same command goes on from there'
  throw new WestwindError('ERR_ABORTED', message)
}

/** What a training stage left of its course. */
interface Run {
  steps: number
  metrics: Record<string, number>
  history: Record<string, number>[]
}

async function readRun(dir: string): Promise<Run> {
  const { global_step: steps, log_history: history } = await readTrainerState(dir)
  const numbers = z.record(z.string(), z.number())
  const metrics = numbers.parse(await readJsonObject(join(dir, 'all_results.json'), 'ERR_DATA'))
  return { steps, metrics, history: z.array(numbers).parse(history) }
}

const rated = z.object({ completions: z.array(z.object({ overall_score: z.number() })) })

async function meanScore(file: string): Promise<number> {
  const scores = (await readRows(file)).flatMap((row) =>
    rated.parse(row).completions.map(({ overall_score }) => scoreOf(overall_score)),
  )
  return scores.reduce((sum, score) => sum + score, 0) / scores.length
}

async function writeRows(file: string, rows: readonly object[]): Promise<void> {
  await mkdir(join(file, '..'), { recursive: true })
  await atomicFile(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
}
