import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { atomicFile } from '../checkpoint/atomic.js'
import { openCheckpoint } from '../checkpoint/checkpoint.js'
import { cacheRoot } from '../data/cache.js'
import type { PairExample } from '../data/encode.js'
import type { Items } from '../data/items.js'
import { WestwindError } from '../errors.js'
import type { Model } from '../model/model.js'
import { isolated } from '../tensor/scope.js'
import { pairLogps } from './dpo-step.js'

/** Log-probs of every pair under the frozen model that training starts from. */
export interface ReferenceLogps {
  /** `[pairs]`. */
  chosen: Float64Array
  rejected: Float64Array
  fromCache: boolean
}

export interface ReferenceOptions {
  /** Hash of the tokenised pairs. */
  dataHash: string
  /** Pairs per forward pass. */
  batchSize: number
  prefixSharing: boolean
  /** Folder of the cache; null: none. */
  cacheDir?: string | null
  signal?: AbortSignal | undefined
  onProgress?: (done: number, total: number) => void
}

const magic = 'westwind reference 1'

/**
 * Computes the reference's log-probs once and keeps them on disk under a hash of all they depend on:
 * weights, tokenised pairs, dtype, device and instruction set. A damaged file is computed again.
 */
export function referenceLogps(
  model: Model,
  pairs: Items<PairExample>,
  options: ReferenceOptions,
): Promise<ReferenceLogps> {
  return isolated(async () => {
    const folder =
      options.cacheDir === undefined ? join(cacheRoot(), 'reference') : options.cacheDir
    const key = folder === null ? undefined : await referenceKey(model, options)
    const file = folder !== null && key !== undefined ? join(folder, `${key}.bin`) : undefined
    const cached = file && (await readCached(file, pairs.length))
    if (cached) return { ...cached, fromCache: true }
    const computed = await compute(model, pairs, options)
    if (file) await writeCached(file, computed)
    return { ...computed, fromCache: false }
  })
}

async function compute(model: Model, pairs: Items<PairExample>, options: ReferenceOptions) {
  const { batchSize, signal, onProgress } = options
  const chosen = new Float64Array(pairs.length)
  const rejected = new Float64Array(pairs.length)
  // Like lengths together: the longest batch decides the memory, and comes first.
  const lengths = new Int32Array(pairs.length)
  for (let i = 0; i < pairs.length; i++) {
    const { promptIds, chosenIds, rejectedIds } = pairs.at(i)!
    lengths[i] = promptIds.length + chosenIds.length + rejectedIds.length
  }
  const order = Array.from(lengths.keys()).sort((a, b) => lengths[b]! - lengths[a]! || a - b)
  for (let start = 0; start < order.length; start += batchSize) {
    if (signal?.aborted) {
      throw new WestwindError('ERR_ABORTED', 'stopped while the reference log-probs were computed')
    }
    const indices = order.slice(start, start + batchSize)
    const batch = indices.map((i) => pairs.at(i)!)
    const logps = await pairLogps(model, batch, options)
    for (const [at, i] of indices.entries()) {
      chosen[i] = logps.chosen[at]!
      rejected[i] = logps.rejected[at]!
    }
    onProgress?.(Math.min(start + batchSize, order.length), order.length)
  }
  return { chosen, rejected }
}

/** undefined for a model that has no files: its weights cannot be named. */
async function referenceKey(model: Model, options: ReferenceOptions): Promise<string | undefined> {
  if (!model.path) return undefined
  const hash = createHash('sha256')
  const { dtype, device, config } = model
  const { dataHash, prefixSharing } = options
  hash.update(JSON.stringify([magic, dataHash, prefixSharing, dtype, device.name, device.isa]))
  hash.update(JSON.stringify(config.raw))
  const { tensors } = await openCheckpoint(model.path)
  for (const file of [...new Set([...tensors.values()].map((tensor) => tensor.file))].sort()) {
    for await (const chunk of createReadStream(file, { highWaterMark: 1 << 22 })) hash.update(chunk)
  }
  return hash.digest('hex')
}

async function readCached(file: string, count: number) {
  const bytes = await readFile(file).catch(() => undefined)
  const header = magic.length + 32
  if (!bytes || bytes.length !== header + 16 * count) return undefined
  if (bytes.toString('latin1', 0, magic.length) !== magic) return undefined
  const body = bytes.subarray(header)
  const digest = createHash('sha256').update(body).digest()
  if (!digest.equals(bytes.subarray(magic.length, header))) return undefined
  const values = new Float64Array(new Uint8Array(body).buffer)
  return { chosen: values.subarray(0, count), rejected: values.subarray(count) }
}

async function writeCached(
  file: string,
  logps: { chosen: Float64Array; rejected: Float64Array },
): Promise<void> {
  const body = Buffer.concat(
    [logps.chosen, logps.rejected].map((x) => Buffer.from(x.buffer, x.byteOffset, x.byteLength)),
  )
  const digest = createHash('sha256').update(body).digest()
  await mkdir(dirname(file), { recursive: true })
  await atomicFile(file, Buffer.concat([Buffer.from(magic, 'latin1'), digest, body]))
}

/**
 * Largest difference between policy and reference on a few pairs, before the first step: they are the
 * same model, so only rounding may differ.
 *
 * @throws ERR_REFERENCE when the difference is real, with the likely causes
 */
export async function checkReference(
  model: Model,
  pairs: Items<PairExample>,
  reference: ReferenceLogps,
  options: { indices: readonly number[]; prefixSharing: boolean },
): Promise<number> {
  const { indices } = options
  const policy = await isolated(() =>
    pairLogps(
      model,
      indices.map((i) => pairs.at(i)!),
      options,
    ),
  )
  let largest = 0
  let worst = 0
  for (const [at, i] of indices.entries()) {
    for (const kind of ['chosen', 'rejected'] as const) {
      const expected = reference[kind][i]!
      const delta = Math.abs(policy[kind][at]! - expected)
      const excess = delta / Math.max(1, Math.abs(expected))
      largest = Math.max(largest, Number.isNaN(delta) ? Number.POSITIVE_INFINITY : delta)
      worst = Math.max(worst, Number.isNaN(excess) ? Number.POSITIVE_INFINITY : excess)
    }
  }
  const bound = model.dtype === 'f32' ? 1e-4 : 1e-2
  if (worst <= bound) return largest
  throw new WestwindError(
    'ERR_REFERENCE',
    `policy and reference must be the same model before the first step, but their log-probs differ by up to ${largest.toPrecision(3)}. ` +
      'Likely causes: the weights of model_name_or_path changed since the reference log-probs were cached, or they are not ' +
      'finite. Delete the folder "reference" of the cache (WESTWIND_CACHE), and try --dtype=float32.',
  )
}
