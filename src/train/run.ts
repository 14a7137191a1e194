import { join } from 'node:path'
import { type Check, path, recordOf, text } from '../arguments.js'
import { atomicDirectory } from '../checkpoint/atomic.js'
import { checkpointPath, pruneCheckpoints } from '../checkpoint/list.js'
import { saveModelDir } from '../checkpoint/save.js'
import {
  optimizerFile,
  type ResumeSettings,
  type TrainerState,
  writeTrainerState,
} from '../checkpoint/training-state.js'
import { epochOrder } from '../data/order.js'
import { checkModel, type Model } from '../model/model.js'
import type { DpoConfig, SftConfig } from '../recipe/config.js'
import { globalNorm, gradientSquares, stopNonFinite } from './diagnose.js'
import { LogWindow } from './metrics.js'
import { Throughput } from './mfu.js'
import type { Optimizer } from './optimizer.js'
import { profileLines, type StepProfiler } from './profile.js'
import type { RunOutput } from './run-output.js'
import { lrAt, type Schedule, type StepPlan } from './schedule.js'
import type { StepOutcome } from './step.js'

/** What differs between the stages: how a step's gradients come about, and how to evaluate. */
export interface Stage {
  config: SftConfig | DpoConfig
  model: Model
  optimizer: Optimizer
  /** Training units: rows or pairs. */
  units: number
  schedule: Schedule
  plan: StepPlan
  /** Adds the gradients of a window of micro-batches, each a list of unit indices. */
  gradients(window: number[][]): Promise<StepOutcome>
  /** Metrics on the test split, without prefix; undefined where nothing is evaluated. */
  evaluate?: () => Promise<Record<string, number>>
  /** What decides the computation: a checkpoint is resumed only with the same. */
  settings: ResumeSettings
  /** Saved beside the weights. */
  tokenizerFiles: Record<string, string>
  /** FLOP/s for `mfu`. */
  peakFlops: number
}

/** Where a run stands: all that a checkpoint keeps beside weights and optimizer. */
export interface RunState {
  step: number
  numTokens: number
  flops: number
  /** Of the losses of all steps. */
  lossSum: number
  window: LogWindow
  history: Record<string, number>[]
}

export function newRunState(): RunState {
  return { step: 0, numTokens: 0, flops: 0, lossSum: 0, window: new LogWindow(), history: [] }
}

/**
 * The optimizer steps of a run, from `state.step` to the end of the plan or to the abort: gradients, the
 * update, then log, evaluation and checkpoint when they are due.
 *
 * @returns whether it was stopped by the signal, after finishing and saving the step it was in
 */
export async function runSteps(
  stage: Stage,
  state: RunState,
  output: RunOutput,
  { signal, profiler }: { signal?: AbortSignal | undefined; profiler?: StepProfiler | undefined },
): Promise<{ stopped: boolean; seconds: number }> {
  const { config, model, optimizer, plan } = stage
  const throughput = new Throughput(stage.peakFlops)
  const begin = performance.now()
  let saved = state.step
  let order: Int32Array | undefined
  while (state.step < plan.totalSteps) {
    if (signal?.aborted) {
      if (saved !== state.step) await saveCheckpoint(stage, state)
      return { stopped: true, seconds: (performance.now() - begin) / 1000 }
    }
    await profiler?.begin()
    const started = performance.now()
    if (order === undefined || state.step % plan.stepsPerEpoch === 0) {
      order = orderOf(stage, Math.floor(state.step / plan.stepsPerEpoch))
    }
    const window = windowOf(stage, order, state.step)
    const outcome = await stage.gradients(window)
    const squares = await gradientSquares(model)
    const gradNorm = globalNorm(squares)
    if (!Number.isFinite(outcome.loss) || !Number.isFinite(gradNorm)) {
      await stopNonFinite(model, state.step + 1, outcome, squares, (m) =>
        stage.gradients([window[m]!]),
      )
    }
    const lr = lrAt(stage.schedule, state.step)
    optimizer.step(lr, clipScale(gradNorm, config.maxGradNorm))
    for (const parameter of model.parameters.list) parameter.freeGrad()
    for (const line of profileLines(await profiler?.end())) output.note(line)

    state.step += 1
    state.numTokens += outcome.tokens
    state.flops += outcome.flops
    state.lossSum += outcome.loss
    for (const metrics of outcome.micro) state.window.addMicroBatch(metrics)
    const { loss, tokens, flops, pairs } = outcome
    state.window.addStep({ loss, gradNorm, learningRate: lr, numTokens: state.numTokens })
    throughput.addStep({ seconds: (performance.now() - started) / 1000, tokens, flops, pairs })
    output.progress(state.step)

    if (
      isDue(config.loggingStrategy, config.loggingSteps, state.step, plan, config.loggingFirstStep)
    ) {
      const peak = { peak_memory_bytes: model.device.stats().peakBytes }
      await output.train(
        state,
        { ...state.window.take(), ...throughput.take(), ...peak },
        epochAt(stage, state.step),
      )
    }
    if (stage.evaluate && isDue(config.evalStrategy, config.evalSteps, state.step, plan)) {
      await output.evaluation(state, await timed(stage.evaluate), epochAt(stage, state.step))
    }
    if (isDue(config.saveStrategy, config.saveSteps, state.step, plan)) {
      await saveCheckpoint(stage, state)
      saved = state.step
    }
  }
  return { stopped: false, seconds: (performance.now() - begin) / 1000 }
}

/** Evaluation metrics under their logged names, with its run time. */
export async function timed(
  evaluate: () => Promise<Record<string, number>>,
): Promise<Record<string, number>> {
  const begin = performance.now()
  const metrics = await evaluate()
  const named = Object.entries(metrics).map(([name, value]) => [`eval_${name}`, value] as const)
  return { ...Object.fromEntries(named), eval_runtime: (performance.now() - begin) / 1000 }
}

/** The units in the order in which an epoch visits them: a pure function of epoch and seed. */
function orderOf({ config, units }: Pick<Stage, 'config' | 'units'>, epoch: number): Int32Array {
  return epochOrder(units, config.dataSeed, epoch, config.trainSamplingStrategy)
}

/** The micro-batches of an optimizer step, as unit indices. */
function windowOf({ config, units, plan }: Stage, order: Int32Array, step: number): number[][] {
  const size = config.perDeviceTrainBatchSize
  const count = microBatchesPerEpoch(units, config)
  const first = (step % plan.stepsPerEpoch) * config.gradientAccumulationSteps
  const last = Math.min(first + config.gradientAccumulationSteps, count)
  return Array.from({ length: last - first }, (_, m) => [
    ...order.subarray((first + m) * size, (first + m + 1) * size),
  ])
}

/** The units that a run trains on, ascending: all of them unless it ends within its first epoch. */
export function visitedUnits(stage: Pick<Stage, 'config' | 'units' | 'plan'>): Int32Array {
  const { config, units, plan } = stage
  const order = orderOf(stage, 0)
  const wholeEpoch = plan.totalSteps >= plan.stepsPerEpoch
  const count = plan.totalSteps * config.gradientAccumulationSteps * config.perDeviceTrainBatchSize
  return order.slice(0, wholeEpoch ? units : count).sort()
}

/** Micro-batches of an epoch; a short last one counts unless it is left out. */
export function microBatchesPerEpoch(units: number, config: SftConfig | DpoConfig): number {
  const whole = units / config.perDeviceTrainBatchSize
  return config.dataloaderDropLast ? Math.floor(whole) : Math.ceil(whole)
}

/** Epochs done after a step, a fraction. */
export function epochAt({ plan }: Stage, step: number): number {
  return step / plan.stepsPerEpoch
}

function isDue(
  strategy: 'no' | 'steps' | 'epoch',
  every: number,
  step: number,
  plan: StepPlan,
  first = false,
): boolean {
  if (strategy === 'no') return false
  if (strategy === 'epoch') return step % plan.stepsPerEpoch === 0 || step === plan.totalSteps
  return step % every === 0 || (first && step === 1)
}

/** torch's clip_grad_norm_: `min(1, max / (norm + 1e-6))`; a maximum of 0 does not clip. */
function clipScale(norm: number, max: number): number {
  return max > 0 ? Math.min(1, max / (norm + 1e-6)) : 1
}

/** Writes `checkpoint-<step>/`, whole or not at all, and deletes the oldest above the limit. */
export async function saveCheckpoint(stage: Stage, state: RunState): Promise<void> {
  const { config, optimizer } = stage
  await atomicDirectory(checkpointPath(config.outputDir, state.step), async (dir) => {
    await saveModel(dir, stage.model, stage.tokenizerFiles)
    await optimizer.save(join(dir, optimizerFile))
    await writeTrainerState(dir, trainerState(stage, state))
  })
  await pruneCheckpoints(config.outputDir, config.saveTotalLimit ?? undefined)
}

const checkFiles: Check<Record<string, string>> = recordOf(text)

/** Saves a model in the Hugging Face layout, in its own dtype. */
export async function saveModel(
  dir: string,
  model: Model,
  tokenizerFiles: Record<string, string>,
): Promise<void> {
  path(dir, 'saveModel: dir')
  checkModel(model, 'saveModel: model')
  checkFiles(tokenizerFiles, 'saveModel: tokenizerFiles')
  const dtype = model.dtype === 'f32' ? 'F32' : 'BF16'
  const parameters = model.parameters.list.flatMap(({ spec, weight }) =>
    spec.parts.map((part) => ({
      hfName: part.hfName,
      dtype: dtype as 'F32' | 'BF16',
      shape: part.shape,
      bytes: async () => {
        using rows = weight.rows(part.rowStart, part.rows)
        return await rows.readBytes()
      },
    })),
  )
  await saveModelDir(dir, { config: model.config, tokenizerFiles, parameters })
}

export function trainerState(stage: Stage, state: RunState): TrainerState {
  const { config, plan } = stage
  const { step } = state
  const inEpoch = step % plan.stepsPerEpoch
  return {
    epoch: epochAt(stage, step),
    global_step: step,
    max_steps: plan.totalSteps,
    num_train_epochs: plan.epochs,
    logging_steps: config.loggingSteps,
    eval_steps: config.evalStrategy === 'steps' ? config.evalSteps : null,
    save_steps: config.saveSteps,
    train_batch_size: config.perDeviceTrainBatchSize,
    num_input_tokens_seen: state.numTokens,
    total_flos: state.flops,
    best_metric: null,
    best_global_step: null,
    best_model_checkpoint: null,
    log_history: state.history,
    westwind: {
      version: 1,
      stage: config.kind,
      position: {
        epoch: Math.floor(step / plan.stepsPerEpoch),
        microBatch: inEpoch * config.gradientAccumulationSteps,
      },
      optimizerStep: stage.optimizer.steps,
      settings: stage.settings,
      lossSum: state.lossSum,
      logWindow: state.window.state(),
    },
  }
}
