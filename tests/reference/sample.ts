import { exact, type Round } from '../support/exactness.js'

export interface SampleCase {
  temperature: number
  topK: number
  topP: number
}

/** Probability of every token after temperature, top-k and top-p; ties go to the lower id. */
export function distribution(
  values: ArrayLike<number>,
  c: SampleCase,
  round: Round = exact,
): number[] {
  const logits = Array.from(values, round)
  const top = Math.max(...logits)
  const weight = logits.map((x) => Math.exp((x - top) / c.temperature))
  const order = logits.map((_, v) => v).sort((a, b) => weight[b]! - weight[a]! || a - b)
  const likely = order.slice(0, c.topK > 0 ? c.topK : undefined)
  const mass = likely.reduce((sum, v) => sum + weight[v]!, 0)
  const kept = new Set<number>()
  let reached = 0
  for (const v of likely) {
    if (c.topP < 1 && reached >= c.topP * mass) break
    kept.add(v)
    reached += weight[v]!
  }
  return weight.map((w, v) => (kept.has(v) ? w / reached : 0))
}

/** The inverse of the cumulative distribution, tokens in ascending order. */
export function choose(p: number[], uniform: number): number {
  let below = 0
  for (let v = 0; v < p.length; v++) {
    below += p[v]!
    if (below > uniform) return v
  }
  throw new Error(`the probabilities sum to ${below}`)
}
