import type { Task } from './tasks.js'
import { contentOf } from './words.js'

/** The teacher's verdict on one answer. */
export interface Verdict {
  /** 0 to 10: the sum of the points below. */
  score: number
  /** Says exactly the words or numbers that are asked for. */
  correct: boolean
  /** Contains the answer as a whole sentence, ends like one. */
  sentence: boolean
  /** Has a friendly word, and only one. */
  courteous: boolean
  /** Not more than `maxWrapping` words around the answer. */
  brief: boolean
}

/** Points of each rule; a right answer is worth as much as everything else together. */
export const points = { correct: 5, sentence: 2, courteous: 2, brief: 1 }

const maxWrapping = 10
const friendly = /\b(sure|of course|happy to help|glad to help|certainly|gladly)\b/gi

/**
 * Scores an answer by rules alone. What counts as the answer are the words of the vocabulary and the
 * numbers in it, in order: one too many, one missing or another order is wrong.
 */
export function judge(task: Task, text: string): Verdict {
  const said = contentOf(text)
  const correct = said.length === task.answer.length && said.every((s, i) => s === task.answer[i])
  const sentence = said.length > 0 && text.trim().includes(task.sentence(said))
  const courteous = text.match(friendly)?.length === 1
  const words = text.match(/[a-z\d]+/gi)?.length ?? 0
  const brief = words > 0 && words - said.length <= maxWrapping
  const kept = { correct, sentence, courteous, brief }
  return { score: total(kept), ...kept }
}

function total(kept: Omit<Verdict, 'score'>): number {
  const { correct, sentence, courteous, brief } = kept
  return (
    (correct ? points.correct : 0) +
    (sentence ? points.sentence : 0) +
    (courteous ? points.courteous : 0) +
    (brief ? points.brief : 0)
  )
}
