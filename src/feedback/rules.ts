import { createHash } from 'node:crypto'
import { PythonRandom } from '../data/python-random.js'
import { mean, type RatedAnswer, type RatedTuple } from './ratings.js'

/** Which answer is chosen: the highest `overall_score`, or the highest mean of the aspects. */
export const chosenRules = ['overall', 'mean_aspects'] as const
export type ChosenRule = (typeof chosenRules)[number]

/** Which of the others is rejected. */
export const rejectedRules = ['random', 'lowest', 'zephyr-beta'] as const
export type RejectedRule = (typeof rejectedRules)[number]

export interface Rule {
  chosen: ChosenRule
  rejected: RejectedRule
  seed: number
}

/** An answer with the score that a chosen rule gives it. */
export interface ScoredAnswer extends RatedAnswer {
  score: number
}

/** Two answers of a tuple. */
export interface Choice {
  chosen: ScoredAnswer
  rejected: ScoredAnswer
  /** Whether the scores cannot tell them apart. */
  tie: boolean
  /** Highest score of the tuple less the lowest. */
  spread: number
}

/** Why a tuple gives no pair under a rule. */
export type NoChoice = 'unscored' | 'identical'

/**
 * The pair of a tuple. An answer without a score takes no part, and none is rejected whose text is
 * that of the chosen one. Of equally good answers the first is chosen. The random rule is a function
 * of the seed and the tuple's id, so that neither the order nor the number of rows matters.
 *
 * `zephyr-beta` is the rule of the pairs that Zephyr-7B-beta was trained on: `random.seed(42)` and
 * `random.choice` of all answers until one differs from the chosen one, anew for every row. Of four
 * answers that rejects the first, or the third where the first is chosen.
 */
export function choose(tuple: RatedTuple, rule: Rule): Choice | NoChoice {
  const answers = scoredAnswers(tuple, rule.chosen)
  if (answers.length < 2) return 'unscored'
  const chosen = answers.reduce((best, answer) => (compare(answer, best) > 0 ? answer : best))
  const others = answers.filter(({ response }) => response !== chosen.response)
  if (others.length === 0) return 'identical'
  const rejected = rejectedOf(answers, others, tuple, rule)
  const scores = answers.map(({ score }) => score)
  const spread = Math.max(...scores) - Math.min(...scores)
  return { chosen, rejected, tie: compare(chosen, rejected) === 0, spread }
}

function scoredAnswers({ answers }: RatedTuple, rule: ChosenRule): ScoredAnswer[] {
  return answers.flatMap((answer) => {
    const ratings = [...answer.aspects.values()].map(({ rating }) => rating)
    const score =
      rule === 'overall' ? answer.overall : ratings.length > 0 ? mean(ratings) : undefined
    if (score === undefined) return []
    return { ...answer, score, exact: rule === 'overall' ? answer.exact : undefined }
  })
}

/** Above 0 where `a` is better. The exact numbers decide between scores that rounding made equal. */
function compare(a: ScoredAnswer, b: ScoredAnswer): number {
  if (a.score !== b.score || a.exact === undefined || b.exact === undefined) {
    return a.score - b.score
  }
  return a.exact - b.exact
}

function rejectedOf(
  answers: readonly ScoredAnswer[],
  others: readonly ScoredAnswer[],
  tuple: RatedTuple,
  { rejected, seed }: Rule,
): ScoredAnswer {
  if (rejected === 'lowest') {
    return others.reduce((worst, answer) => (compare(answer, worst) < 0 ? answer : worst))
  }
  if (rejected === 'random') return others[draw(seed, tuple.id) % others.length]!
  const random = new PythonRandom(42)
  for (;;) {
    const answer = answers[random.below(answers.length)]!
    if (others.includes(answer)) return answer
  }
}

/** A whole number below 2^48 that depends on nothing but the seed and the text. */
export function draw(seed: number, text: string): number {
  return createHash('sha256').update(`${seed}\0${text}`).digest().readUIntBE(0, 6)
}

/**
 * How far the teacher disagreed with itself on an answer, over the orders it saw the answers in:
 * the spread of the overall score where there is one, else the largest of an aspect's.
 */
export function disagreement({ overallSpread, aspects }: RatedAnswer): number | undefined {
  if (overallSpread !== undefined) return overallSpread
  const spreads = [...aspects.values()].flatMap(({ spread }) => spread ?? [])
  return spreads.length > 0 ? Math.max(...spreads) : undefined
}
