import type { Recording } from '../device/device.js'
import { WestwindError } from '../errors.js'
import { gemm, type SampleOptions, sample } from '../ops/index.js'
import { isolated, keep, own, scope } from '../tensor/scope.js'
import { fromArray, type Tensor } from '../tensor/tensor.js'
import {
  type CacheInput,
  type CacheTokens,
  cacheTokens,
  forwardCached,
  type KvCache,
} from './kv-cache.js'
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
  const steps = new Map<number, RecordedStep>()
  try {
    while (waiting.length + active.length > 0) {
      const joining = takeNext(waiting, free)
      const going = active
      active = []
      for (const group of [joining, going].filter(({ length }) => length > 0)) {
        if (options.signal?.aborted) throw stopped()
        const ids = await nextTokens(model, cache, group, options, steps)
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
  } finally {
    for (const step of steps.values()) step.dispose()
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

/** The next token of each row: of rows that join by the whole prompt, of others by their last token. */
function nextTokens(
  model: Model,
  cache: KvCache,
  group: readonly Placed[],
  options: DecodingOptions,
  steps: Map<number, RecordedStep>,
): Promise<ArrayLike<number>> {
  return isolated(async () => {
    using _ = scope()
    const inputs = group.map(({ row, slot }) => {
      return { slot, start: row.cached, ids: row.ids.slice(row.cached) }
    })
    const numbers = group.map(({ row }) => {
      return uniform(options.seed, row.index, row.ids.length - row.promptLength)
    })
    if (inputs.some(({ start, ids }) => start === 0 || ids.length !== 1)) {
      const drawn = fromArray(numbers, [group.length], 'f32', model.device)
      return await choose(model, cache, cacheTokens(model, inputs), drawn, options).read()
    }
    const step = steps.get(group.length)
    if (step) return await step.run(inputs, numbers)
    const made = new RecordedStep(model, cache, inputs, numbers, options)
    steps.set(group.length, made)
    return await made.chosen.read()
  })
}

function choose(
  model: Model,
  cache: KvCache,
  tokens: CacheTokens,
  drawn: Tensor,
  options: DecodingOptions,
): Tensor {
  using _ = scope()
  const hidden = forwardCached(model, cache, tokens)
  const logits = gemm(hidden, model.parameters.lmHead.weight, { transB: true, dtype: 'f32' })
  return keep(sample(logits, drawn, options))
}

/**
 * A step of one token for each of so many rows, recorded when it first runs: the ops of all later ones
 * are the same but for the contents of their inputs, and hundreds of calls become one.
 */
class RecordedStep {
  readonly #tokens: CacheTokens
  readonly #drawn: Tensor
  readonly #recording: Recording
  readonly chosen: Tensor

  constructor(
    model: Model,
    cache: KvCache,
    inputs: readonly CacheInput[],
    numbers: readonly number[],
    options: DecodingOptions,
  ) {
    const tokens = cacheTokens(model, inputs)
    const drawn = fromArray(numbers, [inputs.length], 'f32', model.device)
    let chosen: Tensor | undefined
    this.#recording = model.device.record(() => {
      chosen = choose(model, cache, tokens, drawn, options)
    })
    this.#tokens = tokens
    this.#drawn = own(drawn)
    for (const x of [tokens.ids, tokens.rows.slot, tokens.rows.position, tokens.last]) own(x)
    this.chosen = own(chosen!)
  }

  run(inputs: readonly CacheInput[], numbers: readonly number[]): Promise<ArrayLike<number>> {
    const { ids, rows } = this.#tokens
    ids.write(inputs.map((input) => input.ids[0]!))
    rows.slot.write(inputs.map(({ slot }) => slot))
    rows.position.write(inputs.map(({ start }) => start))
    this.#drawn.write(numbers)
    this.#recording.replay()
    return this.chosen.read()
  }

  dispose(): void {
    this.#recording.dispose()
    const { ids, rows, last } = this.#tokens
    for (const x of [ids, rows.slot, rows.position, last, this.#drawn, this.chosen]) x.dispose()
  }
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
