import type { Message } from '../data/conversation.js'
import { generateStream, promptIds } from '../model/generate.js'
import { loadModel } from '../model/model.js'
import { seedOf } from '../model/random.js'
import type { Usage } from '../teacher/budget.js'
import type { PoolModel } from './config.js'

/** Prompts that are given to the model in one call. */
const chunkSize = 64

export interface LocalAnswer {
  text: string
  finish_reason: string
  usage: Usage
}

/**
 * Answers of a model folder or Hub id, in process; loaded if an answer is missing, and released at the end. Prompts are
 * taken in fixed chunks, each with its own seed: where a run was interrupted, what is missing of a chunk
 * comes out as it would have.
 *
 * @param conversations all prompts that the model was drawn for, in order
 * @param isDone whether the answer to a prompt is there already
 * @param done takes an answer; `refused` takes a prompt that does not fit into the model's context
 */
export async function localAnswers(
  pool: PoolModel & { path: string },
  conversations: readonly (readonly Message[])[],
  options: {
    seed: number
    isDone: (index: number) => boolean
    done: (index: number, answer: LocalAnswer) => Promise<void>
    refused: (index: number, why: string) => void
    signal: AbortSignal | undefined
  },
): Promise<void> {
  const { seed, isDone, done, refused, signal } = options
  if (conversations.every((_, i) => isDone(i))) return
  const { path, device, dtype, batch_size, sampling } = pool
  using model = await loadModel(path, { device, dtype })
  const context = model.config.maxPositionEmbeddings
  for (let begin = 0; begin < conversations.length; begin += chunkSize) {
    const chunk = conversations.slice(begin, begin + chunkSize)
    if (chunk.every((_, i) => isDone(begin + i))) continue
    const lengths = chunk.map((messages) => promptIds(model, messages).length)
    const fitting = chunk.flatMap((_, i) => {
      const length = lengths[i]!
      if (length < context) return [i]
      refused(begin + i, `the prompt has ${length} tokens, the model's context ${context}`)
      return []
    })
    const texts = new Map(fitting.map((i) => [i, { text: '', tokens: 0 }]))
    const prompts = fitting.map((i) => chunk[i]!)
    const stream = generateStream(model, prompts, {
      maxNewTokens: sampling.max_tokens,
      temperature: sampling.temperature,
      topP: sampling.top_p,
      batchSize: batch_size,
      seed: seedOf(seed, begin / chunkSize),
      ...(signal && { signal }),
    })
    for await (const { index, text, finishReason } of stream) {
      const i = fitting[index]!
      const one = texts.get(i)!
      one.text += text
      one.tokens++
      if (!finishReason || isDone(begin + i)) continue
      const usage = { prompt_tokens: lengths[i]!, completion_tokens: one.tokens }
      await done(begin + i, { text: one.text, finish_reason: finishReason, usage })
    }
  }
}
