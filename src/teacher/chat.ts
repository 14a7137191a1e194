import type OpenAI from 'openai'
import { z } from 'zod'
import type { Message } from '../data/conversation.js'
import { type ErrorCode, WestwindError } from '../errors.js'
import { reason } from '../json.js'
import { Budget, nothing, type Spent, spentBy, sum, type Usage } from './budget.js'
import { apiKey, type Endpoint, isOpenAi, keyVariable } from './endpoint.js'
import { isTransient, pause, pauseMs, retryAfterMs } from './retry.js'
import { estimateText, estimateTokens } from './tokens.js'

/** What is asked of a model beside the messages, by the names of the API. */
export interface ChatSettings {
  temperature?: number | undefined
  top_p?: number | undefined
  /** Also what a request reserves of the budget, so it is not optional. */
  max_tokens: number
  seed?: number | undefined
  stop?: readonly string[] | undefined
  /** Structured output: the answer must be JSON of this schema. */
  json_schema?: { name: string; schema: Record<string, unknown> } | undefined
  /** Log-probabilities of the answer's tokens, and of so many alternatives of each. */
  logprobs?: boolean | undefined
  top_logprobs?: number | undefined
}

export interface TokenLogprob {
  token: string
  logprob: number
  top_logprobs: { token: string; logprob: number }[]
}

export interface ChatAnswer {
  /** Empty where there is none, for example with a refusal. */
  text: string
  /** `stop`, `length`, `content_filter`, …; null where the endpoint does not say. */
  finish_reason: string | null
  /** The model's own statement that it will not answer, where the API has one apart. */
  refusal?: string
  usage: Usage
  /** The model by the endpoint's word: `gpt-4-0613` where `gpt-4` was asked for. */
  model: string
  /** One per token of the answer, where they were asked for. */
  logprobs?: TokenLogprob[]
}

/**
 * A request that an endpoint did not answer. `ERR_TEACHER`: it refuses all like it (key, model, settings);
 * `ERR_REFUSED`: it refuses this one; `ERR_NETWORK`: all attempts failed; `ERR_BUDGET`, `ERR_ABORTED`.
 */
export class TeacherError extends WestwindError {
  /** HTTP status, where there was an answer. */
  readonly status: number | undefined
  /** What the attempts may have cost. */
  readonly spent: Spent

  constructor(code: ErrorCode, message: string, spent: Spent, status?: number) {
    super(code, message)
    this.status = status
    this.spent = spent
  }
}

export interface Teacher {
  readonly endpoint: Endpoint
  /**
   * Asks once; transient failures are retried with growing pauses.
   *
   * @returns the answer, and what all attempts used
   * @throws {@link TeacherError}
   */
  chat(
    messages: readonly Message[],
    settings: ChatSettings,
    signal?: AbortSignal,
  ): Promise<{ answer: ChatAnswer; spent: Spent }>
}

export interface TeacherOptions {
  /** Shared by all that spend from it; without limits by default. */
  budget?: Budget
  env?: Readonly<Record<string, string | undefined>>
}

/**
 * A client of an OpenAI-compatible endpoint. The key is read from the environment, sent to this endpoint
 * alone, and in no error.
 *
 * @throws ERR_TEACHER where the key's variable is not set
 */
export function openTeacher(endpoint: Endpoint, options: TeacherOptions = {}): Teacher {
  const { budget = new Budget() } = options
  const key = apiKey(endpoint, options.env)
  let client: OpenAI | undefined
  return {
    endpoint,
    async chat(messages, settings, signal) {
      client ??= await createClient(endpoint, key)
      const body = request(endpoint, messages, settings)
      const prompt_tokens = estimateTokens(messages)
      const most = spentBy(
        { prompt_tokens, completion_tokens: settings.max_tokens },
        endpoint.price,
      )
      let spent = nothing
      for (let attempt = 1; ; attempt++) {
        const fail = (code: ErrorCode, message: string, status?: number): never => {
          throw new TeacherError(code, message, spent, status)
        }
        if (signal?.aborted) fail('ERR_ABORTED', 'the request was stopped')
        const settle = await reserve(budget, most, spent)
        const outcome = await send(client, endpoint, body, prompt_tokens, signal)
        const used = outcome.billed === 'unknown' ? most : spentBy(outcome.billed, endpoint.price)
        settle(used)
        spent = sum(spent, used)
        if (outcome.answer) return { answer: outcome.answer, spent }
        const { status, headers, transient } = outcome
        const message = withoutKey(outcome.message, key)
        if (signal?.aborted) fail('ERR_ABORTED', 'the request was stopped')
        if (!transient) fail(...explained(endpoint, status, message), status)
        if (attempt > endpoint.max_retries) {
          const tries = `${attempt} ${attempt === 1 ? 'attempt' : 'attempts'}`
          fail('ERR_NETWORK', `${name(endpoint)}: no answer in ${tries}: ${message}`, status)
        }
        await pause(pauseMs(attempt, retryAfterMs(headers)), signal)
      }
    },
  }
}

async function createClient(endpoint: Endpoint, key: string | undefined): Promise<OpenAI> {
  const { OpenAI } = await import('openai') // not loaded by commands that ask nobody
  return new OpenAI({
    apiKey: key ?? 'none',
    baseURL: endpoint.base_url,
    maxRetries: 0, // each attempt is counted, so the retries are ours
    timeout: endpoint.timeout * 1000,
    logLevel: 'off',
    // what the environment has for OpenAI goes to no other endpoint
    adminAPIKey: null,
    webhookSecret: null,
    ...(!isOpenAi(endpoint) && { organization: null, project: null }),
    ...(key === undefined && { defaultHeaders: { Authorization: null } }),
  })
}

/** As the budget does, with what this request has spent already. */
async function reserve(budget: Budget, most: Spent, spent: Spent): Promise<(used: Spent) => void> {
  try {
    return await budget.reserve(most)
  } catch (cause) {
    if (!(cause instanceof WestwindError)) throw cause
    throw new TeacherError(cause.code, cause.message, spent)
  }
}

type Body = OpenAI.Chat.ChatCompletionCreateParamsNonStreaming

function request(
  endpoint: Endpoint,
  messages: readonly Message[],
  { max_tokens, json_schema, stop, ...rest }: ChatSettings,
): Body {
  return {
    model: endpoint.model,
    messages: messages.map(({ role, content }) => {
      if (role === 'system' || role === 'assistant') return { role, content }
      return { role: 'user', content }
    }),
    ...rest,
    ...(isOpenAi(endpoint) ? { max_completion_tokens: max_tokens } : { max_tokens }),
    ...(stop && { stop: [...stop] }),
    ...(json_schema && {
      response_format: { type: 'json_schema', json_schema: { ...json_schema, strict: true } },
    }),
  }
}

interface Outcome {
  answer?: ChatAnswer
  /** Tokens of this attempt; unknown where the endpoint may have answered and the answer was lost. */
  billed: Usage | 'unknown'
  transient: boolean
  message: string
  status?: number | undefined
  headers?: Headers | undefined
}

/** Of a gateway that did not wait for the answer: it may be made, and paid for, all the same. */
const gatewayStatuses = [408, 502, 504]

const free: Usage = { prompt_tokens: 0, completion_tokens: 0 }

async function send(
  client: OpenAI,
  endpoint: Endpoint,
  body: Body,
  promptTokens: number,
  signal: AbortSignal | undefined,
): Promise<Outcome> {
  // The client's own limit ends with the headers; this one covers the body too.
  const late = AbortSignal.timeout(endpoint.timeout * 1000)
  try {
    const response: unknown = await client.chat.completions.create(body, {
      signal: signal ? AbortSignal.any([signal, late]) : late,
    })
    const parsed = responseSchema.safeParse(response)
    if (parsed.success) {
      const answer = answerOf(parsed.data, endpoint, promptTokens)
      return { answer, billed: answer.usage, transient: false, message: '' }
    }
    const [issue] = parsed.error.issues
    const message = `the answer is no chat completion: ${issue?.path.join('.')}: ${issue?.message}`
    return { billed: 'unknown', transient: true, message }
  } catch (cause) {
    if (late.aborted) {
      const message = `timed out after ${endpoint.timeout} s`
      return { billed: 'unknown', transient: true, message }
    }
    const { APIError } = await import('openai')
    if (cause instanceof APIError && cause.status !== undefined) {
      const { status, headers } = cause
      const message = cause.code ? `${cause.message} (${cause.code})` : cause.message
      const billed = gatewayStatuses.includes(status) ? 'unknown' : free
      return { billed, transient: isTransient(status), message, status, headers }
    }
    const message = rootReason(cause)
    const unsent = /ECONNREFUSED|ENOTFOUND|EAI_AGAIN/.test(message)
    return { billed: unsent ? free : 'unknown', transient: true, message }
  }
}

const count = z.number().int().min(0)
const responseSchema = z.object({
  model: z.string().nullish(),
  choices: z
    .array(
      z.object({
        finish_reason: z.string().nullish(),
        message: z.object({ content: z.string().nullish(), refusal: z.string().nullish() }),
        logprobs: z
          .object({
            content: z
              .array(
                z.object({
                  token: z.string(),
                  logprob: z.number(),
                  top_logprobs: z
                    .array(z.object({ token: z.string(), logprob: z.number() }))
                    .default([]),
                }),
              )
              .nullish(),
          })
          .nullish(),
      }),
    )
    .min(1),
  usage: z
    .object({ prompt_tokens: count, completion_tokens: count.default(0) })
    .nullish()
    .catch(null),
})

function answerOf(
  { choices, model, usage }: z.output<typeof responseSchema>,
  endpoint: Endpoint,
  promptTokens: number,
): ChatAnswer {
  const { message, finish_reason, logprobs } = choices[0]!
  const text = message.content ?? ''
  const estimated = { prompt_tokens: promptTokens, completion_tokens: estimateText(text) }
  return {
    text,
    finish_reason: finish_reason ?? null,
    ...(message.refusal && { refusal: message.refusal }),
    usage: usage ?? estimated,
    model: model ?? endpoint.model,
    ...(logprobs?.content && { logprobs: logprobs.content }),
  }
}

/** What a status that no retry mends means, and what to do. */
function explained(
  endpoint: Endpoint,
  status: number | undefined,
  message: string,
): [ErrorCode, string] {
  const said = `${name(endpoint)}: ${message}`
  const variable = keyVariable(endpoint)
  if (status === 401) {
    const advice = variable
      ? `Check the key in the variable ${variable}.`
      : 'It wants a key: put it into an environment variable and name that in api_key_env.'
    return ['ERR_TEACHER', `${said}. ${advice}`]
  }
  if (status === 403) return ['ERR_TEACHER', `${said}. The key may not use this model.`]
  if (status === 404) return ['ERR_TEACHER', `${said}. Check base_url and model.`]
  if (isAboutThisRequest(status, message)) return ['ERR_REFUSED', said]
  return ['ERR_TEACHER', `${said}. Check model and settings.`]
}

/** A text that is too long, or that a policy forbids, says nothing about other texts. */
function isAboutThisRequest(status: number | undefined, message: string): boolean {
  if (status === 413) return true
  if (status !== 400 && status !== 422) return false
  return /context.?(length|window|size)|too (long|large|many tokens)|content.?(filter|management|policy)|safety/i.test(
    message,
  )
}

function name({ base_url, model }: Endpoint): string {
  return `${model} at ${base_url}`
}

/** Endpoints quote keys they do not like. */
function withoutKey(message: string, key: string | undefined): string {
  return key === undefined ? message : message.replaceAll(key, '[key]')
}

/** Of nested errors the innermost message: `fetch failed` says little, `ECONNREFUSED` much. */
function rootReason(cause: unknown): string {
  if (cause instanceof AggregateError && cause.errors.length > 0) return rootReason(cause.errors[0])
  if (cause instanceof Error && cause.cause !== undefined) return rootReason(cause.cause)
  return reason(cause)
}
