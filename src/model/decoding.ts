import { WestwindError } from '../errors.js'
import { gemm, type SampleOptions, sample } from '../ops/index.js'
import { isolated, scope } from '../tensor/scope.js'
import { fromArray } from '../tensor/tensor.js'
import { forwardCached, type KvCache } from './kv-cache.js'
import type { Model } from './model.js'
import { randomStream, seedOf } from './random.js'

/** A sequence that grows token by token. */
export interface Row {
  /** What its random numbers are drawn by, and what its tokens are told as. */
  index: number
  /** Prompt, then new tokens. */
  ids: number[]
  promptLength: number
  /** How many of `ids` its slot of the cache holds; the rest is computed in the next step. */
  cached: number
  /** Tokens that `ids` may have in all. */
  maxLength: number
}

/** Why a text ended: a stop token, or no room for more tokens. */
export type FinishReason = 'stop' | 'length'

export interface DecodingOptions extends SampleOptions {
  seed: number
  stopIds: ReadonlySet<number>
  signal?: AbortSignal | undefined
}

/** A new token of a row; the last one of a row says why it is the last. */
export interface DecodedToken {
  row: Row
  id: number
  finishReason?: FinishReason
}

/** Prompt tokens computed at once; more prompts wait for the next step. */
const kPrefillTokens = 8192

/**
 * Continues rows until each has ended. Up to `cache.slots` of them are computed together; where one ends,
 * the next takes its slot. What a row says does not depend on the others. One device read per step.
 *
 * @throws ERR_ABORTED before the next step once the signal has fired
 */
export async function* decodeRows(
  model: Model,
  cache: KvCache,
  rows: readonly Row[],
  options: DecodingOptions,
): AsyncGenerator<DecodedToken, void> {
  const waiting = [...rows]
  const free = Array.from({ length: cache.slots }, (_, slot) => slot)
  let active: Placed[] = []
  while (waiting.length + active.length > 0) {
    const joining = takeNext(waiting, free)
    const going = active
    active = []
    for (const group of [joining, going].filter(({ length }) => length > 0)) {
      if (options.signal?.aborted) throw stopped()
      const ids = await nextTokens(model, cache, group, options)
      for (const [i, placed] of group.entries()) {
        const { row, slot } = placed
        const id = ids[i]!
        row.cached = row.ids.length
        row.ids.push(id)
        const finishReason = finish(row, id, options)
        if (finishReason) free.push(slot)
        else active.push(placed)
        yield finishReason ? { row, id, finishReason } : { row, id }
      }
    }
  }
}

/** A row in its slot of the cache. */
interface Placed {
  row: Row
  slot: number
}

function takeNext(waiting: Row[], free: number[]): Placed[] {
  const taken: Placed[] = []
  let tokens = 0
  while (waiting.length > 0 && free.length > 0) {
    const row = waiting[0]!
    tokens += row.ids.length - row.cached
    if (taken.length > 0 && tokens > kPrefillTokens) break
    taken.push({ row, slot: free.shift()! })
    waiting.shift()
  }
  return taken
}

function nextTokens(
  model: Model,
  cache: KvCache,
  group: readonly Placed[],
  options: DecodingOptions,
): Promise<ArrayLike<number>> {
  return isolated(async () => {
    using _ = scope()
    const hidden = forwardCached(
      model,
      cache,
      group.map(({ row, slot }) => ({ slot, start: row.cached, ids: row.ids.slice(row.cached) })),
    )
    const { weight } = model.parameters.lmHead
    const logits = gemm(hidden, weight, { transB: true, dtype: 'f32' })
    const numbers = group.map(({ row }) => {
      return uniform(options.seed, row.index, row.ids.length - row.promptLength)
    })
    const drawn = fromArray(numbers, [group.length], 'f32', model.device)
    return await sample(logits, drawn, options).read()
  })
}

function finish(row: Row, id: number, options: DecodingOptions): FinishReason | undefined {
  if (options.stopIds.has(id)) return 'stop'
  return row.ids.length >= row.maxLength ? 'length' : undefined
}

/** The random number of a token, in [0, 1) and exact in f32. */
export function uniform(seed: number, index: number, token: number): number {
  const x = randomStream(seedOf(seedOf(seed, index), token))()
  return Math.floor(x * 2 ** 24) / 2 ** 24
}

function stopped(): WestwindError {
  return new WestwindError('ERR_ABORTED', 'generation was stopped')
}
