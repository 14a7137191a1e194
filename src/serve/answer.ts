import { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { SamplingBody } from './body.js'
import { type Choice, makeChoices, type Piece } from './choices.js'
import { toApiError } from './errors.js'
import type { ServedModel } from './models.js'
import type { Serving } from './serving.js'

/** How an endpoint writes the choices of its answer. */
export interface Format {
  id: string
  object: string
  chunkObject: string
  /** A whole choice. `first` is true: nothing of it was written before. */
  whole(piece: Piece, first: boolean): object
  /** Choices of the chunks of a stream that a piece gives. */
  chunks(piece: Piece, first: boolean): object[]
}

interface Task {
  served: ServedModel
  choices: readonly Choice[]
  format: Format
  /** Of all prompts, each counted once. */
  promptTokens: number
  body: Pick<SamplingBody, 'stream' | 'stream_options'>
}

/** Makes the texts of a request and answers with them: whole, or as a stream of server-sent events. */
export async function respond(
  request: FastifyRequest,
  reply: FastifyReply,
  serving: Serving,
  task: Task,
): Promise<unknown> {
  const { served, choices, format, promptTokens, body } = task
  const work = serving.workOf(request)
  const tally = serving.metrics.tally(served.id)
  const usage = () => {
    const completion = tally.generated
    return {
      prompt_tokens: promptTokens,
      completion_tokens: completion,
      total_tokens: promptTokens + completion,
    }
  }
  work.describe = () => ({ model: served.id, ...usage() })
  const created = Math.floor(Date.now() / 1000)
  const head = { id: format.id, created, model: served.id }
  const pieces = makeChoices(served, choices, work.controller, tally)
  if (!body.stream) {
    const whole = (await gather(pieces)).map((piece) => format.whole(piece, true))
    return { ...head, object: format.object, choices: whole, usage: usage() }
  }

  const withUsage = body.stream_options?.include_usage ?? false
  async function* chunks(): AsyncGenerator<object, void> {
    const chunkHead = { ...head, object: format.chunkObject }
    const begun = new Set<number>()
    for await (const piece of pieces) {
      for (const choice of format.chunks(piece, !begun.has(piece.index))) {
        yield { ...chunkHead, choices: [choice], ...(withUsage && { usage: null }) }
      }
      begun.add(piece.index)
    }
    if (withUsage) yield { ...chunkHead, choices: [], usage: usage() }
  }
  const all = chunks()
  const first = await all.next() // what fails before the first chunk is answered with a status
  const events = serverSentEvents(first, all, (error) => request.log.error({ err: error }))
  reply.header('cache-control', 'no-cache').type('text/event-stream; charset=utf-8')
  return reply.send(Readable.from(events, { objectMode: false }))
}

/** The pieces of each choice put together, in order. */
async function gather(pieces: AsyncIterable<Piece>): Promise<Piece[]> {
  const whole: Piece[] = []
  for await (const piece of pieces) {
    whole[piece.index] ??= { index: piece.index, text: '', tokens: [] }
    const one = whole[piece.index]!
    one.text += piece.text
    for (const token of piece.tokens) one.tokens.push(token)
    if (piece.prompt) one.prompt = piece.prompt
    if (piece.finishReason) one.finishReason = piece.finishReason
  }
  return whole
}

async function* serverSentEvents(
  first: IteratorResult<object, void>,
  rest: AsyncGenerator<object, void>,
  onError: (error: unknown) => void,
): AsyncGenerator<string, void> {
  try {
    if (!first.done) yield event(first.value)
    for await (const chunk of rest) yield event(chunk)
    yield 'data: [DONE]\n\n'
  } catch (error) {
    const answer = toApiError(error)
    if (answer.status >= 500) onError(error)
    yield event(answer.body) // too late for a status; clients take it for an error
  }
}

function event(data: object): string {
  return `data: ${JSON.stringify(data)}\n\n`
}
