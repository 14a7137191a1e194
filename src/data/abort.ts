import { setImmediate } from 'node:timers/promises'
import { WestwindError } from '../errors.js'

/** @throws ERR_ABORTED once the signal has fired */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw aborted()
}

export function aborted(): WestwindError {
  return new WestwindError('ERR_ABORTED', 'reading the data was stopped')
}

/** Between pieces of long work: other events have their turn, those of the signal too. @throws ERR_ABORTED */
export async function pause(signal: AbortSignal | undefined): Promise<void> {
  await setImmediate()
  throwIfAborted(signal)
}
