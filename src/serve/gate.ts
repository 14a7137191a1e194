import { ApiError } from './errors.js'

/**
 * Lets so many sequences be computed at a time, the others wait in the order they came. A request asks for
 * its next place once it has the one before, so that a large one does not keep small ones waiting.
 */
export class Gate {
  readonly #places: number
  readonly #maxQueue: number
  readonly #waiting: (() => void)[] = []
  #active = 0

  /**
   * @param places sequences at a time
   * @param maxQueue requests that may wait for their first place
   */
  constructor(places: number, maxQueue: number) {
    this.#places = places
    this.#maxQueue = maxQueue
  }

  get active(): number {
    return this.#active
  }

  get waiting(): number {
    return this.#waiting.length
  }

  /**
   * Waits for a place. Whoever has it calls {@link leave}.
   *
   * @param first whether it is the first place of a request: only these are turned away
   * @throws 429 where the queue is full; the reason of the signal
   */
  async enter(signal: AbortSignal, first: boolean): Promise<void> {
    signal.throwIfAborted()
    if (this.#active < this.#places) {
      this.#active++
      return
    }
    if (first && this.#waiting.length >= this.#maxQueue) throw full(this.#waiting.length)
    await new Promise<void>((resolve, reject) => {
      const onPlace = () => {
        signal.removeEventListener('abort', onAbort)
        resolve()
      }
      const onAbort = () => {
        this.#waiting.splice(this.#waiting.indexOf(onPlace), 1)
        reject(signal.reason)
      }
      this.#waiting.push(onPlace)
      signal.addEventListener('abort', onAbort, { once: true })
    })
  }

  /** Gives a place back: to the next in the queue, if there is one. */
  leave(): void {
    const next = this.#waiting.shift()
    if (next) next()
    else this.#active--
  }
}

function full(waiting: number): ApiError {
  const message = `the server is busy: ${waiting} requests are waiting. Try again in a moment.`
  const headers = { 'retry-after': '1' }
  return new ApiError(429, message, { type: 'requests', code: 'rate_limit_exceeded', headers })
}
