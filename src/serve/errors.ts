import { WestwindError } from '../errors.js'
import { reason } from '../json.js'

/** An answer that is an error, in OpenAI's shape. */
export class ApiError extends Error {
  readonly status: number
  readonly type: string
  /** Which field of the request. */
  readonly param: string | null
  readonly code: string | null
  readonly headers: Readonly<Record<string, string>>

  constructor(
    status: number,
    message: string,
    more: {
      type?: string
      param?: string | null
      code?: string
      headers?: Record<string, string>
      cause?: unknown
    } = {},
  ) {
    super(message, { cause: more.cause })
    this.name = 'ApiError'
    this.status = status
    this.type = more.type ?? (status < 500 ? 'invalid_request_error' : 'server_error')
    this.param = more.param ?? null
    this.code = more.code ?? null
    this.headers = more.headers ?? {}
  }

  get body() {
    const { message, type, param, code } = this
    return { error: { message, type, param, code } }
  }
}

/** 400: a field of the request is wrong. */
export function wrong(param: string | null, message: string, code?: string): ApiError {
  return new ApiError(400, message, { param, ...(code !== undefined && { code }) })
}

/** 503: not now; try again in so many seconds. */
export function unavailable(message: string, code: string, seconds: number): ApiError {
  return new ApiError(503, message, { code, headers: { 'retry-after': String(seconds) } })
}

/** The client is gone: nobody reads this answer, it stands in log and metrics (nginx's 499). */
export function clientGone(): ApiError {
  return new ApiError(499, 'the client closed the connection', { code: 'client_closed_request' })
}

/** Whatever a handler threw, as an answer. What is not known by name keeps its words to the log. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error
  if (error instanceof WestwindError) {
    return new ApiError(500, error.message, { code: error.code, cause: error })
  }
  const status = statusOf(error)
  if (status >= 400 && status < 500) {
    return new ApiError(status, hints[status] ?? reason(error), { cause: error })
  }
  return new ApiError(500, 'the server failed at this request; its log says why', { cause: error })
}

const hints: Record<number, string> = {
  413: 'the body of the request is too large',
  415: 'the body must be JSON: send the header Content-Type: application/json',
}

/** The status that the HTTP framework gave its own errors (malformed JSON, a body too large, …). */
function statusOf(error: unknown): number {
  if (!(error instanceof Error && 'statusCode' in error)) return 500
  return typeof error.statusCode === 'number' ? error.statusCode : 500
}
