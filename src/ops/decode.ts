import { atLeast, type Check, fields, finite, integer, maxSize } from '../arguments.js'
import { native } from '../native/addon.js'
import { checkTensor, empty, type Tensor } from '../tensor/tensor.js'
import type { AttentionOptions } from './attention.js'
import { check, checkArgs, checkAttentionOptions, checkHeads, floats, type Heads } from './check.js'

/** Keys and values of past tokens, of one layer. */
export interface LayerCache {
  /** `[slots, length, kvHeads, D]`. */
  k: Tensor
  v: Tensor
}

/** Where rows stand in a cache. */
export interface CacheRows {
  /** `[T]` i32. */
  slot: Tensor
  /** `[T]` i32: place in the slot. */
  position: Tensor
}

const checkCache: Check<LayerCache> = fields<LayerCache>({ k: checkTensor, v: checkTensor })
const checkRows: Check<CacheRows> = fields<CacheRows>({ slot: checkTensor, position: checkTensor })

function cacheDims(op: string, qkv: Tensor, cache: LayerCache, rows: CacheRows, o: Heads) {
  checkCache(cache, `${op}: cache`)
  checkRows(rows, `${op}: rows`)
  return checkArgs<'T' | 'D' | 'slots' | 'length'>(op, {
    qkv: [qkv, floats, ['T', o.heads + 2 * o.kvHeads, 'D']],
    'cache.k': [cache.k, 'like qkv', ['slots', 'length', o.kvHeads, 'D']],
    'cache.v': [cache.v, 'like qkv', ['slots', 'length', o.kvHeads, 'D']],
    'rows.slot': [rows.slot, 'i32', ['T']],
    'rows.position': [rows.position, 'i32', ['T']],
  })
}

/**
 * Copies k and v of each row into the cache.
 *
 * @param qkv `[T, heads + 2·kvHeads, D]`, rope applied
 * @throws at the next wait, if a slot or position is outside the cache
 */
export function kvAppend(qkv: Tensor, cache: LayerCache, rows: CacheRows, options: Heads): void {
  native().kvAppend(...copyArgs('kvAppend', qkv, cache, rows, options))
}

/**
 * The other way: k and v of each row become those at its place in the cache; q is left as it is.
 *
 * @param qkv `[T, heads + 2·kvHeads, D]`
 * @throws at the next wait, if a slot or position is outside the cache
 */
export function kvGather(qkv: Tensor, cache: LayerCache, rows: CacheRows, options: Heads): void {
  native().kvGather(...copyArgs('kvGather', qkv, cache, rows, options))
}

function copyArgs(op: string, qkv: Tensor, cache: LayerCache, rows: CacheRows, options: Heads) {
  checkHeads(op, options)
  const { T, D, slots, length } = cacheDims(op, qkv, cache, rows, options)
  const { heads, kvHeads } = options
  return [
    ...([qkv.handle, cache.k.handle, cache.v.handle] as const),
    ...([rows.slot.handle, rows.position.handle] as const),
    ...([T, slots, length, heads, kvHeads, D] as const),
  ] as const
}

/**
 * Attention of each row over its slot of the cache, up to and with its own position.
 *
 * @param qkv `[T, heads + 2·kvHeads, D]`; only q is read, k and v must be in the cache already
 * @returns `[T, heads, D]`
 */
export function decodeAttention(
  qkv: Tensor,
  cache: LayerCache,
  rows: CacheRows,
  options: AttentionOptions,
): Tensor {
  checkAttentionOptions('decodeAttention', options)
  const { T, D, slots, length, device } = cacheDims('decodeAttention', qkv, cache, rows, options)
  const out = empty([T, options.heads, D], qkv.dtype, device)
  const { window, scale = 1 / Math.sqrt(D) } = options
  native().decodeAttention(
    ...([
      qkv.handle,
      cache.k.handle,
      cache.v.handle,
      rows.slot.handle,
      rows.position.handle,
    ] as const),
    ...([
      out.handle,
      T,
      slots,
      length,
      options.heads,
      options.kvHeads,
      D,
      window ?? 0,
      scale,
    ] as const),
  )
  return out
}

export interface SampleOptions {
  /** 0: the most likely token. */
  temperature: number
  /** Keep the k most likely; 0: all. */
  topK: number
  /** Keep the smallest set that has this mass; 1: all. */
  topP: number
}

const checkSampleOptions: Check<SampleOptions> = fields<SampleOptions>({
  temperature: atLeast(0),
  topK: integer(0, maxSize),
  topP: finite,
})

/**
 * The next token of each row.
 *
 * @param logits `[B, V]`
 * @param uniform `[B]` f32 in [0, 1): the random number of each row
 * @returns `[B]` i32
 */
export function sample(logits: Tensor, uniform: Tensor, options: SampleOptions): Tensor {
  const { B, V, device } = checkArgs<'B' | 'V'>('sample', {
    logits: [logits, floats, ['B', 'V']],
    uniform: [uniform, 'f32', ['B']],
  })
  checkSampleOptions(options, 'sample: options')
  const { temperature, topK, topP } = options
  check('sample', topP > 0 && topP <= 1, 'topP must be in (0, 1]', topP)
  const out = empty([B], 'i32', device)
  native().sample(logits.handle, uniform.handle, out.handle, B, V, temperature, topK, topP)
  return out
}
