import {
  attention,
  type CacheRows,
  decodeAttention,
  embedding,
  kvAppend,
  type LayerCache,
  rmsNorm,
  type Segments,
} from '../ops/index.js'
import { keep, own, scope } from '../tensor/scope.js'
import { empty, fromArray, type Tensor } from '../tensor/tensor.js'
import type { Model } from './model.js'
import type { LayerParameters } from './parameters.js'
import { attentionOptions, finalNorm, runBlock } from './transformer.js'

/**
 * Keys and values of past tokens: `slots` sequences of up to `length` tokens, in every layer, in the
 * model's dtype. Dispose it.
 */
export class KvCache {
  readonly slots: number
  readonly length: number
  /** @internal */
  readonly layers: LayerCache[] = []

  /** @throws ERR_OUT_OF_MEMORY */
  constructor(model: Model, slots: number, length: number) {
    this.slots = slots
    this.length = length
    const { layers, kvHeads, headDim } = model.config
    const shape = [slots, length, kvHeads, headDim]
    const half = () => own(empty(shape, model.dtype, model.device, 'workspace'))
    try {
      for (let i = 0; i < layers; i++) {
        const k = half()
        try {
          this.layers.push({ k, v: half() })
        } catch (error) {
          k.dispose()
          throw error
        }
      }
    } catch (error) {
      this.dispose()
      throw error
    }
  }

  /** A second call does nothing. */
  dispose(): void {
    for (const { k, v } of this.layers) {
      k.dispose()
      v.dispose()
    }
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** What one slot of the cache takes in: `ids` at the places from `start`. */
export interface CacheInput {
  slot: number
  start: number
  /** At least one. */
  ids: readonly number[]
}

/**
 * Hidden states after the final norm, `[inputs, C]`, of the last token of each input; keys and values
 * of all their tokens join the cache. Enqueues ops alone, so that a step can be recorded.
 */
export function forwardCached(model: Model, cache: KvCache, tokens: CacheTokens): Tensor {
  using _ = scope()
  const { parameters } = model
  let h = embedding(parameters.embedding.weight, tokens.ids)
  let delta: Tensor | undefined
  for (const [i, layer] of parameters.layers.entries()) {
    const after = cachedBlock(model, layer, cache.layers[i]!, tokens, h, delta)
    h.dispose()
    delta?.dispose()
    h = after.h
    delta = after.delta
  }
  const final = rmsNorm(...finalNorm(model, h, delta))
  return keep(embedding(final.y, tokens.last))
}

/** What a step takes in, on the device. */
export interface CacheTokens {
  /** `[T]` i32. */
  ids: Tensor
  rows: CacheRows
  /** `[inputs]` i32: the row of the last token of each input. */
  last: Tensor
  /** Undefined: attend over the cache. */
  segments: Segments | undefined
}

/**
 * Inputs that all start at 0 are whole documents and run as one packed row of segments; others see what
 * their slot holds before them.
 */
export function cacheTokens(model: Model, inputs: readonly CacheInput[]): CacheTokens {
  const ids: number[] = []
  const slot: number[] = []
  const position: number[] = []
  const ends = [0]
  for (const input of inputs) {
    for (const [i, id] of input.ids.entries()) {
      ids.push(id)
      slot.push(input.slot)
      position.push(input.start + i)
    }
    ends.push(ids.length)
  }
  const put = (values: number[]) => fromArray(values, [values.length], 'i32', model.device)
  const rows = { slot: put(slot), position: put(position) }
  const last = put(ends.slice(1).map((end) => end - 1))
  const fresh = inputs.every(({ start }) => start === 0)
  const segments = fresh
    ? { start: put(ends), prefix: put(inputs.map(() => -1)), positions: rows.position }
    : undefined
  return { ids: put(ids), rows, last, segments }
}

/** One block of the transformer as in forward, with the cache in place of saved activations. */
function cachedBlock(
  { config }: Model,
  layer: LayerParameters,
  cache: LayerCache,
  tokens: CacheTokens,
  stream: Tensor,
  before: Tensor | undefined,
): { h: Tensor; delta: Tensor } {
  using _ = scope()
  const options = attentionOptions(config)
  const { rows, segments } = tokens
  const { second, delta } = runBlock(config, layer, rows.position, { stream, before }, (qkv) => {
    kvAppend(qkv, cache, rows, options)
    return segments
      ? attention(qkv, segments, options)
      : { out: decodeAttention(qkv, cache, rows, options) }
  })
  return { h: keep(second.sum), delta: keep(delta) }
}
