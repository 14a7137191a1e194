/** A seeded generator of numbers in [0, 1): mulberry32. */
export function uniform(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

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
