import { randomUUID } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import { z } from 'zod'
import type { Message } from '../data/conversation.js'
import { WestwindError } from '../errors.js'
import { promptIds } from '../model/generate.js'
import { type Format, respond } from './answer.js'
import {
  checkTextLength,
  flag,
  integer,
  limits,
  parseBody,
  roomFor,
  samplingFields,
  samplingOf,
  unsupported,
} from './body.js'
import type { Choice } from './choices.js'
import { wrong } from './errors.js'
import { chatLogprobs, type PlacedToken } from './logprobs.js'
import { findModel, type ServedModel } from './models.js'
import type { Serving } from './serving.js'

const part = z.object(
  { type: z.literal('text', { error: "'text'" }), text: z.string({ error: 'a string' }) },
  { error: 'a part of type text' },
)
const messagesError = `1 to ${limits.messages} messages`
const messageSchema = z.object(
  {
    role: z.enum(['system', 'developer', 'user', 'assistant'], {
      error: 'system, developer, user or assistant',
    }),
    content: z.union([z.string(), z.array(part)], {
      error: 'a string or a list of parts of type text',
    }),
  },
  { error: 'an object with role and content' },
)
const maxTokens = integer(1, Number.MAX_SAFE_INTEGER)

const bodySchema = z.object({
  ...samplingFields,
  messages: z
    .array(messageSchema, { error: messagesError })
    .min(1, { error: messagesError })
    .max(limits.messages, { error: messagesError }),
  max_tokens: maxTokens,
  max_completion_tokens: maxTokens,
  logprobs: flag,
  top_logprobs: integer(0, limits.topLogprobs),
  tools: z.array(z.unknown(), { error: 'a list' }).nullish(),
  functions: z.array(z.unknown(), { error: 'a list' }).nullish(),
  response_format: z
    .looseObject({ type: z.string() }, { error: 'an object with a type' })
    .nullish(),
})

type Body = z.infer<typeof bodySchema>

/** `POST /v1/chat/completions`: the next turn of a conversation. */
export function registerChat(app: FastifyInstance, serving: Serving): void {
  app.post('/v1/chat/completions', async (request, reply) => {
    const body = parseBody(bodySchema, request.body)
    const served = findModel(serving.models, body.model)
    refuseUnsupported(body)
    const { sampling, stop, n } = samplingOf(served, body)
    const ids = conversationIds(served, body.messages)
    const asked = body.max_completion_tokens ?? body.max_tokens
    const maxNewTokens = roomFor(served, ids.length, asked, 'messages', served.context)
    const scored = body.logprobs ?? false
    const choices = Array.from({ length: n }, (_, stream): Choice => {
      const request = {
        ...{ ids, maxNewTokens, stream, ...sampling },
        ...(scored && { topLogprobs: body.top_logprobs ?? 0 }),
      }
      return { request, scorePrompt: false, stop }
    })
    const format = chatFormat(served, scored)
    return respond(request, reply, serving, {
      ...{ served, choices, format, body },
      promptTokens: ids.length,
    })
  })
}

function refuseUnsupported({ tools, functions, response_format, logprobs, top_logprobs }: Body) {
  if (tools && tools.length > 0) throw unsupported('tools')
  if (functions && functions.length > 0) throw unsupported('functions')
  if (response_format && response_format.type !== 'text') throw unsupported('response_format')
  if (top_logprobs && !logprobs) {
    throw wrong('top_logprobs', "'top_logprobs' needs 'logprobs' to be true")
  }
}

/** The conversation as the model's template writes it, with the header of the answer at its end. */
function conversationIds(served: ServedModel, messages: Body['messages']): number[] {
  const conversation = messages.map(({ role, content }): Message => {
    const text = typeof content === 'string' ? content : content.map((one) => one.text).join('')
    return { role: role === 'developer' ? 'system' : role, content: text }
  })
  const length = conversation.reduce((sum, { content }) => sum + content.length, 0)
  checkTextLength(served, length, 'messages')
  try {
    return promptIds(served.model, conversation, { template: served.template })
  } catch (error) {
    // The template refuses this order of roles, say.
    if (!(error instanceof WestwindError) || error.code !== 'ERR_DATA') throw error
    throw wrong('messages', error.message)
  }
}

function chatFormat({ texts }: ServedModel, scored: boolean): Format {
  const logprobs = (tokens: PlacedToken[]) => {
    return scored ? { content: chatLogprobs(texts, tokens), refusal: null } : null
  }
  return {
    id: `chatcmpl-${randomUUID()}`,
    object: 'chat.completion',
    chunkObject: 'chat.completion.chunk',
    whole: ({ index, text, tokens, finishReason }) => ({
      index,
      message: { role: 'assistant', content: text, refusal: null },
      logprobs: logprobs(tokens),
      finish_reason: finishReason ?? null,
    }),
    chunks({ index, text, tokens, finishReason }, first) {
      const chunk = (delta: object, of: PlacedToken[], reason: string | null) => {
        return { index, delta, logprobs: logprobs(of), finish_reason: reason }
      }
      return [
        first && chunk({ role: 'assistant', content: '', refusal: null }, [], null),
        (text !== '' || tokens.length > 0) && chunk({ content: text }, tokens, null),
        finishReason && chunk({}, [], finishReason),
      ].filter((one) => typeof one === 'object')
    },
  }
}
