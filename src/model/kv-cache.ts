import {
  attention,
  type CacheRows,
  decodeAttention,
  embedding,
  kvAppend,
  kvGather,
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

/** New tokens of a sequence: `ids` at the places from `start` of a slot. */
export interface CacheInput {
  slot: number
  start: number
  /** At least one. */
  ids: readonly number[]
  /** The slot that holds the `start` tokens before them; they are copied where it is another one. */
  from: number
}

/** What a step takes in, on the device. */
export interface CacheTokens {
  /** `[N]` i32: the new tokens of all inputs. */
  ids: Tensor
  /** `[N]` i32. */
  positions: Tensor
  /** Where all rows that attention sees go: those taken from the cache, then the new ones. */
  rows: CacheRows
  /** Undefined: one new token per slot, which attends over the cache. */
  packed?: { taken: CacheRows; segments: Segments }
}

/**
 * Prompts, or parts of them. What is new of an input is a segment whose prefix, a segment too, is taken from the
 * cache: attention cuts keys by their logical order, so the bits are those of the whole prompt in one piece.
 */
export function promptTokens(model: Model, inputs: readonly CacheInput[]): CacheTokens {
  const taken = inputs.filter(({ start }) => start > 0)
  const starts = [0]
  const prefix: number[] = []
  const [slots, sources, positions, ids]: number[][] = [[], [], [], []]
  for (const { slot, from, start } of taken) {
    for (let i = 0; i < start; i++) {
      slots!.push(slot)
      sources!.push(from)
      positions!.push(i)
    }
    starts.push(positions!.length)
    prefix.push(kKeysOnly)
  }
  const before = positions!.length
  let next = 0
  for (const input of inputs) {
    for (const [i, id] of input.ids.entries()) {
      slots!.push(input.slot)
      positions!.push(input.start + i)
      ids!.push(id)
    }
    starts.push(positions!.length)
    prefix.push(input.start > 0 ? next++ : -1)
  }
  const put = (values: number[]) => fromArray(values, [values.length], 'i32', model.device)
  const all = put(positions!)
  return {
    ids: put(ids!),
    positions: all.rows(before, ids!.length),
    rows: { slot: put(slots!), position: all },
    packed: {
      taken: { slot: put(sources!), position: all.rows(0, before) },
      segments: { start: put(starts), prefix: put(prefix), positions: all },
    },
  }
}

/** Of a segment that asks nothing: its rows are keys alone. */
const kKeysOnly = -2

/** The last token of a sequence for each of so many slots. */
export function decodeTokens(model: Model, inputs: readonly CacheInput[]): CacheTokens {
  const put = (values: number[]) => fromArray(values, [values.length], 'i32', model.device)
  const positions = put(inputs.map(({ start }) => start))
  const slot = put(inputs.map((input) => input.slot))
  const ids = put(inputs.map((input) => input.ids[0]!))
  return { ids, positions, rows: { slot, position: positions } }
}

/**
 * Hidden states `[N, C]` after the final norm of the new tokens; their keys and values join the cache. Enqueues
 * ops alone, so that a step can be recorded.
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
  return keep(rmsNorm(...finalNorm(model, h, delta)).y)
}

/** One block of the transformer as in forward, with the cache in place of saved activations. */
function cachedBlock(
  model: Model,
  layer: LayerParameters,
  cache: LayerCache,
  tokens: CacheTokens,
  stream: Tensor,
  before: Tensor | undefined,
): { h: Tensor; delta: Tensor } {
  using _ = scope()
  const { config } = model
  const options = attentionOptions(config)
  const { rows, packed, positions } = tokens
  const run = (attend: (qkv: Tensor) => { out: Tensor }, into?: Tensor) => {
    const after = runBlock(config, layer, positions, { stream, before }, attend, into)
    return { h: keep(after.second.sum), delta: keep(after.delta) }
  }
  if (!packed) {
    return run((qkv) => {
      kvAppend(qkv, cache, rows, options)
      return { out: decodeAttention(qkv, cache, rows, options) }
    })
  }
  const [all, fresh] = [rows.position.size, positions.size]
  const heads = config.heads + 2 * config.kvHeads
  const qkv = empty([all, heads, config.headDim], model.dtype, model.device)
  return run(
    () => {
      kvGather(qkv.rows(0, all - fresh), cache, packed.taken, options)
      kvAppend(qkv, cache, rows, options)
      return { out: attention(qkv, packed.segments, options).out.rows(all - fresh, fresh) }
    },
    qkv.rows(all - fresh, fresh),
  )
}
