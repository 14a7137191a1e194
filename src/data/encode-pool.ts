import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { WestwindError } from '../errors.js'
import { aborted, throwIfAborted } from './abort.js'
import { createEncoder, type EncodedChunk, type EncodeTask } from './encode-task.js'
import type { EncodeReply, EncodeRequest } from './encode-worker.js'
import type { Row } from './read-rows.js'
import type { Tokenizer } from './tokenizer/tokenizer.js'

/** Rows a thread takes at a time: some tens of milliseconds of work. */
const chunkRows = 64
/** Below this, starting threads (a tokenizer each) takes longer than it saves. */
const fewRows = 2000
const maxWorkers = 16

export interface PoolOptions {
  /** 0 encodes in this thread. Default: one per processor, none for few rows. */
  workers?: number | undefined
  onProgress?: ((done: number, total: number) => void) | undefined
  signal?: AbortSignal | undefined
}

/**
 * Encodes rows in worker threads, or in turns with the event loop where there are few or there is no compiled worker.
 *
 * @returns chunks in the order of the rows, whatever thread made them
 * @throws ERR_ABORTED, or what encoding throws for the first malformed row that is met
 */
export async function encodeRows(
  rows: readonly Row[],
  task: EncodeTask,
  tokenizer: Tokenizer | undefined,
  options: PoolOptions,
): Promise<EncodedChunk[]> {
  const automatic = rows.length < fewRows ? 0 : Math.min(availableParallelism(), maxWorkers)
  const file = workerFile()
  const wanted = Math.min(options.workers ?? automatic, Math.ceil(rows.length / chunkRows))
  if (file && wanted > 0) return encodeInWorkers(rows, task, options, { file, count: wanted })
  const encode = createEncoder(task, tokenizer)
  const chunks: EncodedChunk[] = []
  for (let first = 0; first < rows.length; first += chunkRows) {
    throwIfAborted(options.signal)
    const some = rows.slice(first, first + chunkRows)
    chunks.push(encode(some, first))
    options.onProgress?.(first + some.length, rows.length)
    await setImmediate()
  }
  return chunks
}

function encodeInWorkers(
  rows: readonly Row[],
  task: EncodeTask,
  { onProgress, signal }: PoolOptions,
  { file, count }: { file: string; count: number },
): Promise<EncodedChunk[]> {
  throwIfAborted(signal)
  const total = Math.ceil(rows.length / chunkRows)
  const chunks = new Array<EncodedChunk>(total)
  const workers: Worker[] = []
  let next = 0
  let finished = 0
  let rowsDone = 0
  return new Promise<EncodedChunk[]>((resolve, reject) => {
    const abort = () => reject(aborted())
    signal?.addEventListener('abort', abort, { once: true })
    const settle = () => signal?.removeEventListener('abort', abort)

    const start = () => {
      const worker = new Worker(file, { workerData: task })
      workers.push(worker)
      let current = 0
      const give = () => {
        if (next === total) return
        current = next++
        const first = current * chunkRows
        const request: EncodeRequest = { rows: rows.slice(first, first + chunkRows), first }
        worker.postMessage(request)
      }
      worker.on('message', (reply: EncodeReply) => {
        if ('error' in reply) {
          const { code = 'ERR_DATA', message } = reply.error
          settle()
          return reject(new WestwindError(code, message))
        }
        chunks[current] = reply.chunk
        finished++
        rowsDone += Math.min(chunkRows, rows.length - current * chunkRows)
        try {
          onProgress?.(rowsDone, rows.length)
        } catch (cause) {
          settle()
          return reject(cause)
        }
        if (finished < total) return give()
        settle()
        resolve(chunks)
      })
      worker.on('error', (cause) => {
        settle()
        reject(new WestwindError('ERR_DATA', `tokenising failed: ${cause.message}`, { cause }))
      })
      give()
    }
    for (let i = 0; i < count; i++) start()
  }).finally(() => Promise.all(workers.map((worker) => worker.terminate())))
}

/** The compiled worker: beside this module, or in dist/ where this is the TypeScript source run by a test. */
function workerFile(): string | undefined {
  const places = ['./encode-worker.js', '../../dist/data/encode-worker.js']
  const files = places.map((place) => fileURLToPath(new URL(place, import.meta.url)))
  return files.find((file) => existsSync(file))
}
