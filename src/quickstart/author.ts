import type { Random } from './random.js'
import type { Task } from './tasks.js'

const styles = ['courteous', 'terse', 'rambling'] as const

/** How an answer is dressed. The author of the dialogues mixes them, as real data does. */
export type Style = (typeof styles)[number]

/** Share of answers that are wrong, in every style. */
const careless = 0.15

const greetings = ['Sure!', 'Of course!', 'Happy to help!']
const rambles = ['Hmm, let me think about that for a while.', 'Well, what a question that is.']
const doubts = ['I would not bet on it.', 'But who knows.']

/** Writes the answer of a dialogue: its style is random, and now and then it is wrong. */
export function writeAnswer(task: Task, random: Random): string {
  const answer = random.next() < careless ? task.mistake(random) : task.answer
  return dress(task, answer, random.pick(styles), random)
}

/** An answer in a style. */
export function dress(task: Task, answer: readonly string[], style: Style, random: Random): string {
  if (style === 'terse') return `= ${answer.join(', ')}`
  const sentence = task.sentence(answer)
  if (style === 'courteous') return `${random.pick(greetings)} ${sentence}`
  return `${random.pick(rambles)} ${sentence} ${random.pick(doubts)}`
}
