import type { FastifyReply, FastifyRequest } from 'fastify'
import { ApiError, clientGone, unavailable } from './errors.js'
import { Metrics } from './metrics.js'
import type { ServedModel } from './models.js'

/** A request while it is worked on. */
export interface Work {
  /** Ends the work with a reason, an {@link ApiError}. */
  readonly controller: AbortController
  /** More for its line in the log. */
  describe?: () => object
  /** What it was answered with, where that was an error. */
  error?: ApiError
}

/** Time for an answer that was cut short to reach its client. */
const kLastWordsMs = 2000

/** What a server is doing: its models and the requests under way. */
export class Serving {
  models: readonly ServedModel[] = []
  state: 'loading' | 'ready' | 'closing' = 'loading'
  readonly metrics = new Metrics(() => this.models)
  readonly #requestTimeoutMs: number
  readonly #running = new Map<FastifyRequest, Work>()
  #onIdle: (() => void) | undefined

  constructor(requestTimeoutMs: number) {
    this.#requestTimeoutMs = requestTimeoutMs
  }

  /** Watches over a request until its answer is out, its client is gone or its time is up. */
  begin(request: FastifyRequest, reply: FastifyReply): void {
    const begin = performance.now()
    const work: Work = { controller: new AbortController() }
    this.#running.set(request, work)
    const timer = setTimeout(
      () => this.#end(work, timedOut(this.#requestTimeoutMs)),
      this.#requestTimeoutMs,
    )
    const last = setTimeout(() => reply.raw.destroy(), this.#requestTimeoutMs + kLastWordsMs)
    reply.raw.once('close', () => {
      clearTimeout(timer)
      clearTimeout(last)
      const { method, url } = request
      const whole = reply.raw.writableFinished
      if (!whole) this.#end(work, clientGone())
      const status = whole ? reply.statusCode : 499
      const ms = Math.round(performance.now() - begin)
      const error = work.error && { error: work.error.code ?? work.error.type }
      request.log.info({ method, url, status, ms, ...error, ...work.describe?.() }, 'answered')
      this.metrics.answered(request.routeOptions.url ?? 'unknown', method, status)
      this.#running.delete(request)
      if (this.#running.size === 0) this.#onIdle?.()
    })
  }

  workOf(request: FastifyRequest): Work {
    const work = this.#running.get(request)
    if (!work) throw clientGone()
    return work
  }

  /** Waits until no request is under way, at most so long; then those that are left are ended. */
  async drain(timeoutMs: number): Promise<void> {
    this.state = 'closing'
    if (await this.#idle(timeoutMs)) return
    for (const work of this.#running.values()) this.#end(work, closing())
    await this.#idle(kLastWordsMs)
  }

  #end(work: Work, reason: ApiError): void {
    if (work.controller.signal.aborted) return
    this.metrics.aborted(reason.code ?? 'error')
    work.controller.abort(reason)
  }

  #idle(timeoutMs: number): Promise<boolean> {
    if (this.#running.size === 0) return Promise.resolve(true)
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), timeoutMs)
      this.#onIdle = () => {
        clearTimeout(timer)
        resolve(true)
      }
    })
  }
}

export function closing(): ApiError {
  return unavailable('the server is shutting down', 'shutting_down', 5)
}

function timedOut(ms: number): ApiError {
  // OpenAI's clients repeat a 408 unless told not to: it would take as long again.
  const headers = { 'x-should-retry': 'false' }
  const message = `the answer took longer than ${ms / 1000} s and was stopped`
  return new ApiError(408, message, { code: 'timeout', headers })
}
