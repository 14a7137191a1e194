import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { ServedModel } from './models.js'

/** What a server tells Prometheus. */
export class Metrics {
  readonly registry = new Registry()
  readonly #requests = new Counter({
    name: 'westwind_requests_total',
    help: 'Answered requests by route and status; 499: the client went away before its answer.',
    labelNames: ['route', 'method', 'status'],
    registers: [this.registry],
  })
  readonly #aborted = new Counter({
    name: 'westwind_aborted_requests_total',
    help: 'Requests that ended before their answer: the client went, the time was up, the server stopped.',
    labelNames: ['reason'],
    registers: [this.registry],
  })
  readonly #promptTokens = new Counter({
    name: 'westwind_prompt_tokens_total',
    help: 'Tokens of prompts, those that were reused included.',
    labelNames: ['model'],
    registers: [this.registry],
  })
  readonly #generatedTokens = new Counter({
    name: 'westwind_generated_tokens_total',
    help: 'New tokens.',
    labelNames: ['model'],
    registers: [this.registry],
  })
  readonly #firstToken = new Histogram({
    name: 'westwind_time_to_first_token_seconds',
    help: 'From the arrival of a request to its first new token, the time in the queue included.',
    labelNames: ['model'],
    buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
    registers: [this.registry],
  })
  readonly #perToken = new Histogram({
    name: 'westwind_time_per_token_seconds',
    help: 'From one new token of a text to the next.',
    labelNames: ['model'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1],
    registers: [this.registry],
  })

  /** @param models those that are served by now, whenever it is asked for */
  constructor(models: () => readonly ServedModel[]) {
    const registers = [this.registry]
    const gauge = (name: string, help: string, read: (model: ServedModel) => number) =>
      new Gauge({
        name,
        help,
        labelNames: ['model'],
        registers,
        collect() {
          for (const model of models()) this.set({ model: model.id }, read(model))
        },
      })
    gauge('westwind_queue_length', 'Requests that wait for a place.', ({ gate }) => gate.waiting)
    gauge('westwind_active_sequences', 'Texts that are being made.', ({ gate }) => gate.active)
    new Counter({
      name: 'westwind_reused_tokens_total',
      help: 'Tokens of prompts that were in the cache and did not have to be computed.',
      labelNames: ['model'],
      registers,
      collect() {
        this.reset()
        for (const { id, engine } of models()) this.inc({ model: id }, engine.stats().reusedTokens)
      },
    })
    new Gauge({
      name: 'nodejs_heap_size_used_bytes',
      help: 'Memory of JavaScript objects.',
      registers,
      collect() {
        this.set(process.memoryUsage().heapUsed)
      },
    })
    new Gauge({
      name: 'process_resident_memory_bytes',
      help: 'Resident memory of the process.',
      registers,
      collect() {
        this.set(process.memoryUsage.rss())
      },
    })
  }

  answered(route: string, method: string, status: number): void {
    this.#requests.inc({ route, method, status })
  }

  aborted(reason: string): void {
    this.#aborted.inc({ reason })
  }

  /** Counts what one request computes. */
  tally(model: string): Tally {
    const begin = performance.now()
    let generated = 0
    return {
      prompt: (tokens) => this.#promptTokens.inc({ model }, tokens),
      token: (before) => {
        const now = performance.now()
        generated++
        this.#generatedTokens.inc({ model })
        if (generated === 1) this.#firstToken.observe({ model }, (now - begin) / 1000)
        if (before !== undefined) this.#perToken.observe({ model }, (now - before) / 1000)
        return now
      },
      get generated() {
        return generated
      },
    }
  }
}

export interface Tally {
  prompt(tokens: number): void
  /** A new token came; `before`: when the one before it of the same text came. Returns when this one did. */
  token(before: number | undefined): number
  /** New tokens so far. */
  readonly generated: number
}
