import { createHash } from 'node:crypto'
import { type FileHandle, mkdir, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { exists } from '../checkpoint/atomic.js'
import { WestwindError } from '../errors.js'
import { isRecord, reason } from '../json.js'
import { lock } from './lock.js'

/** A line of a journal: what a request gave, found again by its key. */
export type Entry = Record<string, unknown> & { key: string }

/** A key of anything that JSON can say: the same content gives the same key, on any machine. */
export function keyOf(...parts: unknown[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32)
}

/** Written lines reach the disk itself at least this often. */
const syncMs = 1000

/**
 * Append-only JSON Lines, one per finished request, that a run reads first when it begins again. A line is
 * written at once, so that a killed process loses nothing it was told of, and forced to the disk every
 * second. Entries stay on the disk; memory holds where each key's last one is.
 */
export class Journal {
  /** Bytes of a line that was not finished, cut off when the journal was opened. */
  readonly repaired: number
  readonly #file: string
  readonly #handle: FileHandle
  readonly #release: () => Promise<void>
  readonly #places = new Map<string, { at: number; bytes: number }>()
  #size: number
  #queue: { text: string; done: (error?: unknown) => void }[] = []
  #writing: Promise<void> | undefined
  #syncing: NodeJS.Timeout | undefined
  #failure: unknown

  private constructor(file: string, handle: FileHandle, release: () => Promise<void>, scan: Scan) {
    this.#file = file
    this.#handle = handle
    this.#release = release
    this.#places = scan.places
    this.#size = scan.size
    this.repaired = scan.torn
  }

  /**
   * Opens or makes a journal for this process alone.
   *
   * @param visit sees every entry, in order
   * @throws ERR_JOURNAL if another process has it, or a line other than a torn last one is malformed
   */
  static async open(file: string, visit: (entry: Entry) => void = () => {}): Promise<Journal> {
    await mkdir(dirname(file), { recursive: true })
    const release = await lock(file)
    let handle: FileHandle | undefined
    try {
      handle = await open(file, 'a+')
      const scan = await scanned(file, handle, visit)
      if (scan.torn > 0) await handle.truncate(scan.size)
      return new Journal(file, handle, release, scan)
    } catch (cause) {
      await handle?.close()
      await release()
      if (cause instanceof WestwindError) throw cause
      throw new WestwindError('ERR_JOURNAL', `${file}: ${reason(cause)}`, { cause })
    }
  }

  /** The keys of a journal as it is, without opening it for writing; none where there is no such file. */
  static async keys(file: string): Promise<string[]> {
    if (!(await exists(file))) return []
    const handle = await open(file, 'r')
    try {
      return [...(await scanned(file, handle, () => {})).places.keys()]
    } finally {
      await handle.close()
    }
  }

  has(key: string): boolean {
    return this.#places.has(key)
  }

  /** The last entry with this key. */
  async get(key: string): Promise<Entry | undefined> {
    const place = this.#places.get(key)
    if (!place) return undefined
    const bytes = Buffer.alloc(place.bytes)
    await this.#handle.read(bytes, 0, place.bytes, place.at)
    return parsed(bytes, this.#file)
  }

  /** Resolves once the entry is written; a process killed after that has it still. */
  append(entry: Entry): Promise<void> {
    const text = `${JSON.stringify(entry)}\n`
    return new Promise((resolve, reject) => {
      const done = (error?: unknown) => {
        if (error !== undefined) reject(error)
        else resolve()
      }
      this.#queue.push({ text, done })
      this.#writing ??= this.#write().finally(() => {
        this.#writing = undefined
      })
    })
  }

  /** Forces all to the disk and lets other processes have the journal. */
  async close(): Promise<void> {
    await this.#writing
    clearTimeout(this.#syncing)
    await this.#handle.sync()
    await this.#handle.close()
    await this.#release()
  }

  async #write(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#queue
      this.#queue = []
      try {
        if (this.#failure !== undefined) throw this.#failure
        const bytes = Buffer.from(batch.map(({ text }) => text).join(''))
        await this.#handle.appendFile(bytes)
        for (const { text } of batch) this.#remember(text)
        this.#syncing ??= setTimeout(() => this.#sync(), syncMs)
        for (const { done } of batch) done()
      } catch (cause) {
        // Part of a line may be there, and what follows it would be unreadable: nothing more is written.
        this.#failure = new WestwindError('ERR_JOURNAL', `${this.#file}: ${reason(cause)}`, {
          cause,
        })
        for (const { done } of batch) done(this.#failure)
      }
    }
  }

  #remember(text: string): void {
    const bytes = Buffer.byteLength(text)
    const { key } = parsed(Buffer.from(text), this.#file)
    this.#places.set(key, { at: this.#size, bytes: bytes - 1 })
    this.#size += bytes
  }

  #sync(): void {
    this.#syncing = undefined
    this.#handle.sync().catch((cause) => {
      this.#failure ??= cause
    })
  }
}

interface Scan {
  places: Map<string, { at: number; bytes: number }>
  size: number
  torn: number
}

async function scanned(
  file: string,
  handle: FileHandle,
  visit: (entry: Entry) => void,
): Promise<Scan> {
  const places: Scan['places'] = new Map()
  let size = 0
  let line = 0
  let rest: Buffer = Buffer.alloc(0)
  for await (const piece of handle.createReadStream({ start: 0, autoClose: false })) {
    const chunk: Buffer = Buffer.concat([rest, piece])
    let start = 0
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      const entry = parsed(chunk.subarray(start, end), `${file}:${++line}`)
      places.set(entry.key, { at: size, bytes: end - start })
      visit(entry)
      size += end + 1 - start
      start = end + 1
    }
    rest = chunk.subarray(start)
  }
  return { places, size, torn: rest.length }
}

function parsed(bytes: Buffer, where: string): Entry {
  let value: unknown
  try {
    value = JSON.parse(bytes.toString('utf8'))
  } catch (cause) {
    throw damaged(where, reason(cause), cause)
  }
  if (isRecord(value) && typeof value.key === 'string') return { ...value, key: value.key }
  throw damaged(where, 'not an entry with a key')
}

function damaged(where: string, why: string, cause?: unknown): WestwindError {
  const message = `${where}: ${why}. Only the last line of a journal may be unfinished; repair or remove this one.`
  return new WestwindError('ERR_JOURNAL', message, { cause })
}
