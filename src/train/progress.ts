import { type Check, callable, fields, flag, number, optional } from '../arguments.js'
import type { MetricsRecord } from './metrics.js'

/** The part of a writable stream that is used; `process.stderr` is one. */
export interface ProgressStream {
  write(text: string): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
  readonly isTTY?: boolean
  readonly columns?: number
}

export const checkProgressStream: Check<ProgressStream> = fields<ProgressStream>({
  write: callable(),
  on: callable(),
  isTTY: optional(flag),
  columns: optional(number),
})

export interface ProgressOptions {
  /** What is counted, in front of the line: `sft`, `dpo`, `reference log-probs`. */
  label: string
  total: number
  /** Units done before this process began, on a resumed run. Default 0. */
  done?: number
  stream: ProgressStream
  /** Milliseconds; a test's clock. Default `Date.now`. */
  now?: () => number
}

/** Streams whose errors are already swallowed: a reader that goes away (EPIPE) must not end a training run. */
const guarded = new WeakSet<ProgressStream>()

/**
 * Progress of a run: on a terminal one bar, redrawn, with log lines above it; elsewhere (a file, CI) one plain
 * line per {@link Progress.log}.
 */
export class Progress {
  readonly #options: ProgressOptions
  readonly #now: () => number
  readonly #begin: number
  readonly #first: number
  #done: number
  #summary = ''
  #drawnAt = Number.NEGATIVE_INFINITY

  constructor(options: ProgressOptions) {
    this.#options = options
    this.#now = options.now ?? Date.now
    this.#begin = this.#now()
    this.#first = options.done ?? 0
    this.#done = this.#first
    if (!guarded.has(options.stream)) {
      options.stream.on('error', () => {})
      guarded.add(options.stream)
    }
  }

  /** `done` units are finished. Redraws the bar at most ten times a second; prints nothing elsewhere. */
  update(done: number): void {
    this.#done = done
    if (!this.#options.stream.isTTY) return
    const now = this.#now()
    if (now - this.#drawnAt < 100 && done < this.#options.total) return
    this.#drawnAt = now
    this.#write(`\r\x1b[2K${this.#bar()}`)
  }

  /** A log line; its values also stay beside the bar. */
  log(record: MetricsRecord): void {
    this.#done = Math.max(this.#done, record.step)
    const text = summarize(record)
    if (!('eval_loss' in record)) this.#summary = text
    const { label, total, stream } = this.#options
    const eta = stream.isTTY ? '' : `  ETA ${this.#eta()}`
    this.note(`${label} ${record.step}/${total}  ${text}${eta}`)
  }

  /** A line of its own, for example where a checkpoint was written. */
  note(text: string): void {
    if (!this.#options.stream.isTTY) this.#write(`${text}\n`)
    else this.#write(`\r\x1b[2K${text}\n${this.#bar()}`)
  }

  /** Ends the bar's line. */
  close(): void {
    if (this.#options.stream.isTTY) this.#write(`\r\x1b[2K${this.#bar()}\n`)
  }

  #bar(): string {
    const { label, total, stream } = this.#options
    const width = 20
    const share = total > 0 ? Math.min(1, this.#done / total) : 1
    const filled = Math.round(share * width)
    const bar = '█'.repeat(filled) + '░'.repeat(width - filled)
    const percent = `${Math.floor(share * 100)}%`.padStart(4)
    const line = `${label} ${percent} ${bar} ${this.#done}/${total}  ETA ${this.#eta()}  ${this.#summary}`
    return line.slice(0, Math.max(20, (stream.columns ?? 80) - 1)) // a wrapped line could not be redrawn
  }

  #eta(): string {
    const units = this.#done - this.#first
    if (units <= 0) return '?'
    const left = (this.#options.total - this.#done) * ((this.#now() - this.#begin) / units)
    return formatDuration(left / 1000)
  }

  #write(text: string): void {
    try {
      this.#options.stream.write(text)
    } catch {
      // the reader is gone; the run and its metrics.jsonl go on
    }
  }
}

/** How often a line says how far something is that has no lines of its own, where there is no terminal. */
const lineEveryMs = 10_000

/** A callback `(done, total)` that shows a {@link Progress} from its first call to the last unit. */
export function progressOf(label: string, stream: ProgressStream | undefined) {
  let bar: Progress | undefined
  let written = Date.now()
  return (done: number, total: number): void => {
    if (!stream || total === 0) return
    bar ??= new Progress({ label, total, stream })
    bar.update(done)
    if (!stream.isTTY && Date.now() - written >= lineEveryMs) {
      written = Date.now()
      bar.note(`${label} ${done}/${total}`)
    }
    if (done >= total) bar.close()
  }
}

/** The values worth a line, in reading order, by their name in the record. */
const columns: [name: string, label: string, format: (x: number) => string][] = [
  ['loss', 'loss', fixed],
  ['eval_loss', 'eval loss', fixed],
  ['grad_norm', 'grad', fixed],
  ['learning_rate', 'lr', (x) => (x === 0 ? '0' : x.toExponential(2))],
  ['mean_token_accuracy', 'acc', fixed],
  ['eval_mean_token_accuracy', 'acc', fixed],
  ['rewards/accuracies', 'reward acc', fixed],
  ['eval_rewards/accuracies', 'reward acc', fixed],
  ['rewards/margins', 'margin', fixed],
  ['eval_rewards/margins', 'margin', fixed],
  ['tokens_per_second', 'tok/s', count],
  ['pairs_per_second', 'pairs/s', (x) => x.toFixed(2)],
  ['seconds_per_step', 's/step', (x) => x.toFixed(2)],
  ['mfu', 'MFU', (x) => `${(100 * x).toFixed(1)}%`],
  ['peak_memory_bytes', 'peak', (x) => `${(x / 2 ** 30).toFixed(2)} GiB`],
]

function summarize(record: MetricsRecord): string {
  return columns
    .filter(([name]) => name in record)
    .map(([name, label, format]) => `${label} ${format(record[name]!)}`)
    .join('  ')
}

function fixed(x: number): string {
  return Math.abs(x) >= 1000 ? x.toExponential(2) : x.toFixed(4)
}

function count(x: number): string {
  return Math.round(x).toLocaleString('en-US')
}

/** `1:02:03`, `2:03`; seconds rounded up, so that an ETA above zero never reads 0:00. */
export function formatDuration(seconds: number): string {
  const s = Math.max(0, Math.ceil(seconds))
  const pad = (n: number) => String(n).padStart(2, '0')
  const hours = Math.floor(s / 3600)
  const minutes = Math.floor(s / 60) % 60
  return hours > 0 ? `${hours}:${pad(minutes)}:${pad(s % 60)}` : `${minutes}:${pad(s % 60)}`
}
