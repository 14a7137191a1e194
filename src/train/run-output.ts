import { basename, join } from 'node:path'
import { atomicFile } from '../checkpoint/atomic.js'
import { writeTrainerState } from '../checkpoint/training-state.js'
import type { DpoConfig, SftConfig } from '../recipe/config.js'
import { deviations, globalBatch } from '../recipe/deviations.js'
import { version } from '../version.js'
import { MetricsWriter } from './metrics.js'
import { modelCard } from './model-card.js'
import { Progress, type ProgressStream } from './progress.js'
import { saveResults, speedResults } from './report-files.js'
import { epochAt, type RunState, type Stage, saveModel, trainerState } from './run.js'
import { TensorBoardWriter } from './tensorboard.js'

export interface RunOutputOptions {
  /** Progress and notes for people; silent without. */
  stream?: ProgressStream | undefined
  /** Called with every line of `metrics.jsonl`. */
  onLog?: ((record: Record<string, number>) => void) | undefined
}

/** What a run tells and leaves: progress, `metrics.jsonl`, TensorBoard, results, model and card. */
export class RunOutput {
  readonly #config: SftConfig | DpoConfig
  readonly #options: RunOutputOptions
  readonly #metrics: MetricsWriter
  readonly #board: TensorBoardWriter | undefined
  #progress: Progress | undefined

  private constructor(
    config: SftConfig | DpoConfig,
    options: RunOutputOptions,
    metrics: MetricsWriter,
    board: TensorBoardWriter | undefined,
  ) {
    this.#config = config
    this.#options = options
    this.#metrics = metrics
    this.#board = board
  }

  /** Opens the files of a run in its folder; on resume they go on after `resumeStep`. */
  static async open(
    config: SftConfig | DpoConfig,
    resumeStep: number | undefined,
    options: RunOutputOptions,
  ): Promise<RunOutput> {
    const resume = resumeStep === undefined ? {} : { resumeStep }
    const metrics = await MetricsWriter.open(join(config.outputDir, 'metrics.jsonl'), resume)
    const wanted = config.reportTo.includes('tensorboard')
    const board = wanted
      ? await TensorBoardWriter.open(join(config.outputDir, 'runs'), resume)
      : undefined
    return new RunOutput(config, options, metrics, board)
  }

  /** One line for people. */
  note(text: string): void {
    if (this.#progress) this.#progress.note(text)
    else this.#options.stream?.write(`${text}\n`)
  }

  /** Begins the progress display of the optimizer steps. */
  begin(total: number, done: number): void {
    const { stream } = this.#options
    if (stream) this.#progress = new Progress({ label: this.#config.kind, total, done, stream })
  }

  progress(step: number): void {
    this.#progress?.update(step)
  }

  /** A line of training metrics. */
  async train(state: RunState, metrics: Record<string, number>, epoch: number): Promise<void> {
    await this.#write(state, metrics, epoch, 'train/')
  }

  /** A line of evaluation metrics; their names begin with `eval_`. */
  async evaluation(state: RunState, metrics: Record<string, number>, epoch: number): Promise<void> {
    await this.#write(state, metrics, epoch, '')
  }

  async #write(
    state: RunState,
    metrics: Record<string, number>,
    epoch: number,
    prefix: string,
  ): Promise<void> {
    const record = { step: state.step, epoch, ...metrics }
    state.history.push(record)
    await this.#metrics.write(record)
    const tags = Object.entries(metrics).map(([name, value]) => [
      prefix ? prefix + name : name.replace(/^eval_/, 'eval/'),
      value,
    ])
    await this.#board?.write(state.step, Object.fromEntries(tags))
    this.#progress?.log(record)
    this.#options.onLog?.(record)
  }

  /** Saves the model and everything that describes the run. */
  async finish(
    stage: Stage,
    state: RunState,
    run: { seconds: number; steps: number; evaluation?: Record<string, number>; testUnits: number },
  ): Promise<Record<string, number>> {
    const { outputDir } = this.#config
    await saveModel(outputDir, stage.model, stage.tokenizerFiles)
    const samples = Math.round(run.steps * globalBatch(this.#config))
    const results: Record<string, number> = {
      epoch: epochAt(stage, state.step),
      total_flos: state.flops,
      train_loss: state.lossSum / state.step,
      ...speedResults('train', { seconds: run.seconds, samples, steps: run.steps }),
    }
    await saveResults(outputDir, 'train', results)
    if (run.evaluation) {
      const seconds = run.evaluation.eval_runtime ?? 0
      const steps = Math.ceil(run.testUnits / this.#config.perDeviceEvalBatchSize)
      const speed = speedResults('eval', { seconds, samples: run.testUnits, steps })
      await saveResults(outputDir, 'eval', { ...run.evaluation, ...speed })
    }
    await writeTrainerState(outputDir, trainerState(stage, state))
    await atomicFile(join(outputDir, 'README.md'), this.#card(state, run.evaluation ?? results))
    return { ...results, ...run.evaluation }
  }

  #card(state: RunState, metrics: Record<string, number>): string {
    const config = this.#config
    return modelCard({
      name: basename(config.outputDir),
      stage: config.kind,
      ...(config.modelNameOrPath !== null && { baseModel: config.modelNameOrPath }),
      datasets: datasetNames(config),
      hyperparameters: hyperparameters(config),
      metrics,
      history: state.history,
      deviations: deviations(config),
      version,
    })
  }

  async close(): Promise<void> {
    this.#progress?.close()
    await this.#metrics.close()
    await this.#board?.close()
  }
}

function datasetNames({ data }: SftConfig | DpoConfig): string[] {
  if (data.kind === 'mixer') return data.sources.map(({ id }) => id)
  return data.kind === 'mixture' ? data.datasets.map(({ id }) => id) : [data.name]
}

function hyperparameters(config: SftConfig | DpoConfig): Record<string, string | number | null> {
  return {
    learning_rate: config.learningRate,
    lr_scheduler_type: config.lrSchedulerType,
    warmup_ratio: config.warmupRatio,
    per_device_train_batch_size: config.perDeviceTrainBatchSize,
    gradient_accumulation_steps: config.gradientAccumulationSteps,
    total_train_batch_size: globalBatch(config),
    num_train_epochs: config.numTrainEpochs,
    max_steps: config.maxSteps,
    optim: config.optim,
    weight_decay: config.weightDecay,
    max_grad_norm: config.maxGradNorm,
    max_length: config.maxLength,
    seed: config.seed,
    dtype: config.dtype,
    ...(config.kind === 'dpo' && { loss_type: config.lossType, beta: config.beta }),
  }
}
