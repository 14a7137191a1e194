import { type FileHandle, open, readFile } from 'node:fs/promises'
import { atomicFile } from '../checkpoint/atomic.js'
import { WestwindError } from '../errors.js'
import { isRecord } from '../json.js'

/** One line of `metrics.jsonl`: values under TRL's names, always with the optimizer step they belong to. */
export interface MetricsRecord {
  step: number
  [name: string]: number
}

/** What one optimizer step adds to the log beside its micro-batches. */
export interface StepValues {
  /** SFT: sum of the micro-batches' shares (a token mean). DPO: mean of the micro-batch means. */
  loss: number
  /** Global L2 norm before clipping. */
  gradNorm: number
  learningRate: number
  /** Running total of non-padding input tokens since the start of the run. */
  numTokens: number
}

/** What a checkpoint keeps of a window that is still open, so that a resumed run logs the same averages. */
export interface LogWindowState {
  lossSum: number
  steps: number
  micro: Record<string, { sum: number; count: number }>
}

/**
 * Averages between two log lines, as transformers and TRL take them: `loss` is the mean over steps; `grad_norm`,
 * `learning_rate` and `num_tokens` are the last step's; everything else is the plain mean over micro-batches.
 */
export class LogWindow {
  #lossSum: number
  #steps: number
  readonly #micro: Map<string, { sum: number; count: number }>
  #last: StepValues | undefined

  constructor(state?: LogWindowState) {
    this.#lossSum = state?.lossSum ?? 0
    this.#steps = state?.steps ?? 0
    this.#micro = new Map(
      Object.entries(state?.micro ?? {}).map(([name, mean]) => [name, { ...mean }]),
    )
  }

  /** Metrics of one micro-batch, for example `rewards/margins`. */
  addMicroBatch(values: Record<string, number>): void {
    for (const [name, value] of Object.entries(values)) {
      const mean = this.#micro.get(name) ?? { sum: 0, count: 0 }
      mean.sum += value
      mean.count += 1
      this.#micro.set(name, mean)
    }
  }

  addStep(values: StepValues): void {
    this.#lossSum += values.loss
    this.#steps += 1
    this.#last = values
  }

  /** The averages since the last call, in TRL's order of names; the window starts anew. */
  take(): Record<string, number> {
    if (!this.#last)
      throw new WestwindError('ERR_INVALID_ARG', 'LogWindow.take: no step since the last call')
    const record: Record<string, number> = {
      loss: this.#lossSum / this.#steps,
      grad_norm: this.#last.gradNorm,
      learning_rate: this.#last.learningRate,
      num_tokens: this.#last.numTokens,
    }
    for (const [name, mean] of this.#micro) record[name] = mean.sum / mean.count
    this.#lossSum = 0
    this.#steps = 0
    this.#micro.clear()
    this.#last = undefined
    return record
  }

  state(): LogWindowState {
    return {
      lossSum: this.#lossSum,
      steps: this.#steps,
      micro: Object.fromEntries([...this.#micro].map(([name, mean]) => [name, { ...mean }])),
    }
  }
}

/**
 * Appends to `metrics.jsonl`. Lines of one step must be written before the checkpoint of that step, so that a resumed
 * run neither misses nor repeats them.
 */
export class MetricsWriter {
  readonly #file: FileHandle

  private constructor(file: FileHandle) {
    this.#file = file
  }

  /**
   * Opens `path` for a new run (existing content is dropped), or to go on after `resumeStep`: later lines and a
   * line torn by a crash are dropped first.
   */
  static async open(path: string, options: { resumeStep?: number } = {}): Promise<MetricsWriter> {
    const { resumeStep } = options
    const kept =
      resumeStep === undefined ? [] : (await readMetrics(path)).filter((r) => r.step <= resumeStep)
    await atomicFile(path, kept.map((record) => `${JSON.stringify(record)}\n`).join(''))
    return new MetricsWriter(await open(path, 'a'))
  }

  async write(record: MetricsRecord): Promise<void> {
    await this.#file.appendFile(`${JSON.stringify(record)}\n`)
  }

  async close(): Promise<void> {
    await this.#file.close()
  }
}

/**
 * The records of a `metrics.jsonl`, in order; none if the file does not exist. A last line without an end, as a
 * crash leaves it, is not a record.
 *
 * @throws ERR_DATA where another line is not a JSON object with a numeric `step`
 */
export async function readMetrics(path: string): Promise<MetricsRecord[]> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return []
    throw cause
  }
  const lines = text.split('\n')
  lines.pop() // after the last line feed: empty, or torn
  return lines.map((line, i) => {
    const record = parseRecord(line)
    if (record === undefined)
      throw new WestwindError(
        'ERR_DATA',
        `${path}:${i + 1}: expected a JSON object with a numeric "step", got ${line.slice(0, 80)}`,
      )
    return record
  })
}

function parseRecord(line: string): MetricsRecord | undefined {
  try {
    const value: unknown = JSON.parse(line)
    return isMetricsRecord(value) ? value : undefined
  } catch {
    return undefined // readMetrics names file and line
  }
}

function isMetricsRecord(value: unknown): value is MetricsRecord {
  return isRecord(value) && Number.isInteger(value.step)
}
