import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** What a client sent to `/v1/chat/completions`. */
export interface ChatRequest {
  model: string
  messages: { role: string; content: string }[]
  temperature?: number
  top_p?: number
  max_tokens?: number
  seed?: number
  stop?: string[]
  response_format?: { type: string; json_schema: { name: string; schema: unknown } }
  logprobs?: boolean
  top_logprobs?: number
}

/** An answer, or one of the ways in which endpoints fail. */
export type Reply =
  | {
      text: string
      finish_reason?: string
      refusal?: string
      model?: string
      usage?: { prompt_tokens: number; completion_tokens: number } | null
      logprobs?: unknown
      afterMs?: number
    }
  | { status: number; message?: string; code?: string; headers?: Record<string, string> }
  /** `hang`: never answers. `drop`: closes before the answer. `cut`: closes within the body. */
  | { fault: 'hang' | 'drop' | 'cut' | 'not-json' | 'no-choices' | 'hang-in-body' }

export interface Logged {
  request: ChatRequest
  authorization: string | undefined
  /** How often the same request has come, this one included. */
  times: number
  /** An answer was sent in full: such a request is paid for, and must not come again. */
  answered: boolean
}

export interface TeacherServer {
  /** What clients take as `base_url`. */
  url: string
  log: Logged[]
  /** Most requests that were open at once. */
  busiest: number
  close(): Promise<void>
}

/**
 * An OpenAI-compatible endpoint on loopback that does what its script says.
 *
 * @param script is given the request and how often the same has come, from 1
 */
export async function startTeacher(
  script: (request: ChatRequest, times: number) => Reply | Promise<Reply>,
): Promise<TeacherServer> {
  const times = new Map<string, number>()
  let open = 0
  const server = createServer((request, response) => {
    void handle(request, response).catch(() => response.destroy())
  })
  const teacher: TeacherServer = {
    url: '',
    log: [],
    busiest: 0,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve)) // closed already is fine too
    },
  }

  async function handle(message: IncomingMessage, response: ServerResponse): Promise<void> {
    if (message.method !== 'POST' || message.url !== '/v1/chat/completions') {
      return send(response, 404, { error: { message: `no ${message.url}`, type: 'not_found' } })
    }
    open++
    teacher.busiest = Math.max(teacher.busiest, open)
    response.on('close', () => open--)
    let body = ''
    for await (const chunk of message.setEncoding('utf8')) body += chunk
    const request: ChatRequest = JSON.parse(body)
    const count = (times.get(body) ?? 0) + 1
    times.set(body, count)
    const { authorization } = message.headers
    const logged: Logged = { request, authorization, times: count, answered: false }
    teacher.log.push(logged)
    const reply = await script(request, count)
    response.on('finish', () => {
      logged.answered = 'text' in reply
    })
    await answer(response, request, reply)
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  teacher.url = `http://127.0.0.1:${port}/v1`
  return teacher
}

async function answer(response: ServerResponse, request: ChatRequest, reply: Reply): Promise<void> {
  if ('status' in reply) {
    const { status, message = `status ${status}`, code = null, headers = {} } = reply
    return send(response, status, { error: { message, type: 'error', param: null, code } }, headers)
  }
  if ('fault' in reply) return fail(response, reply.fault)
  if (reply.afterMs) await sleep(reply.afterMs)
  send(response, 200, completion(request, reply))
}

function completion(request: ChatRequest, reply: Extract<Reply, { text: string }>) {
  const { text, finish_reason = 'stop', refusal = null, model = `${request.model}-0613` } = reply
  const usage = {
    prompt_tokens: promptTokens(request),
    completion_tokens: Math.ceil(text.length / 4),
  }
  return {
    id: 'chatcmpl-1',
    object: 'chat.completion',
    created: 1,
    model,
    choices: [
      {
        index: 0,
        finish_reason,
        message: { role: 'assistant', content: text, refusal },
        logprobs: reply.logprobs ?? null,
      },
    ],
    ...(reply.usage !== null && { usage: reply.usage ?? usage }),
  }
}

function promptTokens({ messages }: ChatRequest): number {
  return Math.ceil(messages.reduce((sum, { content }) => sum + content.length, 0) / 4)
}

function fail(response: ServerResponse, fault: string): void {
  const json = { 'content-type': 'application/json' }
  if (fault === 'drop') response.destroy()
  if (fault === 'not-json') response.writeHead(200, json).end('{"choices": [{"mess')
  if (fault === 'no-choices') response.writeHead(200, json).end('{"choices": []}')
  if (fault === 'cut' || fault === 'hang-in-body') {
    response.writeHead(200, { ...json, 'content-length': '5000' })
    response.write('{"choices": [{"message": {"content": "half', () => {
      if (fault === 'cut') response.destroy()
    })
  }
}

function send(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers })
  response.end(JSON.stringify(body))
}

/** A number in [0, 1) that depends on its arguments alone: what a misbehaving script is drawn by. */
export function chance(...parts: unknown[]): number {
  return createHash('sha256').update(JSON.stringify(parts)).digest().readUInt32BE() / 2 ** 32
}
