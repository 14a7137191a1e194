import { inspect } from 'node:util'

/** What went wrong, for programs; the message says it for people. */
export type ErrorCode =
  | 'ERR_INVALID_ARG' // a wrong value, shape, dtype or option
  | 'ERR_DISPOSED' // use of a tensor, model or device after dispose()
  | 'ERR_DEVICE' // the device is missing or failed
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_NATIVE' // the native addon could not be loaded
  | 'ERR_UNSUPPORTED' // known, and not supported here
  | 'ERR_CONFIG' // a recipe or model config that is wrong
  | 'ERR_CHECKPOINT' // a checkpoint that is missing, incomplete or damaged
  | 'ERR_DATA' // a data set that is missing, malformed or empty
  | 'ERR_TOKENIZER' // tokenizer files or a chat template that is wrong
  | 'ERR_NON_FINITE' // NaN or infinity in a loss or gradient
  | 'ERR_REFERENCE' // policy and reference differ before step 1
  | 'ERR_NETWORK' // a download or a request failed, or is not possible offline
  | 'ERR_TEACHER' // an endpoint refuses requests: a wrong key, model or setting
  | 'ERR_REFUSED' // an endpoint refuses this one request: it is too long, or against its policy
  | 'ERR_BUDGET' // the next request would pass the budget
  | 'ERR_JOURNAL' // a journal that is damaged, or in use by another process
  | 'ERR_ABORTED' // stopped by an AbortSignal or a signal

/** The one error class of westwind. `code` is stable; the message says what was expected, what came, what to do. */
export class WestwindError extends Error {
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    if (typeof code !== 'string') refuse('WestwindError: code', 'a string', code)
    if (typeof message !== 'string') refuse('WestwindError: message', 'a string', message)
    if (!holdsCause(options)) refuse('WestwindError: options', 'an object', options)
    super(message, options)
    this.name = 'WestwindError'
    this.code = code
  }
}

function holdsCause(options: object | undefined): boolean {
  try {
    return options === undefined || 'cause' in options || true
  } catch {
    return false // no object, or a proxy that was revoked
  }
}

/** @throws ERR_INVALID_ARG: what `where` names must be something else than what came */
export function refuse(where: string, expected: string, got: unknown): never {
  throw new WestwindError('ERR_INVALID_ARG', `${where} must be ${expected}, got ${show(got)}`)
}

/** Whatever came instead of what was expected, in a few words; strings stay as they are. */
export function show(value: unknown): string {
  if (typeof value === 'string') return shortened(value)
  try {
    return shortened(inspect(value, { depth: 1, breakLength: Number.POSITIVE_INFINITY }))
  } catch {
    return `something of type ${typeof value} that cannot be shown` // it has an inspect of its own
  }
}

function shortened(text: string): string {
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}
