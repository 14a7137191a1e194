import type { Answer } from './sampling.js'
import type { Task } from './tasks.js'

interface Turn {
  role: 'user' | 'assistant'
  content: string
}

/** A row of the dDPO data, in the columns of ultrafeedback_binarized. */
export interface Preference {
  prompt: string
  chosen: Turn[]
  rejected: Turn[]
  score_chosen: number
  score_rejected: number
}

/**
 * Turns judged answers into pairs as UltraFeedback is turned into Zephyr's (arXiv 2310.16944, section 3.2):
 * the best answer is chosen, one of the others, at random, rejected. Here only answers with a lower score
 * can be rejected; a prompt whose answers are all equally good gives no pair.
 *
 * @param answers `[task][answer]`
 * @param random numbers in [0, 1)
 */
export function rank(
  tasks: readonly Task[],
  answers: readonly (readonly Answer[])[],
  random: () => number,
): Preference[] {
  return tasks.flatMap(({ prompt }, t) => {
    const [best] = [...answers[t]!].sort((a, b) => b.score - a.score)
    const worse = answers[t]!.filter(({ score }) => score < best!.score)
    const other = worse[Math.floor(random() * worse.length)]
    if (!best || !other) return []
    const turns = (content: string): Turn[] => [
      { role: 'user', content: prompt },
      { role: 'assistant', content },
    ]
    return {
      prompt,
      chosen: turns(best.text),
      rejected: turns(other.text),
      score_chosen: best.score,
      score_rejected: other.score,
    }
  })
}
