import type { Decontaminator, Overlap } from './decontaminate.js'
import { inTurns } from './in-turns.js'
import type { Picked } from './pair-statistics.js'
import type { RatedTuple } from './ratings.js'
import { type Choice, choose, disagreement, type Rule } from './rules.js'

/** Which pairs are not kept. */
export interface Filters {
  ties: 'keep' | 'drop'
  /** Least score of chosen less score of rejected. */
  minMargin: number
  /** Least distance of the highest and the lowest score of a tuple. */
  minSpread: number
  /** Largest disagreement of the teacher with itself on either answer. */
  maxDisagreement: number | undefined
}

/** Why a tuple gives no pair, in the order in which the reasons are looked for. */
export const dropReasons = {
  duplicate: 'the same prompt and answers as an earlier tuple',
  contaminated: 'the prompt overlaps an evaluation set',
  unscored: 'fewer than two scored answers',
  identical: "no other answer differs from the chosen one's text",
  tie: 'chosen and rejected are equally good',
  margin: 'chosen and rejected are less than minMargin apart',
  spread: 'highest and lowest score are less than minSpread apart',
  disagreement: 'the teacher disagrees with itself by more than maxDisagreement',
} as const
export type DropReason = keyof typeof dropReasons

/** A tuple that gave no pair, and what decided that. */
export interface Removed {
  row: number
  prompt_id: string
  reason: DropReason
  /** The row of a duplicate's first. */
  of_row?: number
  overlaps?: Overlap[]
  score?: number
  margin?: number
  spread?: number
  disagreement?: number
}

/** The pairs, and what became of every other tuple. */
export interface Pickings {
  pairs: Picked[]
  removed: Removed[]
}

/** Applies a rule and the filters to tuples, one by one; each gives a pair or a reason. */
export async function pick(
  tuples: readonly RatedTuple[],
  rule: Rule,
  filters: Filters,
  search: Decontaminator | undefined,
  signal: AbortSignal | undefined,
): Promise<Pickings> {
  const pickings: Pickings = { pairs: [], removed: [] }
  const seen = new Map<string, number>()
  for await (const some of inTurns(tuples, signal)) {
    for (const tuple of some) {
      const result = pairOf(tuple, rule, filters, search, seen.get(tuple.id))
      if ('choice' in result) pickings.pairs.push({ tuple, choice: result.choice })
      else pickings.removed.push({ row: tuple.row, prompt_id: tuple.promptId, ...result })
      if (!seen.has(tuple.id)) seen.set(tuple.id, tuple.row)
    }
  }
  return pickings
}

type Refusal = Omit<Removed, 'row' | 'prompt_id'>

function pairOf(
  tuple: RatedTuple,
  rule: Rule,
  filters: Filters,
  search: Decontaminator | undefined,
  earlier: number | undefined,
): { choice: Choice } | Refusal {
  if (earlier !== undefined) return { reason: 'duplicate', of_row: earlier }
  const overlaps = search?.overlaps(tuple.prompt) ?? []
  if (overlaps.length > 0) return { reason: 'contaminated', overlaps }
  const choice = choose(tuple, rule)
  if (typeof choice === 'string') return { reason: choice }
  return refusal(choice, filters) ?? { choice }
}

function refusal(
  { chosen, rejected, tie, spread }: Choice,
  { ties, minMargin, minSpread, maxDisagreement }: Filters,
): Refusal | undefined {
  const margin = chosen.score - rejected.score
  if (tie && ties === 'drop') return { reason: 'tie', score: chosen.score }
  if (margin < minMargin) return { reason: 'margin', margin }
  if (spread < minSpread) return { reason: 'spread', spread }
  const worst = Math.max(disagreement(chosen) ?? 0, disagreement(rejected) ?? 0)
  if (maxDisagreement !== undefined && worst > maxDisagreement) {
    return { reason: 'disagreement', disagreement: worst }
  }
  return undefined
}
