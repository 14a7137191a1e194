import { formatDuration, type ProgressStream } from '../train/progress.js'

/** Progress in numbered phases: one line each when it is done, and on a terminal a bar while it runs. */
export class Display {
  readonly #stream: ProgressStream | undefined
  readonly #phases: number
  #phase = 0
  #name = ''
  #begin = 0

  constructor(stream: ProgressStream | undefined, phases: number) {
    this.#stream = stream
    this.#phases = phases
  }

  line(text: string): void {
    this.#stream?.write(`${text}\n`)
  }

  begin(name: string): void {
    this.#phase++
    this.#name = name
    this.#begin = performance.now()
    this.update(0, 1, '')
  }

  /** Redraws the bar of the running phase. */
  update(done: number, total: number, text: string): void {
    if (!this.#stream?.isTTY) return
    const filled = Math.round((20 * done) / total)
    const bar = '█'.repeat(filled) + '░'.repeat(20 - filled)
    const line = `${this.#head()} ${bar} ${text}`
    this.#stream.write(`\r\x1b[2K${line.slice(0, (this.#stream.columns ?? 80) - 1)}`)
  }

  end(text: string): void {
    const erase = this.#stream?.isTTY ? '\r\x1b[2K' : ''
    const took = formatDuration((performance.now() - this.#begin) / 1000)
    this.line(`${erase}${this.#head()} ${took.padStart(5)}  ${text}`)
  }

  #head(): string {
    return `[${this.#phase}/${this.#phases}] ${this.#name.padEnd(9)}`
  }
}
