import { randomInt } from 'node:crypto'
import { z } from 'zod'
import { show } from '../errors.js'
import { type ApiError, wrong } from './errors.js'
import type { ServedModel } from './models.js'

/** What one request may ask for. */
export const limits = {
  /** Texts per prompt. */
  n: 16,
  /** Prompts per request. */
  prompts: 256,
  stops: 16,
  stopLength: 256,
  topLogprobs: 20,
  messages: 1024,
  /** Of one text for /tokenize: cutting a million takes some two seconds, in which nothing else is read. */
  tokenizeCharacters: 1_000_000,
  bodyBytes: 16 * 2 ** 20,
  headerBytes: 16 * 2 ** 10,
}

export function number(least: number, most: number) {
  const error = `a number from ${least} to ${most}`
  return z.number({ error }).min(least, { error }).max(most, { error }).nullish()
}

export function integer(least: number, most: number) {
  const above =
    most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`
  const error = least === Number.MIN_SAFE_INTEGER ? 'an integer' : `an integer ${above}`
  return z.int({ error }).min(least, { error }).max(most, { error }).nullish()
}

export const flag = z.boolean({ error: 'true or false' }).nullish()

const stopString = z
  .string({ error: 'a string' })
  .min(1, { error: 'a string that is not empty' })
  .max(limits.stopLength, { error: `at most ${limits.stopLength} characters long` })

const stopError = `a string or a list of at most ${limits.stops} strings`
const stop = z.union([stopString, z.array(stopString).max(limits.stops)], { error: stopError })

/** Fields that both ways of generating have. */
export const samplingFields = {
  model: z.string({ error: 'the name of a model' }).nullish(),
  temperature: number(0, 2),
  top_p: number(0, 1),
  /** Not OpenAI's, but of many servers; 0 or -1: all. */
  top_k: integer(-1, 2 ** 31 - 1),
  n: integer(1, limits.n),
  seed: integer(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  stop: stop.nullish(),
  stream: flag,
  stream_options: z
    .object({ include_usage: flag }, { error: 'an object such as {"include_usage": true}' })
    .nullish(),
  presence_penalty: number(-2, 2),
  frequency_penalty: number(-2, 2),
  logit_bias: z.record(z.string(), z.unknown(), { error: 'an object' }).nullish(),
}

const samplingBody = z.object(samplingFields)
export type SamplingBody = z.infer<typeof samplingBody>

/**
 * A body as its schema says; fields that the schema does not have are left out.
 *
 * @throws 400 naming the field
 */
export function parseBody<T>(schema: z.ZodType<T>, body: unknown): T {
  const result = schema.safeParse(body)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const path = issue?.path ?? []
  if (path.length === 0) throw wrong(null, 'the body must be a JSON object')
  const param = path.map(String).join('.')
  let got: unknown = body
  for (const key of path) got = Object(got)[key]
  throw wrong(
    param,
    `'${param}' must be ${issue?.message}, got ${got === undefined ? 'nothing' : show(got)}`,
  )
}

/** How the tokens of a request's texts are chosen, and what ends them. */
export function samplingOf(served: ServedModel, body: SamplingBody) {
  refuseUnsupported(body)
  const topP = body.top_p ?? 1
  const stop = [body.stop ?? []].flat()
  // A special token gives no text to find a stop string in: it ends the text by its id.
  const special = stop.filter((text) => served.tokenizer.specialTokenAt(text, 0) === text)
  const ids = special.flatMap((text) => served.tokenizer.tokenToId(text) ?? [])
  return {
    sampling: {
      temperature: body.temperature ?? 1,
      // The likeliest token is always among those that top_p keeps.
      ...(topP === 0 ? { topK: 1 } : { topP, topK: Math.max(0, body.top_k ?? 0) }),
      seed: body.seed ?? randomInt(2 ** 47),
      stopIds: [...new Set([...served.stopIds, ...ids])],
    },
    stop,
    n: body.n ?? 1,
  }
}

/** Known fields of OpenAI's that would change the answer are refused rather than ignored. */
function refuseUnsupported({ presence_penalty, frequency_penalty, logit_bias }: SamplingBody) {
  const neutral = {
    presence_penalty: !presence_penalty,
    frequency_penalty: !frequency_penalty,
    logit_bias: Object.keys(logit_bias ?? {}).length === 0,
  }
  for (const [param, is] of Object.entries(neutral)) if (!is) throw unsupported(param)
}

export function unsupported(param: string): ApiError {
  return wrong(
    param,
    `'${param}' is not supported by this server: leave it out`,
    'unsupported_parameter',
  )
}

/**
 * How many new tokens a prompt may get: what was asked for, else what `fallback` says, as far as the
 * context goes.
 *
 * @throws 400 context_length_exceeded; nothing is ever cut
 */
export function roomFor(
  { context }: ServedModel,
  promptTokens: number,
  asked: number | null | undefined,
  param: string,
  fallback: number,
): number {
  const least = asked ?? Math.min(1, fallback)
  if (promptTokens + least <= context) return asked ?? Math.min(fallback, context - promptTokens)
  const request = asked === 0 ? '' : ` and ${least} new one${least === 1 ? '' : 's'}`
  throw tooLong(context, `the prompt has ${promptTokens} tokens${request}`, param)
}

/**
 * Refuses a text that cannot fit however it is cut into tokens, before time is spent on cutting it.
 *
 * @throws 400 context_length_exceeded
 */
export function checkTextLength(
  { context, texts }: ServedModel,
  characters: number,
  param: string,
): void {
  if (characters <= context * texts.longest) return
  throw tooLong(context, `the prompt has ${characters} characters`, param)
}

function tooLong(context: number, what: string, param: string): ApiError {
  const message = `This model's maximum context length is ${context} tokens, but ${what}. Shorten it.`
  return wrong(param, message, 'context_length_exceeded')
}

/** Token ids as they were sent, each checked against the model's vocabulary. */
export function readIds(served: ServedModel, ids: readonly unknown[], param: string): number[] {
  const { vocabSize } = served.model.config
  if (ids.length === 0) throw wrong(param, `'${param}' is empty: there is no token to continue`)
  return ids.map((id, i) => {
    if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < vocabSize) return id
    const range = `a token id from 0 to ${vocabSize - 1}`
    throw wrong(`${param}.${i}`, `'${param}.${i}' must be ${range}, got ${show(id)}`)
  })
}
