import { setImmediate } from 'node:timers/promises'
import { throwIfAborted } from '../data/abort.js'

/** Runs of at most 1,000 items; between them the event loop has its turn, and a signal is heard. */
export async function* inTurns<T>(
  items: readonly T[],
  signal: AbortSignal | undefined,
): AsyncGenerator<readonly T[]> {
  for (let start = 0; start < items.length; start += 1000) {
    await setImmediate()
    throwIfAborted(signal)
    yield items.slice(start, start + 1000)
  }
}
