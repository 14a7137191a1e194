import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { WestwindError } from '../errors.js'
import { reason } from '../json.js'
import { throwIfAborted } from './abort.js'
import { cacheRoot, openCache, writeCache } from './cache.js'
import type { ChatTemplate } from './chat-template.js'
import type { EncodeOptions } from './encode.js'
import type { PairExample } from './encode-pair.js'
import { encodeRows, type PoolOptions } from './encode-pool.js'
import type { SftExample } from './encode-sft.js'
import { type EncodeTask, usedColumns } from './encode-task.js'
import {
  arraysOf,
  count,
  type Encoded,
  isTruncated,
  joinChunks,
  lengthsOf,
  rowsOf,
  type Tokens,
} from './encoded.js'
import { type Items, items } from './items.js'
import type { Row } from './read-rows.js'
import { type Counts, type DataStatistics, pairStatistics, sftStatistics } from './statistics.js'
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
  /** in the order of the rows; those in the cache are read when they are asked for */
  examples: Items<Example>
  /** `[examples]` tokens of each one; of a pair with its prompt once */
  lengths: Int32Array
  /** `[examples]` index of the row that each one comes from */
  rowOf: Int32Array
  statistics: DataStatistics
  /** SHA-256 of rows, tokenizer, template and options: names what is derived from these examples */
  hash: string
  fromCache: boolean
}

/** What rows become. */
export interface DataKind<Example> {
  name: EncodeTask['kind']
  /** Arrays that an example has; the first of them hold tokens, labels come after. */
  parts: number
  tokenArrays: number
  example: (arrays: readonly Int32Array[]) => Example & { truncated?: boolean }
  statistics: (examples: Items<Example>, counts: Counts) => DataStatistics
}

export const sftData: DataKind<SftExample> = {
  name: 'sft',
  parts: 2,
  tokenArrays: 1,
  example: ([ids, labels]) => ({ ids: ids!, labels: labels! }),
  statistics: sftStatistics,
}

export const pairData: DataKind<PairExample> = {
  name: 'pairs',
  parts: 3,
  tokenArrays: 3,
  example: ([promptIds, chosenIds, rejectedIds]) => ({
    promptIds: promptIds!,
    chosenIds: chosenIds!,
    rejectedIds: rejectedIds!,
  }),
  statistics: pairStatistics,
}

/**
 * Tokenises SFT rows in worker threads and keeps the result on disk, under a name that depends on all that it depends
 * on: the second run starts at once. A damaged cache file is made again.
 *
 * @throws ERR_DATA naming the row that is malformed, or saying why nothing is left; ERR_ABORTED
 */
export function prepareSft(
  rows: readonly Row[],
  options: PrepareOptions,
): Promise<Prepared<SftExample>> {
  return prepare(sftData, rows, options)
}

/** Tokenises preference rows; see {@link prepareSft}. */
export function preparePairs(
  rows: readonly Row[],
  options: PrepareOptions,
): Promise<Prepared<PairExample>> {
  return prepare(pairData, rows, options)
}

/** Tokenises rows of either kind; see {@link prepareSft}. */
export async function prepare<Example>(
  kind: DataKind<Example>,
  allRows: readonly Row[],
  options: PrepareOptions,
): Promise<Prepared<Example>> {
  const { tokenizer, template, textField = 'text', name = 'data', signal } = options
  const rows = allRows.map((row) => usedColumns(row, textField))
  const hash = await contentHash(rows, encodingKey(kind, options), signal)
  const cached = await openPrepared(kind, hash, options)
  if (cached) return cached
  const task: EncodeTask = {
    kind: kind.name,
    name,
    options: options.encode ?? {},
    tokenizerFiles: tokenizer?.files,
    templateSource: template?.source,
  }
  const chunks = await encodeRows(rows, task, tokenizer, options)
  const dropped = sumCounts(chunks.map((chunk) => chunk.dropped))
  const joined = joinChunks(chunks, kind.parts)
  if (count(joined) === 0) throw nothingLeft(name, rows.length, dropped)
  const examples = exampleItems(kind, joined)
  const counts = { rows: rows.length, dropped, eosId: tokenizer?.eosId }
  const encoded = { ...joined, statistics: kind.statistics(examples, counts) }
  const file = cacheFile(hash, options)
  const kept = file && (await keepInCache(file, hash, encoded))
  return preparedOf(kind, kept || encoded, hash, false)
}

/** What is in the cache under the hash of an earlier {@link Prepared}; undefined where that is missing or damaged. */
export async function openPrepared<Example>(
  kind: DataKind<Example>,
  hash: string,
  options: Pick<PrepareOptions, 'cacheDir'>,
): Promise<Prepared<Example> | undefined> {
  const file = cacheFile(hash, options)
  const encoded = file && (await openCache(file, hash, kind.parts))
  return encoded ? preparedOf(kind, encoded, hash, true) : undefined
}

function cacheFile(hash: string, { cacheDir }: Pick<PrepareOptions, 'cacheDir'>) {
  const directory = cacheDir === undefined ? cacheRoot() : cacheDir
  return directory === null ? undefined : join(directory, 'data', `${hash}.bin`)
}

function preparedOf<Example>(
  kind: DataKind<Example>,
  encoded: Encoded,
  hash: string,
  fromCache: boolean,
): Prepared<Example> {
  return {
    examples: exampleItems(kind, encoded),
    lengths: lengthsOf(encoded, kind.tokenArrays),
    rowOf: rowsOf(encoded),
    statistics: encoded.statistics,
    ...{ hash, fromCache },
  }
}

function exampleItems<Example>(kind: DataKind<Example>, encoded: Tokens): Items<Example> {
  return items(count(encoded), (i) => {
    const example = kind.example(arraysOf(encoded, i))
    return isTruncated(encoded, i) ? { ...example, truncated: true } : example
  })
}

/**
 * Keeps examples on disk and gives them back from there, so that memory is free of them. A cache that cannot be
 * written (full disk, read-only home) costs time later, not this run.
 */
async function keepInCache(
  file: string,
  hash: string,
  encoded: Encoded,
): Promise<Encoded | undefined> {
  try {
    await writeCache(file, hash, encoded)
  } catch (cause) {
    process.emitWarning(`the tokenised data could not be cached: ${reason(cause)}`)
    return undefined
  }
  return openCache(file, hash, encoded.parts)
}

/** All that the tokens depend on but the rows. */
export function encodingKey(
  { name }: Pick<DataKind<unknown>, 'name'>,
  { encode = {}, template, tokenizer }: PrepareOptions,
): string {
  const options = Object.entries(encode)
    .filter(([, value]) => value !== undefined && value !== null)
    .sort(([a], [b]) => (a < b ? -1 : 1))
  const parts = [encodingVersion, name, options, template?.source ?? null, tokenizer?.hash ?? null]
  return JSON.stringify(parts)
}

async function contentHash(
  rows: readonly Row[],
  key: string,
  signal: AbortSignal | undefined,
): Promise<string> {
  const hash = createHash('sha256').update(key)
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
