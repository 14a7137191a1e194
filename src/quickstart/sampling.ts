import { generate } from '../model/generate.js'
import type { Model } from '../model/model.js'
import type { Task } from './tasks.js'
import { judge, type Verdict } from './teacher.js'

/** An answer of a model, as the teacher sees it. */
export interface Answer extends Verdict {
  text: string
}

export interface AnswerOptions {
  /** Answers per task. */
  n: number
  temperature: number
  seed: number
  signal?: AbortSignal | undefined
}

/** Answers each task `n` times and has the teacher judge them: `[task][answer]`. */
export async function answers(
  model: Model,
  tasks: readonly Task[],
  { n, temperature, seed, signal }: AnswerOptions,
): Promise<Answer[][]> {
  const prompts = tasks.flatMap((task) => Array.from({ length: n }, () => task.prompt))
  const texts = await generate(model, prompts, {
    maxNewTokens: 64,
    temperature,
    seed,
    batchSize: 64,
    ...(signal && { signal }),
  })
  return tasks.map((task, t) =>
    texts.slice(t * n, (t + 1) * n).map(({ text }) => ({ text, ...judge(task, text) })),
  )
}
