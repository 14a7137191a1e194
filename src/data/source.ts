import { readdir, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { WestwindError } from '../errors.js'
import { resolveRepo } from '../hub.js'
import { dataExtensions, type Row, readRows } from './read-rows.js'

export type { Row } from './read-rows.js'

/** A split of a data set. */
export interface DataRef {
  /** A local file or folder, or a Hub id (`owner/name`). */
  id: string
  /** A folder of this name inside the data set; null or `default` is the data set itself. */
  config?: string | null | undefined
  /** Branch, tag or commit of a Hub id. */
  revision?: string | null | undefined
  split: string
  /** Columns to keep; all by default. */
  columns?: readonly string[] | null | undefined
}

/** What a data set is read with. */
export interface LoadOptions {
  /** Turns a Hub id into a local folder; by default {@link resolveRepo}. */
  resolve?: ((id: string, revision: string | undefined) => Promise<string>) | undefined
  signal?: AbortSignal | undefined
}

/**
 * Rows of one split. In a folder the name of a file is its split: `train_sft.parquet`,
 * `train_sft-00000-of-00003-<hash>.parquet` (shards in order), `test_sft.jsonl.gz`, or any data files in a folder
 * `train_sft/`; looked for in the folder itself, then in `data/`. A single file serves every split but one that is
 * named differently on purpose: `test.jsonl` is no `train`.
 *
 * @throws ERR_DATA naming the splits that exist, or the file and line that is malformed
 */
export async function loadRows(ref: DataRef, options: LoadOptions = {}): Promise<Row[]> {
  const files = await dataFiles(ref, options)
  const columns = ref.columns ?? undefined
  const parts: Row[][] = []
  for (const file of files) parts.push(await readRows(file, { columns, signal: options.signal }))
  const rows = parts.flat()
  if (rows.length === 0) throw new WestwindError('ERR_DATA', `${files.join(', ')}: no rows`)
  return rows
}

/** A {@link LoadOptions.resolve} that asks the Hub once for each data set. */
export function resolveOnce(): NonNullable<LoadOptions['resolve']> {
  const known = new Map<string, Promise<string>>()
  return (id, revision) => {
    const name = JSON.stringify([id, revision])
    const found = known.get(name) ?? resolveDataset(id, revision)
    known.set(name, found)
    return found
  }
}

function resolveDataset(id: string, revision: string | undefined): Promise<string> {
  return resolveRepo(id, { type: 'dataset', ...(revision !== undefined && { revision }) })
}

/** The files that hold a split, in their order; see {@link loadRows}. */
export async function dataFiles(ref: DataRef, options: LoadOptions = {}): Promise<string[]> {
  return splitFiles(await locate(ref, options), ref)
}

async function locate(ref: DataRef, options: LoadOptions): Promise<string> {
  if (await stat(ref.id).catch(() => undefined)) return ref.id
  if (!/^[\w.-]+\/[\w.-]+$/.test(ref.id) || /^\.{1,2}\//.test(ref.id) || extensionOf(ref.id)) {
    throw new WestwindError(
      'ERR_DATA',
      `data set "${ref.id}": no such file or folder, and not a Hub id (owner/name)`,
    )
  }
  const revision = ref.revision ?? undefined
  return (options.resolve ?? resolveDataset)(ref.id, revision)
}

async function splitFiles(root: string, ref: DataRef): Promise<string[]> {
  const { split } = ref
  if ((await stat(root)).isFile()) {
    if (!extensionOf(root)) throw unknownFormat(root)
    const name = splitOf(basename(root))
    const kind = (text: string) => text.match(/(?<![a-z])(train|test|eval|valid)/)?.[0]
    if (name === split || !kind(name) || kind(name) === kind(split)) return [root]
    throw missingSplit(ref, [name])
  }
  const named = ref.config && ref.config !== 'default' ? ref.config : undefined
  const folders = named
    ? [join(root, named), join(root, 'data', named)]
    : [root, join(root, 'data'), join(root, 'default')]
  const found = new Set<string>()
  for (const folder of folders) {
    const splits = await splitsOf(folder)
    const files = splits.get(split)
    if (files) return files
    for (const name of splits.keys()) found.add(name)
  }
  throw missingSplit(ref, [...found].sort())
}

/** Data files of a folder by split; of a split in several formats only the preferred one. */
async function splitsOf(folder: string): Promise<Map<string, string[]>> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => [])
  const splits = new Map<string, string[]>()
  for (const entry of entries) {
    // links too: the Hub's cache holds files as links
    const inside = await readdir(join(folder, entry.name)).catch(() => undefined)
    if (inside === undefined && extensionOf(entry.name)) {
      const split = splitOf(entry.name)
      splits.set(split, [...(splits.get(split) ?? []), join(folder, entry.name)])
    }
    const files = inside?.filter((name) => extensionOf(name)) ?? []
    if (files.length > 0 && entry.name !== 'data' && !splits.has(entry.name)) {
      splits.set(
        entry.name,
        files.map((name) => join(folder, entry.name, name)),
      )
    }
  }
  for (const [split, files] of splits) {
    const best = dataExtensions.find((extension) =>
      files.some((file) => extensionOf(file) === extension),
    )
    splits.set(split, files.filter((file) => extensionOf(file) === best).sort())
  }
  return splits
}

function extensionOf(name: string): string | undefined {
  return dataExtensions.find((extension) => name.endsWith(extension))
}

/** `train_sft-00000-of-00003-a3ecf92756993583.parquet` is of split `train_sft`. */
function splitOf(name: string): string {
  const stem = name.slice(0, name.length - (extensionOf(name)?.length ?? 0))
  return stem.replace(/-\d{5}-of-\d{5}(-[0-9a-f]+)?$/, '')
}

function missingSplit(ref: DataRef, found: readonly string[]): WestwindError {
  const where = ref.config ? `"${ref.id}" (config "${ref.config}")` : `"${ref.id}"`
  const has =
    found.length > 0 ? `the splits found are ${found.join(', ')}` : 'no data files were found'
  return new WestwindError(
    'ERR_DATA',
    `data set ${where}: no split "${ref.split}"; ${has}. Files count that end in ${dataExtensions.join(', ')}`,
  )
}

function unknownFormat(file: string): WestwindError {
  return new WestwindError(
    'ERR_DATA',
    `${file}: expected a file ending in ${dataExtensions.join(', ')}`,
  )
}
