import { setMaxListeners } from 'node:events'
import { WestwindError } from '../errors.js'

/** Events from one place to one reader, in order. The reader waits where there are none. */
export class EventQueue<T> {
  #events: T[] = []
  #end: { error?: unknown } | undefined
  #wake: (() => void) | undefined

  push(event: T): void {
    this.#events.push(event)
    this.#wake?.()
  }

  /** No more will come. An error reaches the reader before events that it has not taken yet. */
  end(error?: unknown): void {
    this.#end ??= error === undefined ? {} : { error }
    this.#wake?.()
  }

  /** @throws the error that it ended with; ERR_ABORTED at once when the signal fires */
  async *read(signal?: AbortSignal): AsyncGenerator<T, void> {
    const abort = () => this.end(stopped())
    if (signal?.aborted) abort()
    if (signal) setMaxListeners(0, signal) // many readers may share one
    signal?.addEventListener('abort', abort)
    try {
      while (true) {
        const events = this.#events
        this.#events = []
        for (const event of events) {
          this.#throwError()
          yield event
        }
        this.#throwError()
        if (this.#events.length > 0) continue
        if (this.#end) return
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    } finally {
      signal?.removeEventListener('abort', abort)
    }
  }

  #throwError(): void {
    if (this.#end && 'error' in this.#end) throw this.#end.error
  }
}

/** What ends a task whose signal fired. */
export function stopped(): WestwindError {
  return new WestwindError('ERR_ABORTED', 'generation was stopped')
}
