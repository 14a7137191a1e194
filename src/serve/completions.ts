import { randomUUID } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { z } from 'zod'
import { show } from '../errors.js'
import { promptIds } from '../model/generate.js'
import { type Format, respond } from './answer.js'
import {
  checkTextLength,
  flag,
  integer,
  limits,
  parseBody,
  readIds,
  roomFor,
  samplingFields,
  samplingOf,
  unsupported,
} from './body.js'
import type { Choice } from './choices.js'
import { wrong } from './errors.js'
import { completionLogprobs, type PlacedToken } from './logprobs.js'
import { findModel, type ServedModel } from './models.js'
import type { Serving } from './serving.js'

const bodySchema = z.object({
  ...samplingFields,
  prompt: z.unknown(),
  max_tokens: integer(0, Number.MAX_SAFE_INTEGER),
  logprobs: integer(0, limits.topLogprobs),
  echo: flag,
  best_of: integer(1, limits.n),
})

/** OpenAI's. */
const kDefaultMaxTokens = 16

/** `POST /v1/completions`: continues texts or token ids; with `echo` and `logprobs` it scores them. */
export function registerCompletions(app: FastifyInstance, serving: Serving): void {
  app.post('/v1/completions', async (request, reply) => {
    const body = parseBody(bodySchema, request.body)
    const served = findModel(serving.models, body.model)
    const { sampling, stop, n } = samplingOf(served, body)
    if ((body.best_of ?? n) !== n) throw unsupported('best_of')
    const prompts = await readPrompts(served, body.prompt)
    const topLogprobs = body.logprobs ?? undefined
    const scored = topLogprobs !== undefined
    const choices = prompts.flatMap(({ ids }): Choice[] => {
      const maxNewTokens = roomFor(served, ids.length, body.max_tokens, 'prompt', kDefaultMaxTokens)
      return Array.from({ length: n }, (_, stream) => {
        const request = {
          ...{ ids, maxNewTokens, stream, ...sampling },
          ...(scored && { topLogprobs }),
        }
        return { request, scorePrompt: scored && (body.echo ?? false), stop }
      })
    })
    const echoes = body.echo ? prompts.map((prompt) => echoOf(served, prompt)) : []
    const format = completionFormat(served, scored, (index) => echoes[Math.floor(index / n)])
    const promptTokens = prompts.reduce((sum, { ids }) => sum + ids.length, 0)
    return respond(request, reply, serving, { served, choices, format, promptTokens, body })
  })
}

interface TextPrompt {
  ids: number[]
  /** As it was sent, if it was not sent as ids. */
  text?: string
}

/** One prompt or a list of them, each a text or token ids. Ids are taken as they are. */
async function readPrompts(served: ServedModel, prompt: unknown): Promise<TextPrompt[]> {
  if (Array.isArray(prompt) && typeof prompt[0] === 'number') {
    return [{ ids: readIds(served, prompt, 'prompt') }]
  }
  if (!Array.isArray(prompt)) return [readPrompt(served, prompt, 'prompt')]
  if (prompt.length === 0 || prompt.length > limits.prompts) {
    throw wrong('prompt', `'prompt' must be 1 to ${limits.prompts} prompts, got ${prompt.length}`)
  }
  const prompts: TextPrompt[] = []
  for (const [i, one] of prompt.entries()) {
    prompts.push(readPrompt(served, one, `prompt.${i}`))
    await setImmediate() // making tokens of many long texts takes a while: others go in between
  }
  return prompts
}

function readPrompt(served: ServedModel, prompt: unknown, param: string): TextPrompt {
  if (Array.isArray(prompt)) return { ids: readIds(served, prompt, param) }
  if (typeof prompt !== 'string') {
    const what = 'a string, token ids or a list of them'
    throw wrong(
      param,
      `'${param}' must be ${what}, got ${prompt === undefined ? 'nothing' : show(prompt)}`,
    )
  }
  checkTextLength(served, prompt.length, param)
  const ids = promptIds(served.model, prompt, { raw: true })
  if (ids.length === 0) throw wrong(param, `'${param}' is empty: there is no token to continue`)
  return { ids, text: prompt }
}

/** A prompt as it stands at the beginning of its answer. */
interface Echo {
  text: string
  tokens: PlacedToken[]
}

function echoOf(served: ServedModel, { ids, text }: TextPrompt): Echo {
  const decoded = served.texts.prompt(ids)
  const tokens = ids.map((id, i) => ({ id, offset: decoded.offsets[i] ?? 0 }))
  return { text: text ?? decoded.text, tokens }
}

function completionFormat(
  served: ServedModel,
  scored: boolean,
  echoOfChoice: (index: number) => Echo | undefined,
): Format {
  const choice: Format['whole'] = ({ index, text, tokens, prompt, finishReason }, first) => {
    const echo = echoOfChoice(index)
    const begin = echo?.text.length ?? 0
    const echoed = (first && echo?.tokens) || []
    const placed = [
      ...echoed.map((token, i) => ({ ...token, logprob: i > 0 ? prompt?.[i - 1] : undefined })),
      ...tokens.map((token) => ({ ...token, offset: begin + token.offset })),
    ]
    return {
      index,
      text: first && echo ? echo.text + text : text,
      logprobs: scored ? completionLogprobs(served.texts, placed) : null,
      finish_reason: finishReason ?? null,
    }
  }
  return {
    id: `cmpl-${randomUUID()}`,
    object: 'text_completion',
    chunkObject: 'text_completion',
    whole: choice,
    chunks: (piece, first) => [choice(piece, first)],
  }
}
