import type { Tokenizer } from '../data/tokenizer/tokenizer.js'
import { inTurns } from './in-turns.js'
import { mean, type RatedTuple } from './ratings.js'
import { type Choice, choose, chosenRules, type Rule, rejectedRules } from './rules.js'

/** A tuple and the two answers that were kept of it. */
export interface Picked {
  tuple: RatedTuple
  choice: Choice
}

/** Lengths of the answers, in characters (code points) or tokens. */
export interface LengthStatistics {
  unit: 'characters' | 'tokens'
  chosen: { mean: number; median: number }
  rejected: { mean: number; median: number }
  /** Share of pairs whose chosen answer is the longer one. */
  chosenLonger: number
  equal: number
}

/** Lengths in characters, and in tokens where there is a tokenizer. */
export async function lengthStatistics(
  pairs: readonly Picked[],
  tokenizer: Tokenizer | undefined,
  signal: AbortSignal | undefined,
): Promise<LengthStatistics[]> {
  const statistics = [await lengthsBy(pairs, 'characters', characters, signal)]
  if (tokenizer) {
    const tokens = (text: string) => tokenizer.encode(text).length
    statistics.push(await lengthsBy(pairs, 'tokens', tokens, signal))
  }
  return statistics
}

async function lengthsBy(
  pairs: readonly Picked[],
  unit: LengthStatistics['unit'],
  length: (text: string) => number,
  signal: AbortSignal | undefined,
): Promise<LengthStatistics> {
  const chosen: number[] = []
  const rejected: number[] = []
  for await (const some of inTurns(pairs, signal)) {
    for (const { choice } of some) {
      chosen.push(length(choice.chosen.response))
      rejected.push(length(choice.rejected.response))
    }
  }
  const share = (holds: (c: number, r: number) => boolean) =>
    chosen.filter((c, i) => holds(c, rejected[i]!)).length / pairs.length
  return {
    unit,
    chosen: { mean: mean(chosen), median: median(chosen) },
    rejected: { mean: mean(rejected), median: median(rejected) },
    chosenLonger: share((c, r) => c > r),
    equal: share((c, r) => c === r),
  }
}

function characters(text: string): number {
  let count = 0
  for (const _ of text) count++
  return count
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** What another rule would change: shares of the pairs for which it has a pair, too. */
export interface OtherRule {
  chosen: Rule['chosen']
  rejected: Rule['rejected']
  /** Pairs for which the other rule has one; the shares are of these. */
  pairs: number
  chosenDiffers: number
  rejectedDiffers: number
  pairDiffers: number
}

/** Every other rule, with the same seed, against the pairs as they are. */
export async function otherRules(
  pairs: readonly Picked[],
  rule: Rule,
  signal: AbortSignal | undefined,
): Promise<OtherRule[]> {
  const others: OtherRule[] = []
  for (const chosen of chosenRules) {
    for (const rejected of rejectedRules) {
      if (chosen === rule.chosen && rejected === rule.rejected) continue
      others.push(await compareRule(pairs, { chosen, rejected, seed: rule.seed }, signal))
    }
  }
  return others
}

async function compareRule(
  pairs: readonly Picked[],
  other: Rule,
  signal: AbortSignal | undefined,
): Promise<OtherRule> {
  const counts = { pairs: 0, chosen: 0, rejected: 0, pair: 0 }
  for await (const some of inTurns(pairs, signal)) {
    for (const { tuple, choice } of some) {
      const its = choose(tuple, other)
      if (typeof its === 'string') continue
      const chosen = its.chosen.response !== choice.chosen.response
      const rejected = its.rejected.response !== choice.rejected.response
      counts.pairs++
      if (chosen) counts.chosen++
      if (rejected) counts.rejected++
      if (chosen || rejected) counts.pair++
    }
  }
  const share = (count: number) => (counts.pairs === 0 ? 0 : count / counts.pairs)
  return {
    chosen: other.chosen,
    rejected: other.rejected,
    pairs: counts.pairs,
    chosenDiffers: share(counts.chosen),
    rejectedDiffers: share(counts.rejected),
    pairDiffers: share(counts.pair),
  }
}
