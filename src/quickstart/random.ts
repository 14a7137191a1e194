import { randomStream, seedOf } from '../model/random.js'

/** Seeded choices. */
export interface Random {
  /** A number in [0, 1). */
  next(): number
  /** An integer from `low` to `high`, both included. */
  integer(low: number, high: number): number
  pick<T>(items: readonly T[]): T
  /** `n` different items in random order. */
  sample<T>(items: readonly T[], n: number): T[]
}

/** The `stream`-th source of random choices of a seed. */
export function seeded(seed: number, stream: number): Random {
  const next = randomStream(seedOf(seed, stream))
  const integer = (low: number, high: number) => low + Math.floor(next() * (high - low + 1))
  return {
    next,
    integer,
    pick: (items) => items[integer(0, items.length - 1)]!,
    sample(items, n) {
      const rest = [...items]
      return Array.from({ length: n }, () => rest.splice(integer(0, rest.length - 1), 1)[0]!)
    },
  }
}
