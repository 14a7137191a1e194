import { Engine } from '../model/engine.js'
import type { Model } from '../model/model.js'

/** Tokens of which the last `scored` ones, at least one, get a log-prob. The last is never an input. */
export interface ScoreRequest {
  ids: Int32Array
  scored: number
  /** Cut at the beginning to fit the model's context. */
  truncated?: boolean
}

export interface Score {
  /** One per scored token, in nats. */
  logprobs: number[]
  sum: number
  /** Every scored token is the model's likeliest. */
  greedy: boolean
}

export interface ScoreOptions {
  signal?: AbortSignal | undefined
  onProgress?: ((done: number, total: number) => void) | undefined
}

/** Sequences computed together. */
const kSlots = 16

/**
 * Log-probs of requests, in their order. What requests begin with in common is computed once: they are taken in the
 * order of their tokens. The bits do not depend on the other requests.
 *
 * @throws ERR_ABORTED; ERR_OUT_OF_MEMORY
 */
export async function score(
  model: Model,
  requests: readonly ScoreRequest[],
  { signal, onProgress }: ScoreOptions = {},
): Promise<Score[]> {
  const scores: Score[] = []
  const order = [...requests.keys()].sort((a, b) => compare(requests[a]!.ids, requests[b]!.ids))
  const length = requests.reduce((most, { ids }) => Math.max(most, ids.length - 1), 1)
  const engine = new Engine(model, { slots: Math.min(kSlots, requests.length), length })
  let next = 0
  let done = 0
  const take = async () => {
    while (next < order.length) {
      const i = order[next++]!
      scores[i] = await scoreOne(engine, requests[i]!, signal)
      onProgress?.(++done, order.length)
    }
  }
  try {
    await Promise.all(Array.from({ length: 2 * kSlots }, take))
  } finally {
    next = order.length // after an error the others take no more
    await engine.close()
  }
  return scores
}

async function scoreOne(
  engine: Engine,
  { ids, scored }: ScoreRequest,
  signal: AbortSignal | undefined,
): Promise<Score> {
  const result: Score = { logprobs: [], sum: 0, greedy: true }
  const request = {
    ids: Array.from(ids),
    maxNewTokens: 0,
    promptLogprobsFrom: ids.length - scored,
    topLogprobs: 1,
    ...(signal && { signal }),
  }
  for await (const event of engine.submit(request)) {
    if (event.type !== 'prompt') continue
    for (const { id, logprob, top } of event.logprobs) {
      result.logprobs.push(logprob)
      result.sum += logprob
      result.greedy &&= top[0]?.id === id
    }
  }
  return result
}

/** Lexicographic. */
function compare(a: Int32Array, b: Int32Array): number {
  const end = Math.min(a.length, b.length)
  for (let i = 0; i < end; i++) if (a[i] !== b[i]) return a[i]! - b[i]!
  return a.length - b.length
}
