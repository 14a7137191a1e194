import { randomStream as uniform } from '../../src/model/random.js'

export { uniform }

/** n standard normal numbers, rounded to f32. */
export function normal(n: number, seed: number): Float64Array {
  const next = uniform(seed)
  return Float64Array.from({ length: n }, () =>
    Math.fround(Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next())),
  )
}

/** n integers in [0, below). */
export function integers(n: number, below: number, seed: number): Int32Array {
  const next = uniform(seed)
  return Int32Array.from({ length: n }, () => Math.floor(next() * below))
}
