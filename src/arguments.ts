import { type ErrorCode, refuse, WestwindError } from './errors.js'
import { reason } from './json.js'

/**
 * Checks that a value from outside is a T: `text(file, 'readRows: file')`. If not, it throws
 * ERR_INVALID_ARG with what `where` calls the value, what was expected and what came.
 */
export interface Check<T> {
  (value: unknown, where: string): asserts value is T
  /** Never there: without it TypeScript would take a check of one type for that of another. */
  readonly type?: T
}

export const text: Check<string> = (value, where) => {
  if (typeof value !== 'string') refuse(where, 'a string', value)
}

/** A name in the file system: the system's functions throw at an empty one and at a NUL. */
export const path: Check<string> = (value, where) => {
  if (typeof value !== 'string' || value === '' || value.includes('\0')) {
    refuse(where, 'a path', value)
  }
}

export const flag: Check<boolean> = (value, where) => {
  if (typeof value !== 'boolean') refuse(where, 'true or false', value)
}

/** NaN and the infinities are numbers. */
export const number: Check<number> = (value, where) => {
  if (typeof value !== 'number') refuse(where, 'a number', value)
}

/** A finite number of at least `least`. */
export function atLeast(least: number): Check<number> {
  const words =
    least === Number.NEGATIVE_INFINITY ? 'a finite number' : `a number of at least ${least}`
  return (value, where) => {
    if (typeof value !== 'number' || !Number.isFinite(value) || value < least) {
      refuse(where, words, value)
    }
  }
}

export const finite: Check<number> = atLeast(Number.NEGATIVE_INFINITY)

/** The largest size of a dimension, and of most counts: they are 32-bit numbers in the native layer. */
export const maxSize = 2 ** 31 - 1

export function integer(least: number, most: number = Number.MAX_SAFE_INTEGER): Check<number> {
  const above = least === Number.MIN_SAFE_INTEGER ? '' : ` of at least ${least}`
  const words = `an integer${above}${most === Number.MAX_SAFE_INTEGER ? '' : ` and at most ${most}`}`
  return (value, where) => {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < least || value > most) {
      refuse(where, words, value)
    }
  }
}

export function oneOf<const T extends string>(...values: T[]): Check<T> {
  const known: ReadonlySet<unknown> = new Set(values)
  return (value, where) => {
    if (!known.has(value)) refuse(where, values.join(' or '), value)
  }
}

/** A function; what it takes and returns shows only when it is called. */
export function callable<F extends (...args: never[]) => unknown>(): Check<F> {
  return (value, where) => {
    if (typeof value !== 'function') refuse(where, 'a function', value)
  }
}

export function optional<T>(check: Check<T>): Check<T | undefined> {
  return (value, where) => {
    if (value !== undefined) check(value, where)
  }
}

export function nullable<T>(check: Check<T>): Check<T | null> {
  return (value, where) => {
    if (value !== null) check(value, where)
  }
}

/** An object of this class; `words` say how one comes by it. */
export function instance<T>(of: abstract new (...args: never[]) => T, words: string): Check<T> {
  return readable((value, where) => {
    if (!(value instanceof of)) refuse(where, words, value)
  })
}

export function list<T>(check: Check<T>): Check<T[]> {
  return readable((value, where) => {
    if (!Array.isArray(value)) refuse(where, 'an array', value)
    for (let i = 0; i < value.length; i++) check(value[i], `${where}[${i}]`)
  })
}

/** An object with these fields; others are left alone. */
export function fields<T extends object>(checks: { [K in keyof T]-?: Check<T[K]> }): Check<T> {
  const entries = Object.entries<Check<unknown>>(checks)
  return readable((value, where) => {
    record(value, where)
    for (const entry of entries) {
      const name = entry[0]
      const check: Check<unknown> = entry[1]
      check(value[name], `${where}.${name}`)
    }
  })
}

/** An object whose every field passes. */
export function recordOf<T>(check: Check<T>): Check<Record<string, T>> {
  return readable((value, where) => {
    record(value, where)
    for (const [name, field] of Object.entries(value)) check(field, `${where}.${name}`)
  })
}

export const record: Check<Record<string, unknown>> = (value, where) => {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    refuse(where, 'an object', value)
  }
}

export const abortSignal: Check<AbortSignal> = instance(AbortSignal, 'an AbortSignal')

/** A copy of data that holds no getters, proxies or functions, and that nobody changes from outside. */
export function plainCopy<T>(value: T, where: string, code: ErrorCode): T {
  try {
    return structuredClone(value)
  } catch (cause) {
    const why = cause instanceof RangeError ? 'it is too deeply nested' : reason(cause)
    throw new WestwindError(code, `${where} must be plain data: ${why}`, { cause })
  }
}

/** Looking at a value may throw by itself: a getter does, or a proxy that was revoked. */
export function readable<T>(check: Check<T>): Check<T> {
  return (value, where) => {
    try {
      check(value, where)
    } catch (cause) {
      if (cause instanceof WestwindError) throw cause
      const message = `${where} cannot be read: ${reason(cause)}`
      throw new WestwindError('ERR_INVALID_ARG', message, { cause })
    }
  }
}
