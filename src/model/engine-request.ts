import {
  abortSignal,
  atLeast,
  type Check,
  fields,
  finite,
  integer,
  list,
  maxSize,
  number,
  optional,
} from '../arguments.js'
import { refuse, WestwindError } from '../errors.js'
import type { SampleOptions } from '../ops/index.js'
import type { Model } from './model.js'
import type { TokenLogprob } from './token-logprobs.js'

/** Why a text ended: a stop token, or no room for more tokens. */
export type FinishReason = 'stop' | 'length'

/** What an engine computes: how a prompt goes on, how likely it is, or both. */
export interface EngineRequest {
  /** The prompt, at least one token. */
  ids: readonly number[]
  /**
   * New tokens at most; the cache's length may end a text before. 0: the prompt is only scored; its last token is
   * never an input, so it may have one token more than the cache's length.
   */
  maxNewTokens: number
  /** 0, the default: always the most likely token. */
  temperature?: number
  /** Choose among the k most likely tokens; 0, the default: all. */
  topK?: number
  /** Choose among the fewest tokens that have this probability in all; 1, the default: all. */
  topP?: number
  /** 0 by default. */
  seed?: number
  /** Which of the seed's streams of random numbers: requests of one seed differ by it. 0 by default. */
  stream?: number
  /** Tokens that end a text; none by default. */
  stopIds?: readonly number[]
  /** Tell the log-probs of the prompt's tokens from this one on, at least 1. */
  promptLogprobsFrom?: number
  /** Tell log-probs of new tokens, and so many likeliest alternatives with every log-prob, 0 to 20. */
  topLogprobs?: number
  signal?: AbortSignal
}

export type EngineEvent =
  /** First and once, if log-probs of the prompt were asked for: of ids[promptLogprobsFrom] and what follows. */
  | { type: 'prompt'; logprobs: TokenLogprob[] }
  /** A new token; the last one says why it is the last. */
  | { type: 'token'; id: number; logprob?: TokenLogprob; finishReason?: FinishReason }

const checkFields: Check<EngineRequest> = fields<EngineRequest>({
  ids: list(number),
  maxNewTokens: integer(0),
  temperature: optional(atLeast(0)),
  topK: optional(integer(0, maxSize)),
  topP: optional(finite),
  seed: optional(integer(Number.MIN_SAFE_INTEGER)),
  stream: optional(integer(0)),
  stopIds: optional(list(number)),
  promptLogprobsFrom: optional(integer(1)),
  topLogprobs: optional(integer(0, 20)),
  signal: optional(abortSignal),
})

/** @throws ERR_INVALID_ARG unless an engine of that model and length can do what is asked */
export function checkRequest(
  request: EngineRequest,
  model: Model,
  length: number,
): asserts request is EngineRequest {
  checkFields(request, 'request')
  const { ids, maxNewTokens, promptLogprobsFrom: from } = request
  checkSampling(request)
  checkPrompt('the prompt', ids, model)
  if (from !== undefined && from > ids.length) {
    refuse('request.promptLogprobsFrom', `at most the prompt's ${ids.length} tokens`, from)
  }
  if (ids.length + (maxNewTokens > 0 ? 1 : -1) <= length) return
  const words = maxNewTokens > 0 ? 'leaves no room in' : 'does not fit'
  const context = model.config.maxPositionEmbeddings
  const of = length < context ? `the cache of ${length}` : `the model's context of ${context}`
  throw invalid(`the prompt has ${ids.length} tokens and ${words} ${of}. Shorten it.`)
}

/** What is wrong beyond the types. */
export function checkSampling({ temperature = 0, topP = 1 }: Partial<SampleOptions>): void {
  if (temperature >= 1e6) refuse('temperature', 'below 1e6', temperature)
  if (!(topP > 0 && topP <= 1)) refuse('topP', 'above 0 and at most 1', topP)
}

/** @throws ERR_INVALID_ARG for an empty prompt and for ids that are none of the model's */
export function checkPrompt(which: string, ids: readonly number[], model: Model): void {
  const { vocabSize } = model.config
  if (ids.length === 0) throw invalid(`${which} is empty: there is no token to continue`)
  const bad = ids.find((id) => !(Number.isInteger(id) && id >= 0 && id < vocabSize))
  if (bad === undefined) return
  throw invalid(`${which}: token id ${bad} is not in the model's vocabulary of ${vocabSize}`)
}

function invalid(message: string): WestwindError {
  return new WestwindError('ERR_INVALID_ARG', message)
}
