import type { AddressInfo } from 'node:net'
import { resolve } from 'node:path'
import { type Check, fields, integer, list, oneOf, optional, path, text } from '../arguments.js'
import { refuse, WestwindError } from '../errors.js'
import { reason } from '../json.js'
import { Engine } from '../model/engine.js'
import { loadModel, type ModelDType } from '../model/model.js'
import { createApp, isLoopback } from './app.js'
import { Gate } from './gate.js'
import { modelIds, type ServedModel, servedModel } from './models.js'
import { Serving } from './serving.js'

/** Levels of the log, from the most to the fewest lines. */
export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const

export interface ServeOptions {
  /** Folders in the Hugging Face layout, or Hub ids; requests name them by the last part. */
  models: readonly string[]
  /** 8000 by default; 0: one that is free. */
  port?: number
  /** 127.0.0.1 by default. Any but this machine's own needs an API key. */
  host?: string
  /** What clients must send as `Authorization: Bearer`; WESTWIND_API_KEY by default. */
  apiKey?: string
  device?: string
  dtype?: ModelDType | 'auto'
  /** Texts of a model computed together; 16 by default. Speed and memory depend on it, results do not. */
  maxBatch?: number
  /** Requests that may wait for each model; 256 by default. More are turned away with 429. */
  maxQueue?: number
  /** Tokens of prompt and answer at most, and so memory; by default the model's context, at most 4096. */
  maxLength?: number
  /** Seconds that an answer may take; 600 by default. */
  requestTimeout?: number
  /** Seconds that {@link Server.close} waits for answers under way; 30 by default. */
  shutdownTimeout?: number
  /** Least level of what is logged to standard error; info by default. */
  logLevel?: (typeof logLevels)[number]
}

export interface Server {
  /** Such as `http://127.0.0.1:8000`; OpenAI's clients want `/v1` behind it. */
  readonly url: string
  /** Takes no new requests, lets those under way finish, gives all memory back. */
  close(): Promise<void>
}

/** Timers take no more milliseconds than this. */
const seconds: Check<number> = (value, where) => {
  const good = typeof value === 'number' && value >= 0 && value <= 1e6
  if (!good) refuse(where, 'a number of seconds from 0 to 1e6', value)
}
const checkOptions: Check<ServeOptions> = fields<ServeOptions>({
  models: list(path),
  port: optional(integer(0, 65535)),
  host: optional(path),
  apiKey: optional(text),
  device: optional(text),
  dtype: optional(oneOf('f32', 'bf16', 'auto')),
  maxBatch: optional(integer(1, 4096)),
  maxQueue: optional(integer(0)),
  maxLength: optional(integer(2)),
  requestTimeout: optional(seconds),
  shutdownTimeout: optional(seconds),
  logLevel: optional(oneOf(...logLevels)),
})

/**
 * Serves models over HTTP in OpenAI's formats. While they load, every request is answered with 503.
 *
 * @returns when the models are ready
 * @throws ERR_INVALID_ARG for a wrong option, an address that cannot be listened on, or one that others
 *   reach without an API key; what loading a model throws
 */
export async function serve(options: ServeOptions): Promise<Server> {
  checkOptions(options, 'serve: options')
  if (options.models.length === 0) refuse('serve: options.models', 'at least one model', [])
  const { host = '127.0.0.1', port = 8000, shutdownTimeout = 30 } = options
  const apiKey = options.apiKey ?? (process.env.WESTWIND_API_KEY || undefined)
  checkAccess(host, apiKey)

  const serving = new Serving((options.requestTimeout ?? 600) * 1000)
  const app = createApp(serving, { apiKey, logLevel: options.logLevel ?? 'info' })
  const served: Loaded[] = []
  let closed: Promise<void> | undefined
  const close = async () => {
    app.log.info('closing: no new requests, those under way finish')
    await serving.drain(shutdownTimeout * 1000)
    await app.close()
    for (const one of served) await one.dispose()
  }
  try {
    await app.listen({ host, port })
  } catch (cause) {
    const where = `serve: options.host ${host}, port ${port}`
    throw new WestwindError('ERR_INVALID_ARG', `${where}: ${reason(cause)}`, { cause })
  }
  try {
    for (const [i, id] of modelIds(options.models).entries()) {
      served.push(await load(id, options.models[i]!, options))
    }
  } catch (error) {
    await close()
    throw error
  }
  serving.models = served.map(({ model }) => model)
  serving.state = 'ready'
  return {
    url: urlOf(host, app.server.address()),
    close() {
      closed ??= close()
      return closed
    },
  }
}

interface Loaded {
  model: ServedModel
  dispose(): Promise<void>
}

async function load(id: string, given: string, options: ServeOptions): Promise<Loaded> {
  const { device, dtype, maxBatch = 16, maxQueue = 256, maxLength } = options
  const model = await loadModel(given, { ...(device && { device }), ...(dtype && { dtype }) })
  let engine: Engine | undefined
  const dispose = async () => {
    await engine?.close()
    model.dispose()
  }
  try {
    engine = new Engine(model, { slots: maxBatch, ...(maxLength && { length: maxLength }) })
    const gate = new Gate(maxBatch, maxQueue)
    const aliases = [given, resolve(given)]
    const context = engine.length
    return { model: await servedModel({ id, aliases, model, context, engine, gate }), dispose }
  } catch (error) {
    await dispose()
    throw error
  }
}

function checkAccess(host: string, apiKey: string | undefined): void {
  if (apiKey !== undefined || isLoopback(host)) return
  throw new WestwindError(
    'ERR_INVALID_ARG',
    `serve: options.host: other machines can reach ${host}, so clients need an API key: ` +
      'set the environment variable WESTWIND_API_KEY, or listen on 127.0.0.1',
  )
}

function urlOf(host: string, address: AddressInfo | string | null): string {
  const port = typeof address === 'object' ? address?.port : undefined
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`
}
