import { writeAnswer } from './author.js'
import { type Random, seeded } from './random.js'
import { randomTask, type Task, taskKey } from './tasks.js'

/**
 * Prompts are divided by what they are about (`taskKey`): no combination of words that a held-out prompt
 * asks about occurs in any prompt that is trained on, in whatever wording or kind of task.
 */
export type Part = 'dialogues' | 'preferences' | 'held out'

/** The part that a task belongs to, whatever the seed: 70 %, 20 % and 10 % of all combinations. */
export function partOf(task: Task): Part {
  const share = hash(taskKey(task)) % 10
  return share === 0 ? 'held out' : share < 3 ? 'preferences' : 'dialogues'
}

/** `n` tasks of a part with different prompts. */
export function tasksOf(part: Part, n: number, random: Random): Task[] {
  const tasks = new Map<string, Task>()
  while (tasks.size < n) {
    const task = randomTask(random)
    if (partOf(task) === part) tasks.set(task.prompt, task)
  }
  return [...tasks.values()]
}

/** A row of the dSFT data. */
export interface Dialogue {
  messages: [{ role: 'user'; content: string }, { role: 'assistant'; content: string }]
}

/** `n` dialogues of a part, answered by the author. */
export function dialogues(part: Part, n: number, seed: number, stream: number): Dialogue[] {
  const random = seeded(seed, stream)
  return tasksOf(part, n, random).map((task) => ({
    messages: [
      { role: 'user', content: task.prompt },
      { role: 'assistant', content: writeAnswer(task, random) },
    ],
  }))
}

/** FNV-1a, 32 bits. */
function hash(text: string): number {
  let h = 0x811c9dc5
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  return (h ^ (h >>> 15)) >>> 0
}
