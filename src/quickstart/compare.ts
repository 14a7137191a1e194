import type { Answer } from './sampling.js'
import type { Task } from './tasks.js'

/** Both models' answers to one held-out prompt. */
export interface Comparison {
  task: Task
  sft: Answer
  aligned: Answer
}

/** How the aligned model did against the dSFT model. */
export interface Outcome {
  /** Wins of the aligned model, ties as half, over all prompts. */
  winRate: number
  wins: number
  ties: number
  losses: number
}

/** Counts whose answer the teacher scored higher. */
export function outcomeOf(comparisons: readonly Comparison[]): Outcome {
  const wins = comparisons.filter(({ sft, aligned }) => aligned.score > sft.score).length
  const losses = comparisons.filter(({ sft, aligned }) => aligned.score < sft.score).length
  const ties = comparisons.length - wins - losses
  return { winRate: (wins + ties / 2) / comparisons.length, wins, ties, losses }
}

/** Averages of a model's verdicts: the score of 10 and the share of answers that keep each rule. */
export interface Means {
  score: number
  correct: number
  sentence: number
  courteous: number
  brief: number
}

export function meansOf(answers: readonly Answer[]): Means {
  const mean = (value: (answer: Answer) => number) =>
    answers.reduce((sum, answer) => sum + value(answer), 0) / answers.length
  return {
    score: mean(({ score }) => score),
    correct: mean(({ correct }) => Number(correct)),
    sentence: mean(({ sentence }) => Number(sentence)),
    courteous: mean(({ courteous }) => Number(courteous)),
    brief: mean(({ brief }) => Number(brief)),
  }
}

/** A few comparisons to show: the first of each kind of task. */
export function samplesOf(comparisons: readonly Comparison[], n: number): Comparison[] {
  const kinds = new Set<string>()
  const firsts = comparisons.filter(({ task: { kind } }) => !kinds.has(kind) && kinds.add(kind))
  return firsts.slice(0, n)
}
