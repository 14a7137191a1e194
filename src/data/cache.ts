import { createHash, type Hash, randomUUID } from 'node:crypto'
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { isRecord } from '../json.js'
import type { EncodedChunk } from './encode-task.js'

/** Where westwind keeps what it can make again: `WESTWIND_CACHE`, else `~/.cache/westwind`. */
export function cacheRoot(): string {
  return process.env.WESTWIND_CACHE ?? join(homedir(), '.cache', 'westwind')
}

const magic = 'WWDATA1\n'
const headerBytesLimit = 1 << 26
const digestBytes = 32

/**
 * Writes chunks to `file`, beside it first and then renamed: a reader finds all or nothing.
 *
 * Layout: `WWDATA1\n`, u32 length of the header, header (JSON: key, int32 counts and drop reasons of each chunk), the
 * int32 arrays of the chunks (little-endian), SHA-256 of all before.
 */
export async function writeCache(
  file: string,
  key: string,
  chunks: readonly EncodedChunk[],
): Promise<void> {
  await mkdir(join(file, '..'), { recursive: true })
  const temporary = `${file}.${randomUUID()}.tmp`
  const handle = await open(temporary, 'wx')
  try {
    const hash = createHash('sha256')
    const write = async (bytes: Uint8Array) => {
      hash.update(bytes)
      await handle.writeFile(bytes)
    }
    const header = Buffer.from(
      JSON.stringify({
        key,
        chunks: chunks.map(({ meta, tokens, dropped }) => [meta.length, tokens.length, dropped]),
      }),
    )
    const length = Buffer.alloc(4)
    length.writeUInt32LE(header.length)
    await write(Buffer.concat([Buffer.from(magic), length, header]))
    for (const { meta, tokens } of chunks) {
      await write(bytesOf(meta))
      await write(bytesOf(tokens))
    }
    await handle.writeFile(hash.digest())
    await handle.close()
    await rename(temporary, file)
  } catch (cause) {
    await handle.close().catch(() => undefined)
    await rm(temporary, { force: true })
    throw cause
  }
}

/** Chunks of a cache file written under `key`; undefined if it is missing, of another key or damaged in any way. */
export async function readCache(file: string, key: string): Promise<EncodedChunk[] | undefined> {
  const handle = await open(file).catch(() => undefined)
  if (!handle) return undefined
  try {
    return await readChunks(handle, key)
  } catch {
    return undefined // a truncated or foreign file; it is made again
  } finally {
    await handle.close()
  }
}

async function readChunks(handle: FileHandle, key: string): Promise<EncodedChunk[] | undefined> {
  const { size } = await handle.stat()
  const hash = createHash('sha256')
  const start = await readExactly(handle, Buffer.alloc(magic.length + 4), hash)
  const headerLength = start.readUInt32LE(magic.length)
  if (start.toString('latin1', 0, magic.length) !== magic || headerLength > headerBytesLimit) {
    return undefined
  }
  const header: unknown = JSON.parse(
    (await readExactly(handle, Buffer.alloc(headerLength), hash)).toString('utf8'),
  )
  const layout = parseHeader(header, key)
  if (!layout) return undefined
  const ints = layout.reduce((sum, { meta, tokens }) => sum + meta + tokens, 0)
  if (size !== start.length + headerLength + 4 * ints + digestBytes) return undefined
  const chunks: EncodedChunk[] = []
  for (const { meta, tokens, dropped } of layout) {
    const chunk = { meta: new Int32Array(meta), tokens: new Int32Array(tokens), dropped }
    await readExactly(handle, bytesOf(chunk.meta), hash)
    await readExactly(handle, bytesOf(chunk.tokens), hash)
    chunks.push(chunk)
  }
  const digest = await readExactly(handle, Buffer.alloc(digestBytes))
  return digest.equals(hash.digest()) ? chunks : undefined
}

function parseHeader(header: unknown, key: string) {
  if (!isRecord(header) || header.key !== key || !Array.isArray(header.chunks)) return undefined
  const entries: unknown[] = header.chunks
  const layout = entries.map((entry) => {
    if (!Array.isArray(entry)) return undefined
    const [meta, tokens, dropped]: unknown[] = entry
    return isCount(meta) && isCount(tokens) && isCounts(dropped)
      ? { meta, tokens, dropped }
      : undefined
  })
  const complete = layout.filter((entry) => entry !== undefined)
  return complete.length === layout.length ? complete : undefined
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function isCounts(value: unknown): value is Record<string, number> {
  return isRecord(value) && Object.values(value).every(isCount)
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
