import { createHash, timingSafeEqual } from 'node:crypto'
import type { Socket } from 'node:net'
import fastify, {
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from 'fastify'
import { limits } from './body.js'
import { registerChat } from './chat.js'
import { registerCompletions } from './completions.js'
import { ApiError, toApiError, unavailable } from './errors.js'
import { findModel, type ServedModel } from './models.js'
import { registerPage } from './page.js'
import { closing, type Serving } from './serving.js'
import { registerTokenize } from './tokenize.js'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Answered without an API key. */
    open?: boolean
    /** Answered while models load and while the server stops. */
    always?: boolean
  }
}

export interface AppOptions {
  /** What `Authorization: Bearer` must carry; undefined: nothing. */
  apiKey: string | undefined
  /** Least level of what is logged to standard error. */
  logLevel: string
}

/** The HTTP server: who may ask, what routes there are, how errors look. */
export function createApp(serving: Serving, options: AppOptions): FastifyInstance {
  const app = fastify({
    logger: { level: options.logLevel, stream: process.stderr },
    // One line per request instead, when its answer is out.
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: limits.bodyBytes,
    requestTimeout: 60_000, // to receive a request
    forceCloseConnections: true, // when it closes, nothing is under way any more
    return503OnClosing: false, // ours has OpenAI's shape
    http: { maxHeaderSize: limits.headerBytes },
    clientErrorHandler,
    // Of a path that cannot be read: it reaches no hook and no handler.
    frameworkErrors: (error, _, reply) => {
      const { status, body } = toApiError(error)
      reply.hijack()
      reply.raw.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
    },
  })
  app.removeContentTypeParser('text/plain')
  const methodsOf = rememberRoutes(app)

  app.addHook('onRequest', async (request, reply) => {
    serving.begin(request, reply)
    const { open, always } = request.routeOptions.config
    if (!open) checkKey(request, options.apiKey)
    if (options.apiKey === undefined) checkHost(request)
    if (always || request.is404) return
    if (serving.state === 'loading') throw loading()
    if (serving.state === 'closing') throw closing()
  })
  app.setNotFoundHandler(async (request) => {
    const path = request.url.split('?')[0] ?? ''
    const methods = methodsOf(path)
    if (methods.length === 0)
      throw new ApiError(404, `there is no ${path.slice(0, 200)} here`, { code: 'unknown_url' })
    const allow = methods.join(', ')
    const message = `${path} takes ${allow}, not ${request.method}`
    throw new ApiError(405, message, { code: 'method_not_allowed', headers: { allow } })
  })
  app.setErrorHandler((error, request, reply) => {
    const answer = toApiError(error)
    if (answer.status >= 500 && answer.status !== 503) request.log.error({ err: error })
    return sendError(serving, request, reply, answer)
  })

  app.get('/health', { config: { open: true, always: true } }, async () => {
    if (serving.state === 'loading') throw loading()
    if (serving.state === 'closing') throw closing()
    return { status: 'ready' }
  })
  app.get('/metrics', { config: { always: true } }, async (_, reply) => {
    reply.type(serving.metrics.registry.contentType)
    return serving.metrics.registry.metrics()
  })
  app.get('/v1/models', async () => {
    return { object: 'list', data: serving.models.map(describeModel) }
  })
  app.get<{ Params: { '*': string } }>('/v1/models/*', async ({ params }) => {
    return describeModel(findModel(serving.models, params['*']))
  })
  registerCompletions(app, serving)
  registerChat(app, serving)
  registerTokenize(app, serving)
  registerPage(app)
  return app
}

function describeModel({ id, created, context }: ServedModel) {
  return { id, object: 'model', created, owned_by: 'westwind', max_model_len: context }
}

function loading(): ApiError {
  return unavailable('the model is still loading', 'model_loading', 2)
}

/** Compares digests, in constant time: neither key nor its length can be found out by timing. */
function checkKey(request: FastifyRequest, key: string | undefined): void {
  if (key === undefined) return
  const given = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1]
  if (given !== undefined && timingSafeEqual(digest(given), digest(key))) return
  const message =
    given === undefined
      ? 'an API key is needed: send the header Authorization: Bearer KEY'
      : 'the API key is not the one of this server'
  const headers = { 'www-authenticate': 'Bearer' }
  throw new ApiError(401, message, { code: 'invalid_api_key', headers })
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

/**
 * Without a key only this machine may ask. A web page that points its own name at 127.0.0.1 (DNS
 * rebinding) comes with that name.
 */
function checkHost(request: FastifyRequest): void {
  if (isLoopback(request.hostname)) return
  const message = `this server has no API key and answers to 127.0.0.1 and localhost only`
  throw new ApiError(403, message, { code: 'host_not_allowed' })
}

/** Whether only this machine reaches a host of this name. */
export function isLoopback(host: string): boolean {
  return /^(localhost|127(\.\d{1,3}){3}|\[?::1\]?)$/i.test(host)
}

function sendError(
  serving: Serving,
  request: FastifyRequest,
  reply: FastifyReply,
  error: ApiError,
) {
  serving.workOf(request).error = error
  return reply.status(error.status).headers(error.headers).send(error.body)
}

/** Methods that a path takes, by the routes that are added from now on. */
function rememberRoutes(app: FastifyInstance): (path: string) => string[] {
  const routes: { path: RegExp; methods: string[] }[] = []
  app.addHook('onRoute', ({ url, method }) => {
    const source = url.replace(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.+')
    routes.push({ path: new RegExp(`^${source}$`), methods: [method].flat() })
  })
  return (path) => routes.filter((route) => route.path.test(path)).flatMap(({ methods }) => methods)
}

/** Requests that are no HTTP, too slow or with headers too large: they reach no handler. */
function clientErrorHandler(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const [status, words] = statusOfClientError(error.code)
  const { body } = new ApiError(status, words)
  const text = JSON.stringify(body)
  socket.end(
    `HTTP/1.1 ${status} ${words}\r\nContent-Type: application/json\r\n` +
      `Content-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`,
  )
}

function statusOfClientError(code: string | undefined): [number, string] {
  if (code === 'HPE_HEADER_OVERFLOW') return [431, 'the headers are too large']
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return [408, 'the request did not come in time']
  return [400, 'this is no HTTP request']
}
