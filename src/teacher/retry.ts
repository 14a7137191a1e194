import { setTimeout as sleep } from 'node:timers/promises'

/** Statuses after which the same request may succeed: time-out, conflict, too many requests, the server's. */
export function isTransient(status: number): boolean {
  return status === 408 || status === 409 || status === 429 || status >= 500
}

/** First and longest pause, in milliseconds. */
const firstMs = 500
const longestMs = 60_000
/** An endpoint may ask for a longer pause, up to this. */
const longestAskedMs = 15 * 60_000

/**
 * How long to wait before attempt `attempt` + 1: twice as long each time, of which a random half is left
 * out so that requests that failed together do not return together; at least what the endpoint asks for.
 *
 * @param attempt 1 after the first one
 * @param asked what {@link retryAfterMs} read
 */
export function pauseMs(attempt: number, asked: number | undefined, random = Math.random): number {
  const longest = Math.min(firstMs * 2 ** (attempt - 1), longestMs)
  const own = longest * (1 - random() / 2)
  return asked === undefined ? own : Math.min(asked, longestAskedMs) + own / 4
}

/**
 * Milliseconds that an answer's headers ask to wait: `retry-after-ms`, or `Retry-After` as seconds or as
 * an HTTP date (RFC 9110, section 10.2.3). Undefined where they do not, or not in a readable way.
 */
export function retryAfterMs(headers: Headers | undefined, now = Date.now()): number | undefined {
  const ms = headers?.get('retry-after-ms')?.trim()
  if (ms && /^\d+(\.\d+)?$/.test(ms)) return Number(ms)
  const value = headers?.get('retry-after')?.trim()
  if (!value) return undefined
  if (/^\d+(\.\d+)?$/.test(value)) return Number(value) * 1000
  const date = /[A-Za-z]/.test(value) ? Date.parse(value) : Number.NaN
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}

/** Waits, unless the signal fires. */
export async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(ms, undefined, signal ? { signal } : {}).catch((cause) => {
    if (!signal?.aborted) throw cause
  })
}
