import { parentPort, workerData } from 'node:worker_threads'
import { type ErrorCode, WestwindError } from '../errors.js'
import { reason } from '../json.js'
import { createEncoder, type EncodedChunk, type EncodeTask } from './encode-task.js'
import type { Row } from './read-rows.js'

/** Rows to encode, from the main thread. */
export interface EncodeRequest {
  rows: Row[]
  first: number
}

export type EncodeReply = { chunk: EncodedChunk } | { error: { code?: ErrorCode; message: string } }

const task: EncodeTask = workerData
let encode: ReturnType<typeof createEncoder> | undefined

parentPort?.on('message', ({ rows, first }: EncodeRequest) => {
  try {
    encode ??= createEncoder(task)
    const chunk = encode(rows, first)
    const reply: EncodeReply = { chunk }
    parentPort?.postMessage(reply, [chunk.meta.buffer, chunk.tokens.buffer])
  } catch (cause) {
    const code = cause instanceof WestwindError ? { code: cause.code } : {}
    const reply: EncodeReply = { error: { ...code, message: reason(cause) } }
    parentPort?.postMessage(reply)
  }
})
