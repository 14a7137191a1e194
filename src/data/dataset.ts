import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { WestwindError } from '../errors.js'
import { reason } from '../json.js'
import { throwIfAborted } from './abort.js'
import { cacheRoot, readCache, writeCache } from './cache.js'
import type { ChatTemplate } from './chat-template.js'
import type { EncodeOptions } from './encode.js'
import type { PairExample } from './encode-pair.js'
import { encodeRows, type PoolOptions } from './encode-pool.js'
import type { SftExample } from './encode-sft.js'
import {
  type ChunkEntry,
  chunkEntries,
  type EncodedChunk,
  type EncodeTask,
  usedColumns,
} from './encode-task.js'
import type { Row } from './read-rows.js'
import { type DataStatistics, pairStatistics, sftStatistics } from './statistics.js'
import type { Tokenizer } from './tokenizer/tokenizer.js'

/** Raised whenever the same rows and options would give other tokens than before. */
const encodingVersion = 1

export interface PrepareOptions extends PoolOptions {
  /** Not needed for rows that are tokenised already. */
  tokenizer?: Tokenizer | undefined
  /** Not needed for rows of plain text or ids. */
  template?: ChatTemplate | undefined
  /** Length limit, loss masks and the variants of 2023. */
  encode?: EncodeOptions | undefined
  /** Column with plain text, `text` by default. */
  textField?: string | undefined
  /** What errors call the data, e.g. `train`. */
  name?: string | undefined
  /** Folder of the cache; null: none. Default: {@link cacheRoot}. */
  cacheDir?: string | null | undefined
}

/** A tokenised data set. */
export interface Prepared<Example> {
  /** in the order of the rows */
  examples: Example[]
  /** `[examples]` index of the row that each one comes from */
  rowOf: Int32Array
  statistics: DataStatistics
  /** SHA-256 of rows, tokenizer, template and options: names what is derived from these examples */
  hash: string
  fromCache: boolean
}

/**
 * Tokenises SFT rows in worker threads and keeps the result on disk, under a name that depends on all that it depends
 * on: the second run starts at once. A damaged cache file is made again.
 *
 * @throws ERR_DATA naming the row that is malformed, or saying why nothing is left; ERR_ABORTED
 */
export async function prepareSft(
  rows: readonly Row[],
  options: PrepareOptions,
): Promise<Prepared<SftExample>> {
  const encoded = await encode('sft', 2, rows, options)
  const examples = encoded.entries.map(({ arrays, truncated }): SftExample => {
    const [ids, labels] = arrays
    return { ids: ids!, labels: labels!, ...(truncated && { truncated }) }
  })
  return { ...encoded.rest, examples, statistics: sftStatistics(examples, encoded.counts) }
}

/** Tokenises preference rows; see {@link prepareSft}. */
export async function preparePairs(
  rows: readonly Row[],
  options: PrepareOptions,
): Promise<Prepared<PairExample>> {
  const encoded = await encode('pairs', 3, rows, options)
  const examples = encoded.entries.map(({ arrays, truncated }): PairExample => {
    const [promptIds, chosenIds, rejectedIds] = arrays
    return {
      promptIds: promptIds!,
      chosenIds: chosenIds!,
      rejectedIds: rejectedIds!,
      ...(truncated && { truncated }),
    }
  })
  return { ...encoded.rest, examples, statistics: pairStatistics(examples, encoded.counts) }
}

async function encode(
  kind: EncodeTask['kind'],
  parts: number,
  allRows: readonly Row[],
  options: PrepareOptions,
) {
  const { tokenizer, template, textField = 'text', name = 'data', signal } = options
  const rows = allRows.map((row) => usedColumns(row, textField))
  const task: EncodeTask = {
    kind,
    name,
    options: options.encode ?? {},
    tokenizerFiles: tokenizer?.files,
    templateSource: template?.source,
  }
  const hash = await contentHash(rows, task, tokenizer, signal)
  const directory = options.cacheDir === undefined ? cacheRoot() : options.cacheDir
  const file = directory === null ? undefined : join(directory, 'data', `${hash}.bin`)

  const cached = file && (await readCache(file, hash))
  let entries = cached && allEntries(cached, parts)
  const fromCache = entries !== undefined
  let chunks = cached
  if (!entries || !chunks) {
    chunks = await encodeRows(rows, task, tokenizer, options)
    entries = allEntries(chunks, parts)!
  }
  const dropped = sumCounts(chunks.map((chunk) => chunk.dropped))
  if (entries.length === 0) throw nothingLeft(name, rows.length, dropped)
  if (file && !fromCache) await keepInCache(file, hash, chunks)
  return {
    entries,
    counts: { rows: rows.length, dropped, eosId: tokenizer?.eosId },
    rest: { rowOf: Int32Array.from(entries, ({ row }) => row), hash, fromCache },
  }
}

function allEntries(chunks: readonly EncodedChunk[], parts: number): ChunkEntry[] | undefined {
  const all: ChunkEntry[] = []
  for (const chunk of chunks) {
    const entries = chunkEntries(chunk, parts)
    if (!entries) return undefined
    for (const entry of entries) all.push(entry)
  }
  return all
}

/** A cache that cannot be written (full disk, read-only home) costs time later, not this run. */
async function keepInCache(file: string, hash: string, chunks: EncodedChunk[]): Promise<void> {
  try {
    await writeCache(file, hash, chunks)
  } catch (cause) {
    process.emitWarning(`the tokenised data could not be cached: ${reason(cause)}`)
  }
}

async function contentHash(
  rows: readonly Row[],
  task: EncodeTask,
  tokenizer: Tokenizer | undefined,
  signal: AbortSignal | undefined,
): Promise<string> {
  const hash = createHash('sha256')
  const options = Object.entries(task.options)
    .filter(([, value]) => value !== undefined && value !== null)
    .sort(([a], [b]) => (a < b ? -1 : 1))
  hash.update(
    JSON.stringify([
      encodingVersion,
      task.kind,
      options,
      task.templateSource ?? null,
      tokenizer?.hash ?? null,
    ]),
  )
  const bigintAsText = (_: string, value: unknown) =>
    typeof value === 'bigint' ? `${value}n` : value
  for (const [i, row] of rows.entries()) {
    hash.update(`\n${JSON.stringify(row, bigintAsText)}`)
    if (i % 1000 !== 999) continue
    throwIfAborted(signal)
    await setImmediate()
  }
  return hash.digest('hex')
}

function sumCounts(counts: readonly Record<string, number>[]): Record<string, number> {
  const sum: Record<string, number> = {}
  for (const part of counts) {
    for (const [name, count] of Object.entries(part)) sum[name] = (sum[name] ?? 0) + count
  }
  return sum
}

function nothingLeft(name: string, rows: number, dropped: Record<string, number>): WestwindError {
  const reasons = Object.entries(dropped).map(([why, count]) => `${why}: ${count}`)
  const masked =
    'no label left' in dropped
      ? '. No label left means that the loss mask is zero everywhere: with assistant_only_loss the rows need ' +
        'assistant turns within max_length, with completion_only_loss a completion within it'
      : ''
  const why =
    rows === 0 ? 'there are no rows' : `all ${rows} rows were dropped (${reasons.join(', ')})`
  return new WestwindError('ERR_DATA', `${name}: nothing to train on: ${why}${masked}`)
}
