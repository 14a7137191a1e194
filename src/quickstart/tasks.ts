import type { Random } from './random.js'
import { allWords, type Category, categoryNames, contentOf, wordsIn } from './words.js'

/** A question with an answer that can be checked. */
export interface Task {
  kind: TaskKind
  /** The user's turn. */
  prompt: string
  /** The right answer: words and numbers, in order (see `contentOf`). */
  answer: string[]
  /** A sentence around an answer, right or wrong. */
  sentence: (answer: readonly string[]) => string
  /** A wrong answer that a careless writer might give. */
  mistake: (random: Random) => string[]
}

export type TaskKind = 'last' | 'first' | 'pick' | 'repeat' | 'reverse' | 'count'

type Maker = (random: Random) => Task

const makers: Record<TaskKind, Maker> = {
  last: (random) => position(random, 'last'),
  first: (random) => position(random, 'first'),
  pick,
  repeat,
  reverse,
  count,
}

export const taskKinds: readonly TaskKind[] = [
  'last',
  'first',
  'pick',
  'repeat',
  'reverse',
  'count',
]

/** A random task of a random kind. */
export function randomTask(random: Random): Task {
  return makers[random.pick(taskKinds)](random)
}

/** What a task is about, whatever its wording and kind: its words and numbers, sorted. */
export function taskKey({ prompt }: Task): string {
  return contentOf(prompt).sort().join(' ')
}

function position(random: Random, which: 'first' | 'last'): Task {
  const words = random.sample(allWords, 3)
  const list = words.join(', ')
  return {
    kind: which,
    prompt: random.pick([
      `What is the ${which} word of this list: ${list}?`,
      `Tell me the ${which} word: ${list}.`,
    ]),
    answer: [which === 'first' ? words[0]! : words.at(-1)!],
    sentence: ([word]) => `The ${which} word is ${word}.`,
    mistake: (random) => [random.pick(which === 'first' ? words.slice(1) : words.slice(0, -1))],
  }
}

function pick(random: Random): Task {
  const [category, ...others] = random.sample(categoryNames, 3)
  const right = random.pick(wordsIn(category!))
  const wrong = others.map((other) => random.pick(wordsIn(other)))
  const list = random.sample([right, ...wrong], wrong.length + 1).join(', ')
  return {
    kind: 'pick',
    prompt: random.pick([
      `Which of these is ${aOrAn(category!)}: ${list}?`,
      `Find the ${category} in this list: ${list}.`,
    ]),
    answer: [right],
    sentence: ([word]) => `The ${category} is ${word}.`,
    mistake: (random) => [random.pick(wrong)],
  }
}

function repeat(random: Random): Task {
  const word = random.pick(allWords)
  const times = random.integer(2, 4)
  const said = (n: number) => Array.from({ length: n }, () => word)
  return {
    kind: 'repeat',
    prompt: random.pick([`Say the word ${word} ${times} times.`, `Write ${word} ${times} times.`]),
    answer: said(times),
    sentence: (words) => `Here you are: ${words.join(', ')}.`,
    mistake: (random) => said(times + random.pick([-1, 1])),
  }
}

function reverse(random: Random): Task {
  const words = random.sample(allWords, 3)
  const list = words.join(', ')
  const answer = [...words].reverse()
  return {
    kind: 'reverse',
    prompt: random.pick([
      `Write this list backwards: ${list}.`,
      `Reverse the order of these words: ${list}.`,
    ]),
    answer,
    sentence: (words) => `Backwards it reads: ${words.join(', ')}.`,
    mistake: (random) => random.pick([words, [answer[0]!, answer[2]!, answer[1]!]]),
  }
}

function count(random: Random): Task {
  const n = random.integer(2, 5)
  const list = random.sample(allWords, n).join(', ')
  return {
    kind: 'count',
    prompt: random.pick([
      `How many words does this list have: ${list}?`,
      `Count the words of this list: ${list}.`,
    ]),
    answer: [String(n)],
    sentence: ([number]) => `The number of words is ${number}.`,
    mistake: (random) => [String(n + random.pick([-1, 1]))],
  }
}

function aOrAn(category: Category): string {
  return category === 'animal' ? 'an animal' : `a ${category}`
}
