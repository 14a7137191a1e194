import type { FastifyInstance } from 'fastify'
import { z } from 'zod'
import { flag, limits, parseBody, readIds } from './body.js'
import { wrong } from './errors.js'
import { findModel } from './models.js'
import type { Serving } from './serving.js'

const model = z.string({ error: 'the name of a model' }).nullish()
const querySchema = z.object({ model })
const tokenizeSchema = z.object({
  model,
  prompt: z.string({ error: 'a string' }),
  add_special_tokens: flag,
})
const detokenizeSchema = z.object({
  model,
  tokens: z.array(z.unknown(), { error: 'a list of token ids' }),
})

/** The tokenizer over HTTP, as lm-evaluation-harness asks a remote one. */
export function registerTokenize(app: FastifyInstance, serving: Serving): void {
  app.get('/tokenizer_info', async (request) => {
    const { tokenizer } = findModel(serving.models, parseBody(querySchema, request.query).model)
    const { bosToken, eosToken, padId, chatTemplate } = tokenizer
    return {
      eos_token: eosToken ?? null,
      bos_token: bosToken ?? null,
      pad_token: padId === undefined ? null : (tokenizer.idToToken(padId) ?? null),
      chat_template: chatTemplate ?? null,
    }
  })

  app.post('/tokenize', async (request) => {
    const body = parseBody(tokenizeSchema, request.body)
    const { tokenizer } = findModel(serving.models, body.model)
    if (body.prompt.length > limits.tokenizeCharacters) {
      const most = limits.tokenizeCharacters
      throw wrong(
        'prompt',
        `'prompt' must be at most ${most} characters, got ${body.prompt.length}`,
      )
    }
    const addSpecialTokens = body.add_special_tokens ?? true
    return { tokens: tokenizer.encode(body.prompt, { addSpecialTokens }) }
  })

  app.post('/detokenize', async (request) => {
    const body = parseBody(detokenizeSchema, request.body)
    const served = findModel(serving.models, body.model)
    if (body.tokens.length === 0) return { prompt: '' }
    return { prompt: served.tokenizer.decode(readIds(served, body.tokens, 'tokens')) }
  })
}
