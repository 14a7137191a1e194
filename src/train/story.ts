import { access, constants, mkdir } from 'node:fs/promises'
import { abortSignal, type Check, callable, fields, optional, path, text } from '../arguments.js'
import type { DataStatistics } from '../data/statistics.js'
import { device as openDevice } from '../device/device.js'
import { WestwindError } from '../errors.js'
import { reason } from '../json.js'
import { loadModel, type Model } from '../model/model.js'
import type { DpoConfig, Recipe, SftConfig } from '../recipe/config.js'
import { deviations, globalBatch } from '../recipe/deviations.js'
import { presetLines } from '../recipe/presets.js'
import { isolated } from '../tensor/scope.js'
import { loadInitialModel, loadTextInputs, savedTokenizerFiles, type TextInputs } from './inputs.js'
import { Optimizer } from './optimizer.js'
import { peakFlops } from './peak.js'
import { profileLines, StepProfiler } from './profile.js'
import { checkProgressStream, type ProgressStream } from './progress.js'
import { findResumePoint, resumeSettings, takeUp } from './resume.js'
import {
  epochAt,
  microBatchesPerEpoch,
  newRunState,
  type RunState,
  runSteps,
  type Stage,
  timed,
  visitedUnits,
} from './run.js'
import { RunOutput } from './run-output.js'
import { recordEnd, recordStart } from './run-record.js'
import { planSteps, type StepPlan, warmupLength } from './schedule.js'
import type { StepOutcome } from './step.js'

export interface RunOptions {
  /** 'auto', 'cpu', 'cuda' or 'cuda:N'. */
  device?: string
  /** Finishes the step under way, saves a checkpoint and returns with `stopped`. */
  signal?: AbortSignal
  /** Progress and notes for people; silent without. */
  stream?: ProgressStream
  /** Every line of `metrics.jsonl`, as it is written. */
  onLog?: (record: Record<string, number>) => void
  /** A file for Chrome-trace events of steps 2 to 4 of this process, op by op; Perfetto shows it. */
  profile?: string
}

export const checkRunOptions: Check<RunOptions> = fields<RunOptions>({
  device: optional(text),
  signal: optional(abortSignal),
  stream: optional(checkProgressStream),
  onLog: optional(callable()),
  profile: optional(path),
})

export interface RunResult {
  outputDir: string
  /** Optimizer steps made in all, earlier runs included. */
  steps: number
  /** Stopped by the signal: resume goes on from the saved checkpoint. */
  stopped: boolean
  /** Final figures: what `all_results.json` has. */
  metrics: Record<string, number>
  /** All lines of `metrics.jsonl`. */
  history: Record<string, number>[]
}

/** What a stage brings to the common story. */
export interface StageInputs {
  /** Rows or pairs to train on and to evaluate on. */
  units: number
  testUnits: number
  /** Units that the learning rate is planned for, where it is not those. */
  scheduleUnits?: number
  unitName: string
  dataHash: string
  statistics: DataStatistics
  fromCache: boolean
  gradients: (model: Model, window: number[][]) => Promise<StepOutcome>
  evaluate: (model: Model) => Promise<Record<string, number>>
  /** Runs on the initial model before anything is trained (the reference's log-probs). */
  beforeTraining?: (initial: Model, context: BeforeTraining) => Promise<void>
}

export interface BeforeTraining {
  /** Units that the run trains on, ascending. */
  visited: Int32Array
  resumed: boolean
  note: (text: string) => void
}

/** A run from recipe to saved model: what dSFT and dDPO have in common, in order. */
export function trainStage<C extends SftConfig | DpoConfig>(
  recipe: Recipe<C>,
  options: RunOptions,
  prepare: (config: C, text: TextInputs, options: RunOptions) => Promise<StageInputs>,
): Promise<RunResult> {
  return isolated(async () => {
    const { config } = recipe
    const on = openDevice(options.device)
    const say = (line: string) => void options.stream?.write(`${line}\n`)
    for (const note of recipe.notes) say(`note: ${note}`)
    if (recipe.preset) for (const line of presetLines(recipe.preset)) say(line)
    await makeOutputDir(config.outputDir)
    const text = await loadTextInputs(config)
    const inputs = await prepare(config, text, options)
    if (inputs.units === 0)
      throw new WestwindError('ERR_DATA', `train: no ${inputs.unitName} left to train on`)
    const evaluates = inputs.testUnits > 0 && (config.doEval || config.evalStrategy !== 'no')
    const point = await findResumePoint(config, say)

    const plan = stepsOf(config, inputs.units)
    const planned = stepsOf(config, inputs.scheduleUnits ?? inputs.units)

    let model = await loadInitialModel(config, on, text.tokenizer)
    let optimizer: Optimizer | undefined
    let output: RunOutput | undefined
    try {
      await inputs.beforeTraining?.(model, {
        visited: visitedUnits({ config, units: inputs.units, plan }),
        resumed: point !== undefined,
        note: say,
      })
      if (point) {
        model.dispose()
        model = await loadModel(point.path, { device: on, dtype: model.dtype })
      }
      optimizer = new Optimizer(model, config)
      const { totalSteps } = plan
      const trained = model
      const stage: Stage = {
        config,
        model,
        optimizer,
        plan,
        units: inputs.units,
        schedule: {
          type: config.lrSchedulerType,
          learningRate: config.learningRate,
          warmupSteps: warmupLength(planned.totalSteps, config),
          totalSteps: planned.totalSteps,
        },
        gradients: (window) => inputs.gradients(trained, window),
        ...(evaluates && { evaluate: () => inputs.evaluate(trained) }),
        settings: resumeSettings(config, { data: inputs.dataHash }),
        tokenizerFiles: savedTokenizerFiles(text),
        peakFlops: await peakFlops(on, model.dtype),
      }
      const state = point ? await takeUp(stage, point) : newRunState()
      for (const line of startLines(stage, inputs, text, state.step)) say(line)
      const resumeStep = point && state.step
      output = await RunOutput.open(config, resumeStep, options)
      const { dataHash, statistics } = inputs
      const record = await recordStart(config.outputDir, {
        config,
        model,
        dataHash,
        statistics,
        resumeStep,
      })
      output.begin(totalSteps, state.step)
      on.resetPeak()
      const first = state.step
      const profiler = options.profile ? new StepProfiler(on, options.profile) : undefined
      const { stopped, seconds } = await runSteps(stage, state, output, {
        signal: options.signal,
        profiler,
      })
      for (const line of profileLines(await profiler?.finish())) output.note(line)
      const result = { outputDir: config.outputDir, steps: state.step, stopped }
      if (stopped) {
        output.note(
          `stopped after step ${state.step} of ${totalSteps}; --resume goes on from there`,
        )
        return { ...result, metrics: {}, history: state.history }
      }
      const evaluation = await finalEvaluation(stage, state, output)
      const run = { seconds, steps: state.step - first, testUnits: inputs.testUnits }
      const metrics = await output.finish(stage, state, {
        ...run,
        ...(evaluation && { evaluation }),
      })
      await recordEnd(config.outputDir, record, state.step)
      output.note(`saved ${config.outputDir}`)
      return { ...result, metrics, history: state.history }
    } finally {
      if (options.profile !== undefined) on.endTiming()
      await output?.close()
      optimizer?.dispose()
      model.dispose()
    }
  })
}

/** The optimizer steps that a recipe gives with so many rows or pairs. */
export function stepsOf(config: SftConfig | DpoConfig, units: number): StepPlan {
  return planSteps({
    microBatchesPerEpoch: microBatchesPerEpoch(units, config),
    accumulation: config.gradientAccumulationSteps,
    epochs: config.numTrainEpochs,
    maxSteps: config.maxSteps,
  })
}

/** First of all, so that hours of work do not end at a folder that cannot be written. */
async function makeOutputDir(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true })
    await access(path, constants.W_OK)
  } catch (cause) {
    throw new WestwindError(
      'ERR_CONFIG',
      `output_dir: ${path} is not a folder that can be written: ${reason(cause)}`,
      { cause },
    )
  }
}

/** Metrics of the trained model on the test split: those of the last step where it was evaluated there. */
async function finalEvaluation(
  stage: Stage,
  state: RunState,
  output: RunOutput,
): Promise<Record<string, number> | undefined> {
  if (!stage.evaluate || !stage.config.doEval) return undefined
  const logged = state.history.findLast(({ step, eval_loss }) => {
    return step === state.step && eval_loss !== undefined
  })
  if (logged) {
    return Object.fromEntries(Object.entries(logged).filter(([name]) => name.startsWith('eval_')))
  }
  const evaluation = await timed(stage.evaluate)
  await output.evaluation(state, evaluation, epochAt(stage, state.step))
  return evaluation
}

/** What a run says before it starts: exact steps, tokens, batch, and how it differs from the paper. */
function startLines(stage: Stage, inputs: StageInputs, text: TextInputs, done: number): string[] {
  const { config, plan, model } = stage
  const { statistics } = inputs
  const perEpoch = inputs.units
  const dropped = Object.entries(statistics.dropped).map(([why, n]) => `${n} ${why}`)
  const lines = [
    `model: ${model.config.architecture}, ${(model.parameterCount / 1e6).toFixed(1)} M parameters, ${model.dtype} on ${model.device} (${model.device.description})`,
    `template: ${text.templateFrom}`,
    `data: ${statistics.rows} rows, ${statistics.examples} examples, ${perEpoch} ${inputs.unitName}, ${statistics.tokens} tokens${
      inputs.fromCache ? ' (from cache)' : ''
    }${dropped.length > 0 ? `; dropped: ${dropped.join(', ')}` : ''}; ${statistics.truncated} truncated`,
    `steps: ${plan.totalSteps} (${plan.stepsPerEpoch} per epoch), global batch ${globalBatch(config)} = ${config.perDeviceTrainBatchSize} x ${config.gradientAccumulationSteps} accumulated, warm-up ${stage.schedule.warmupSteps}`,
  ]
  if (done > 0) lines.push(`resumed at step ${done}`)
  for (const line of deviations(config, { examples: perEpoch })) {
    lines.push(`differs from the paper: ${line}`)
  }
  return lines
}
