import { sha256 } from './ratings.js'

// Every draw is a hash of the seed and of what it is for: the order of the prompts, a run that was
// interrupted, or another model in the pool change none of the others.

/** A number in [0, 1) that depends on its arguments alone. */
export function uniformOf(...parts: string[]): number {
  return Number.parseInt(sha256(...parts, '').slice(0, 12), 16) / 2 ** 48
}

/** Items in random order: sorted by the hash of the purpose and their names. */
export function shuffled<T>(
  items: readonly T[],
  name: (item: T) => string,
  ...purpose: string[]
): T[] {
  return items
    .map((item) => ({ item, rank: sha256(...purpose, name(item)) }))
    .sort((a, b) => (a.rank < b.rank ? -1 : 1))
    .map(({ item }) => item)
}

/** A name drawn by its weight; `at` in [0, 1). */
export function weighted(weights: Readonly<Record<string, number>>, at: number): string {
  const entries = Object.entries(weights).filter(([, weight]) => weight > 0)
  let left = at * entries.reduce((sum, [, weight]) => sum + weight, 0)
  for (const [name, weight] of entries) {
    left -= weight
    if (left < 0) return name
  }
  return entries.at(-1)?.[0] ?? ''
}
