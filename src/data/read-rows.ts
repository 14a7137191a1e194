import { createReadStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { setImmediate } from 'node:timers/promises'
import { promisify, TextDecoder } from 'node:util'
import { createGunzip, gunzip } from 'node:zlib'
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'
import {
  abortSignal,
  type Check,
  fields,
  list,
  optional,
  path,
  readable,
  text,
} from '../arguments.js'
import { refuse, WestwindError } from '../errors.js'
import { isRecord, reason, showJson } from '../json.js'
import { throwIfAborted } from './abort.js'

/** One row of a data set: column name to value. */
export type Row = Record<string, unknown>

export const checkRows: Check<Iterable<Row>> = readable((value, where) => {
  const good = typeof value === 'object' && value !== null && Symbol.iterator in value
  if (!good || typeof value[Symbol.iterator] !== 'function') {
    refuse(where, 'an iterable of rows', value)
  }
})

/** Extensions of data files, the preferred one first where a split exists in several formats. */
export const dataExtensions = ['.parquet', '.jsonl', '.jsonl.gz', '.json', '.json.gz'] as const

export interface ReadOptions {
  /** Columns to keep; all by default. One that the file lacks is an error. */
  columns?: readonly string[] | undefined
  signal?: AbortSignal | undefined
}

const checkOptions: Check<ReadOptions> = fields<ReadOptions>({
  columns: optional(list(text)),
  signal: optional(abortSignal),
})

/**
 * Rows of one file, by its extension: Parquet (zstd, snappy, gzip, …), JSON Lines, JSON, the last two also gzipped.
 * Parquet is read one row group at a time, JSON Lines as a stream, so the event loop keeps turning.
 *
 * @throws ERR_DATA naming the file and, for JSON Lines, the line
 */
export async function readRows(file: string, options: ReadOptions = {}): Promise<Row[]> {
  path(file, 'readRows: file')
  checkOptions(options, 'readRows: options')
  try {
    if (file.endsWith('.parquet')) return await readParquet(file, options)
    const rows = /\.json(\.gz)?$/.test(file) ? await readJson(file) : undefined
    return select(file, rows ?? (await readJsonLines(file, options)), options.columns)
  } catch (cause) {
    if (cause instanceof WestwindError) throw cause
    throwIfAborted(options.signal)
    throw new WestwindError('ERR_DATA', `${file}: cannot be read: ${reason(cause)}`, { cause })
  }
}

/** A string may begin with U+FEFF, which a plain TextDecoder would take for a byte order mark and drop. */
const utf8 = new TextDecoder('utf-8', { ignoreBOM: true })
const parsers = { stringFromBytes: (bytes: Uint8Array | undefined) => bytes && utf8.decode(bytes) }

async function readParquet(path: string, { columns, signal }: ReadOptions): Promise<Row[]> {
  const file = await asyncBufferFromFile(path)
  const metadata = await parquetMetadataAsync(file)
  const present = new Set(metadata.schema.slice(1).map(({ name }) => name))
  for (const column of columns ?? []) {
    if (!present.has(column)) throw missingColumn(path, column, topLevel(metadata.schema))
  }
  const rows: Row[] = []
  let rowStart = 0
  for (const group of metadata.row_groups) {
    throwIfAborted(signal)
    const rowEnd = rowStart + Number(group.num_rows)
    const read = { file, metadata, compressors, parsers, rowStart, rowEnd }
    const objects = await parquetReadObjects(columns ? { ...read, columns: [...columns] } : read)
    for (const object of objects) rows.push(plain(object))
    rowStart = rowEnd
    await setImmediate()
  }
  return rows
}

/** The names of the columns themselves: a schema is a tree in depth-first order. */
function topLevel(
  schema: readonly { name: string; num_children?: number | undefined }[],
): string[] {
  const names: string[] = []
  let at = 1
  const skip = () => {
    const children = schema[at++]?.num_children ?? 0
    for (let i = 0; i < children; i++) skip()
  }
  while (at < schema.length) {
    names.push(schema[at]!.name)
    skip()
  }
  return names
}

/** Parquet's 64-bit integers as numbers, as strings where a number cannot hold them. */
function plain(object: Row): Row {
  for (const key in object) object[key] = plainValue(object[key])
  return object
}

function plainValue(value: unknown): unknown {
  if (typeof value === 'bigint') {
    const number = Number(value)
    return Number.isSafeInteger(number) ? number : value.toString()
  }
  if (value === null || typeof value !== 'object' || value instanceof Date) return value
  if (value instanceof BigInt64Array || value instanceof BigUint64Array) {
    return Array.from(value, plainValue)
  }
  if (ArrayBuffer.isView(value)) return value
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) value[i] = plainValue(value[i])
    return value
  }
  return isRecord(value) ? plain(value) : value
}

async function readJsonLines(file: string, { signal }: ReadOptions): Promise<Row[]> {
  const stream = createReadStream(file, signal ? { signal } : {})
  const source = file.endsWith('.gz') ? stream.pipe(createGunzip()) : stream
  if (source !== stream) stream.on('error', (error) => source.destroy(error))
  const rows: Row[] = []
  const text = new TextDecoder('utf-8', { fatal: true })
  let number = 0
  const add = (bytes: Uint8Array) => {
    number++
    rows.push(...parseLine(text, bytes, `${file}:${number}`))
  }
  // Only the byte \n ends a line: U+2028 and U+0085 are ordinary characters of a JSON string.
  let pending: Buffer[] = []
  for await (const piece of source) {
    const chunk: Buffer = piece
    let start = 0
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      const tail = chunk.subarray(start, end)
      add(pending.length === 0 ? tail : Buffer.concat([...pending, tail]))
      pending = []
      start = end + 1
    }
    if (start < chunk.length) pending.push(chunk.subarray(start))
    if (number % 1000 === 0) await setImmediate()
  }
  if (pending.length > 0) add(Buffer.concat(pending))
  return rows
}

/** No row for an empty line. */
function parseLine(text: TextDecoder, bytes: Uint8Array, where: string): Row[] {
  let value: unknown
  try {
    const line = text.decode(bytes).trim()
    if (line === '') return []
    value = JSON.parse(line)
  } catch (cause) {
    const why = cause instanceof SyntaxError ? cause.message : 'not UTF-8'
    throw new WestwindError('ERR_DATA', `${where}: not a JSON object on one line: ${why}`, {
      cause,
    })
  }
  if (isRecord(value)) return [value]
  throw new WestwindError('ERR_DATA', `${where}: expected a JSON object, got ${showJson(value)}`)
}

/** The rows of a JSON array; undefined for a file of lines, as many `.json` files are. */
async function readJson(file: string): Promise<Row[] | undefined> {
  const bytes = await readFile(file)
  const text = (file.endsWith('.gz') ? await promisify(gunzip)(bytes) : bytes).toString('utf8')
  if (!text.trimStart().startsWith('[')) return undefined
  let values: unknown
  try {
    values = JSON.parse(text)
  } catch (cause) {
    throw new WestwindError('ERR_DATA', `${file}: not valid JSON: ${reason(cause)}`, { cause })
  }
  if (!Array.isArray(values)) return undefined
  return values.map((value: unknown, i) => {
    if (isRecord(value)) return value
    throw new WestwindError(
      'ERR_DATA',
      `${file}: element ${i + 1}: expected an object, got ${showJson(value)}`,
    )
  })
}

/** Keeps the named columns. A row may lack some: JSON leaves out what is null. */
function select(file: string, rows: Row[], columns: readonly string[] | undefined): Row[] {
  if (!columns || rows.length === 0) return rows
  const present = new Set<string>()
  for (const row of rows) for (const key in row) present.add(key)
  for (const column of columns) {
    if (!present.has(column)) throw missingColumn(file, column, [...present])
  }
  return rows.map((row) =>
    Object.fromEntries(columns.map((column) => [column, row[column] ?? null])),
  )
}

function missingColumn(file: string, column: string, present: readonly string[]): WestwindError {
  return new WestwindError(
    'ERR_DATA',
    `${file}: no column "${column}"; the columns are ${present.join(', ')}`,
  )
}
