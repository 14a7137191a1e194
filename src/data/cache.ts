import { createHash, type Hash, randomUUID } from 'node:crypto'
import { closeSync, openSync, readSync, rmSync } from 'node:fs'
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { WestwindError } from '../errors.js'
import { reason } from '../json.js'
import { count, type Encoded, tokenStarts } from './encoded.js'
import { statisticsSchema } from './statistics.js'

/** Where westwind keeps what it can make again: `WESTWIND_CACHE`, else `~/.cache/westwind`. */
export function cacheRoot(): string {
  return process.env.WESTWIND_CACHE ?? join(homedir(), '.cache', 'westwind')
}

const magic = 'WWDATA2\n'
const headerBytesLimit = 1 << 20
const digestBytes = 32

const headerSchema = z.object({
  key: z.string(),
  examples: z.int().nonnegative(),
  parts: z.int().positive(),
  statistics: statisticsSchema,
})

/**
 * Writes examples to `file`, beside it first and then renamed: a reader finds all or nothing.
 *
 * Layout, numbers little-endian: `WWDATA2\n`; u32 length of the header; header (JSON: key, examples, parts,
 * statistics); the index, int32 `[examples, 2 + parts]`; the checksum of each example's tokens, int32 `[examples]`;
 * SHA-256 of all before; the int32 tokens of the examples, one after the other.
 */
export async function writeCache(file: string, key: string, data: Encoded): Promise<void> {
  await mkdir(join(file, '..'), { recursive: true })
  const temporary = `${file}.${randomUUID()}.tmp`
  const handle = await open(temporary, 'wx')
  try {
    const { index, parts, statistics } = data
    const examples = count(data)
    const sums = new Int32Array(examples)
    for (let i = 0; i < examples; i++) sums[i] = checksum(data.tokensOf(i))
    const header = Buffer.from(JSON.stringify({ key, examples, parts, statistics }))
    const length = Buffer.alloc(4)
    length.writeUInt32LE(header.length)
    const hash = createHash('sha256')
    for (const bytes of [Buffer.from(magic), length, header, bytesOf(index), bytesOf(sums)]) {
      hash.update(bytes)
      await handle.writeFile(bytes)
    }
    await handle.writeFile(hash.digest())
    for (let i = 0; i < examples; ) {
      const some: Buffer[] = [] // a call for each example would take longer than the writing
      for (let n = 0; i < examples && n < 1 << 22; i++) {
        const bytes = bytesOf(data.tokensOf(i))
        some.push(bytes)
        n += bytes.length
      }
      await handle.writeFile(Buffer.concat(some))
    }
    await handle.close()
    await rename(temporary, file)
  } catch (cause) {
    await handle.close().catch(() => undefined)
    await rm(temporary, { force: true })
    throw cause
  }
}

/**
 * The examples of a cache file written under `key`, undefined if it is missing, of another key or damaged. Only the
 * index is read; tokens are read, and held against their checksum, when they are asked for.
 */
export async function openCache(
  file: string,
  key: string,
  parts: number,
): Promise<Encoded | undefined> {
  const handle = await open(file).catch(() => undefined)
  if (!handle) return undefined
  try {
    return await readIndex(handle, file, key, parts)
  } catch {
    return undefined // a truncated or foreign file; it is made again
  } finally {
    await handle.close()
  }
}

async function readIndex(
  handle: FileHandle,
  file: string,
  key: string,
  parts: number,
): Promise<Encoded | undefined> {
  const hash = createHash('sha256')
  const start = await readExactly(handle, Buffer.alloc(magic.length + 4), hash)
  const headerLength = start.readUInt32LE(magic.length)
  if (start.toString('latin1', 0, magic.length) !== magic || headerLength > headerBytesLimit) {
    return undefined
  }
  const text = await readExactly(handle, Buffer.alloc(headerLength), hash)
  const header = headerSchema.parse(JSON.parse(text.toString('utf8')))
  if (header.key !== key || header.parts !== parts) return undefined
  const { examples, statistics } = header
  const { size } = await handle.stat()
  if (4 * examples * (3 + parts) > size) return undefined
  const index = new Int32Array(examples * (2 + parts))
  const sums = new Int32Array(examples)
  await readExactly(handle, bytesOf(index), hash)
  await readExactly(handle, bytesOf(sums), hash)
  const digest = await readExactly(handle, Buffer.alloc(digestBytes))
  if (!digest.equals(hash.digest())) return undefined
  const starts = tokenStarts({ index, parts })
  const begin = start.length + headerLength + bytesOf(index).length + 4 * examples + digestBytes
  if (size !== begin + 4 * starts[examples]!) return undefined
  const tokensOf = (example: number) => {
    const tokens = new Int32Array(starts[example + 1]! - starts[example]!)
    readTokens(file, tokens, begin + 4 * starts[example]!)
    if (checksum(tokens) === sums[example]) return tokens
    rmSync(file, { force: true })
    throw unreadable(file, 'they do not have the checksum that they were written with')
  }
  return { index, parts, statistics, tokensOf }
}

function readTokens(file: string, tokens: Int32Array, position: number): void {
  try {
    const descriptor = openSync(file, 'r')
    try {
      const bytes = bytesOf(tokens)
      for (let done = 0; done < bytes.length; ) {
        const read = readSync(descriptor, bytes, done, bytes.length - done, position + done)
        if (read === 0) throw new Error('the file ends early')
        done += read
      }
    } finally {
      closeSync(descriptor)
    }
  } catch (cause) {
    throw unreadable(file, reason(cause), cause)
  }
}

function unreadable(file: string, why: string, cause?: unknown): WestwindError {
  return new WestwindError(
    'ERR_DATA',
    `the cached tokens in ${file} cannot be read: ${why}. Start again, with --resume where there is a checkpoint: they are made anew`,
    { cause },
  )
}

/** FNV-1a over words: any change of one word changes it. */
function checksum(words: Int32Array): number {
  let hash = 0x811c9dc5 | 0
  for (let i = 0; i < words.length; i++) hash = Math.imul(hash ^ words[i]!, 0x01000193)
  return hash
}

async function readExactly<T extends Buffer>(
  handle: FileHandle,
  bytes: T,
  hash?: Hash,
): Promise<T> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesRead } = await handle.read(bytes, done, bytes.length - done)
    if (bytesRead === 0) throw new Error('the file ends early')
    done += bytesRead
  }
  hash?.update(bytes)
  return bytes
}

function bytesOf(array: Int32Array): Buffer {
  return Buffer.from(array.buffer, array.byteOffset, array.byteLength)
}
