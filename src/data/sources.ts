import { createHash } from 'node:crypto'
import { mkdir, readFile, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { z } from 'zod'
import { atomicFile } from '../checkpoint/atomic.js'
import type { DataConfig } from '../recipe/config.js'
import { cacheRoot } from './cache.js'
import { mixtureRefs } from './mixture.js'
import { dataFiles, type LoadOptions } from './source.js'

/** Hashes of the tokenised splits that the same files gave before. */
export interface KnownSplits {
  train: string
  test: string | null
}

const schema = z.object({ train: z.string(), test: z.string().nullable() })

/**
 * A name for data that need not be read to be known: its files by path, size and time of change, how they are mixed,
 * and what becomes of them.
 *
 * @param encoding all that the tokens depend on but the rows
 */
export async function sourcesKey(
  data: DataConfig,
  options: LoadOptions & { evaluates: boolean; encoding: string },
): Promise<string> {
  const { evaluates, encoding } = options
  const hash = createHash('sha256').update(JSON.stringify([data, evaluates, encoding]))
  for (const ref of mixtureRefs(data, { evaluates })) {
    for (const file of await dataFiles(ref, options)) {
      const { size, mtimeNs } = await stat(file, { bigint: true })
      hash.update(`\n${JSON.stringify([resolve(file), `${size}`, `${mtimeNs}`])}`)
    }
  }
  return hash.digest('hex')
}

/** What {@link keepSplits} noted under this key; undefined where that is missing or damaged. */
export async function knownSplits(key: string): Promise<KnownSplits | undefined> {
  try {
    return schema.parse(JSON.parse(await readFile(noteFile(key), 'utf8')))
  } catch {
    return undefined // the rows are read again
  }
}

/** Notes which splits the files gave; a cache that cannot be written costs time at the next start. */
export async function keepSplits(key: string, splits: KnownSplits): Promise<void> {
  const file = noteFile(key)
  try {
    await mkdir(dirname(file), { recursive: true })
    await atomicFile(file, JSON.stringify(splits))
  } catch {
    // told where the tokens could not be kept
  }
}

function noteFile(key: string): string {
  return join(cacheRoot(), 'data', `${key}.json`)
}
