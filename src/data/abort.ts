import { WestwindError } from '../errors.js'

/** @throws ERR_ABORTED once the signal has fired */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw aborted()
}

export function aborted(): WestwindError {
  return new WestwindError('ERR_ABORTED', 'reading the data was stopped')
}
