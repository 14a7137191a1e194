import type { ProgressStream } from '../train/progress.js'
import { nothing, type Spent, showCost } from './budget.js'

/** Milliseconds between two lines: redrawn on a terminal, one below the other elsewhere. */
const terminalMs = 200
const plainMs = 10_000

export interface MeterOptions {
  /** What is counted: `generate`, `rate`. */
  label: string
  total: number
  /** Units that earlier runs finished. */
  done?: number
  stream: ProgressStream | undefined
  /** Milliseconds; a test's clock. */
  now?: () => number
}

/** The progress line of a step that asks endpoints: units, rate, tokens, cost, time left. */
export class Meter {
  readonly #options: MeterOptions
  readonly #now: () => number
  readonly #begin: number
  readonly #first: number
  #drawnAt: number
  #done: number

  constructor(options: MeterOptions) {
    this.#options = options
    this.#now = options.now ?? Date.now
    this.#begin = this.#now()
    this.#drawnAt = this.#begin
    this.#first = options.done ?? 0
    this.#done = this.#first
  }

  /** One unit more is finished. */
  tick(spent: Spent): void {
    this.#done++
    const { stream } = this.#options
    if (!stream || this.#now() - this.#drawnAt < (stream.isTTY ? terminalMs : plainMs)) return
    this.#drawnAt = this.#now()
    stream.write(stream.isTTY ? `\r\x1b[2K${this.line(spent)}` : `${this.line(spent)}\n`)
  }

  /** A remark, above the line. */
  note(text: string): void {
    const { stream } = this.#options
    stream?.write(stream.isTTY ? `\r\x1b[2K${text}\n` : `${text}\n`)
  }

  /** The last state, as a line that stays. */
  close(spent: Spent = nothing): void {
    this.note(this.line(spent))
  }

  /** `rate 120/500  3.1/s  45.2k + 8.0k tokens  $0.12  ETA 2m05s` */
  line(spent: Spent): string {
    const { label, total } = this.#options
    const seconds = Math.max((this.#now() - this.#begin) / 1000, 1e-3)
    const rate = (this.#done - this.#first) / seconds
    const left = total - this.#done
    const eta = left === 0 ? '' : `  ETA ${rate > 0 ? duration(left / rate) : '?'}`
    const tokens = `${short(spent.prompt_tokens)} + ${short(spent.completion_tokens)} tokens`
    const speed = rate >= 1 || rate === 0 ? `${rate.toFixed(1)}/s` : `${(rate * 60).toFixed(1)}/min`
    return `${label} ${this.#done}/${total}  ${speed}  ${tokens}  ${showCost(spent.cost)}${eta}`
  }
}

function short(n: number): string {
  if (n < 10_000) return String(n)
  return n < 1e6 ? `${(n / 1e3).toFixed(1)}k` : `${(n / 1e6).toFixed(2)}M`
}

function duration(seconds: number): string {
  const s = Math.ceil(seconds)
  if (s < 60) return `${s}s`
  if (s < 3600) return `${Math.floor(s / 60)}m${String(s % 60).padStart(2, '0')}s`
  return `${Math.floor(s / 3600)}h${String(Math.floor(s / 60) % 60).padStart(2, '0')}m`
}
