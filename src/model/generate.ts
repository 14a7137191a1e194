import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  abortSignal,
  atLeast,
  type Check,
  fields,
  finite,
  flag,
  integer,
  list,
  maxSize,
  number,
  optional,
} from '../arguments.js'
import {
  type ChatTemplate,
  checkMessages,
  checkTemplate,
  compileTemplate,
  templateTokens,
  zephyrTemplate,
} from '../data/chat-template.js'
import type { Message } from '../data/conversation.js'
import { IncrementalDecoder } from '../data/tokenizer/incremental.js'
import { refuse, WestwindError } from '../errors.js'
import { isRecord } from '../json.js'
import { Engine, type EngineEvent, type EngineRequest, type FinishReason } from './engine.js'
import { checkPrompt, checkSampling } from './engine-request.js'
import { EventQueue } from './event-queue.js'
import { checkModel, type Model } from './model.js'

/**
 * What a text continues: a string (the user's turn of a conversation, or raw text), a conversation, or
 * token ids as they are.
 */
export type Prompt = string | readonly Message[] | readonly number[] | Int32Array

export interface SamplingOptions {
  /** New tokens at most, per prompt; 256 by default. The model's context may end a text before. */
  maxNewTokens?: number
  /** 0, the default: always the most likely token. */
  temperature?: number
  /** Choose among the k most likely tokens; 0, the default: all. */
  topK?: number
  /** Choose among the fewest tokens that have this probability in all; 1, the default: all. */
  topP?: number
  /** Same seed, same prompts, same model: same text. 0 by default. */
  seed?: number
  /** Tokens that end a text; by default those of {@link stopIdsOf}. */
  stopIds?: readonly number[]
}

export interface GenerateOptions extends SamplingOptions {
  /** Continue strings as they are, without a chat template; the default where the tokenizer has none. */
  raw?: boolean
  /** Instead of the tokenizer's (or, for conversations, of Zephyr's where it has none). */
  template?: ChatTemplate
  /** Prompts computed together; 16 by default. Memory and speed depend on it, results do not. */
  batchSize?: number
  signal?: AbortSignal
}

export interface Generation {
  /** As given. */
  prompt: Prompt
  /** The new text, without special tokens; empty for a model without a tokenizer. */
  text: string
  /** The new tokens, the stop token included. */
  ids: number[]
  finishReason: FinishReason
}

/** A new token while it streams. */
export interface GenerationEvent {
  /** Which prompt. */
  index: number
  id: number
  /** What is readable now and was not before: whole characters, possibly none. */
  text: string
  /** With the last token of the prompt's text. */
  finishReason?: FinishReason
}

/** @internal Of each option that says how tokens are chosen. */
export const samplingChecks = {
  maxNewTokens: optional(integer(1)),
  temperature: optional(atLeast(0)),
  topK: optional(integer(0, maxSize)),
  topP: optional(finite),
  seed: optional(integer(Number.MIN_SAFE_INTEGER)),
  stopIds: optional(list(number)),
}
const checkOptions: Check<GenerateOptions> = fields<GenerateOptions>({
  ...samplingChecks,
  raw: optional(flag),
  template: optional(checkTemplate),
  batchSize: optional(integer(1)),
  signal: optional(abortSignal),
})
const checkIds: Check<readonly number[]> = list(number)
const checkPrompts: Check<readonly Prompt[]> = list((prompt, where) => {
  if (typeof prompt === 'string' || prompt instanceof Int32Array) return
  if (!Array.isArray(prompt)) refuse(where, 'a text, a conversation or token ids', prompt)
  if (typeof prompt[0] === 'object') checkMessages(prompt, where)
  else checkIds(prompt, where)
})

/**
 * Continues each prompt. Texts depend on the model, the prompt and its index, the options and the seed
 * alone, not on the batch. All memory is given back at the end.
 *
 * @returns one {@link Generation} per prompt, in order
 * @throws ERR_INVALID_ARG for a wrong option, an empty prompt, or one that leaves no room in the context;
 *   ERR_TOKENIZER where text needs a tokenizer that the model has not; ERR_ABORTED
 */
export async function generate(
  model: Model,
  prompts: readonly Prompt[],
  options: GenerateOptions = {},
): Promise<Generation[]> {
  checkGenerate('generate', model, prompts, options)
  const done = prompts.map((prompt): Generation => {
    return { prompt, text: '', ids: [], finishReason: 'length' }
  })
  for await (const { index, id, text, finishReason } of stream(model, prompts, options)) {
    const one = done[index]!
    one.text += text
    one.ids.push(id)
    if (finishReason) one.finishReason = finishReason
  }
  return done
}

/** Like {@link generate}, token by token; the prompts' tokens come interleaved. */
export async function* generateStream(
  model: Model,
  prompts: readonly Prompt[],
  options: GenerateOptions = {},
): AsyncGenerator<GenerationEvent, void> {
  checkGenerate('generateStream', model, prompts, options)
  yield* stream(model, prompts, options)
}

function checkGenerate(
  name: string,
  model: Model,
  prompts: readonly Prompt[],
  options: GenerateOptions,
): void {
  checkModel(model, `${name}: model`)
  checkPrompts(prompts, `${name}: prompts`)
  checkOptions(options, `${name}: options`)
}

async function* stream(
  model: Model,
  prompts: readonly Prompt[],
  options: GenerateOptions,
): AsyncGenerator<GenerationEvent, void> {
  const { batchSize = 16, signal } = options
  const sampling = await samplingOf(model, options)
  const requests = prompts.map((prompt, index): EngineRequest => {
    return { ...sampling, stream: index, ids: idsOf(model, index, prompt, options) }
  })
  if (requests.length === 0) return
  const length = requests.reduce((most, one) => Math.max(most, lengthOf(model, one)), 0)
  const engine = new Engine(model, { slots: Math.min(batchSize, requests.length), length })
  const texts = requests.map(({ ids }) => textOf(model, ids))
  const queue = new EventQueue<{ index: number; event: EngineEvent }>()
  let left = requests.length
  try {
    for (const [index, request] of requests.entries()) {
      engine.enqueue(request, {
        push: (event) => queue.push({ index, event }),
        end: (error) => {
          if (error !== undefined || --left === 0) queue.end(error)
        },
      })
    }
    for await (const { index, event } of queue.read(signal)) {
      if (event.type !== 'token') continue
      const { id, finishReason } = event
      const text = texts[index]!(id, finishReason !== undefined)
      yield { index, id, text, ...(finishReason && { finishReason }) }
    }
  } finally {
    await engine.close()
  }
}

/** @internal The text that each new token after a prompt completes. */
export function textOf(
  model: Model,
  prompt: readonly number[],
): (id: number, last: boolean) => string {
  if (!model.tokenizer) return () => ''
  const decoder = new IncrementalDecoder(model.tokenizer, prompt)
  return (id, last) => decoder.push(id) + (last ? decoder.end() : '')
}

/** @internal Options with their defaults. */
export async function samplingOf(model: Model, options: SamplingOptions) {
  const { maxNewTokens = 256, temperature = 0, topK = 0, topP = 1, seed = 0 } = options
  checkSampling({ temperature, topP })
  const stopIds = options.stopIds ?? (await stopIdsOf(model))
  return { maxNewTokens, temperature, topK, topP, seed, stopIds }
}

/** The tokens of a prompt that fits the model. */
function idsOf(model: Model, index: number, prompt: Prompt, options: GenerateOptions): number[] {
  const ids = promptIds(model, prompt, options)
  checkFits(model, index, ids)
  return ids
}

/** @internal Refuses a prompt that the model cannot continue. */
export function checkFits(model: Model, index: number, ids: readonly number[]): void {
  const context = model.config.maxPositionEmbeddings
  const which = `prompt ${index + 1}`
  checkPrompt(which, ids, model)
  if (ids.length < context) return
  throw new WestwindError(
    'ERR_INVALID_ARG',
    `${which} has ${ids.length} tokens and leaves no room in the model's context of ${context} ` +
      '(max_position_embeddings). Shorten it.',
  )
}

/** @internal Tokens that prompt and answer may have in all. */
export function lengthOf(
  model: Model,
  { ids, maxNewTokens }: Pick<EngineRequest, 'ids' | 'maxNewTokens'>,
): number {
  return Math.min(ids.length + maxNewTokens, model.config.maxPositionEmbeddings)
}

/**
 * The tokens that a prompt stands for. A string is raw text (with the tokenizer's BOS) where `raw` says
 * so or there is no template, else the user's turn of a conversation; a conversation is rendered with
 * the header of the assistant's turn at its end.
 */
export function promptIds(
  model: Model,
  prompt: Prompt,
  options: Pick<GenerateOptions, 'raw' | 'template'> = {},
): number[] {
  if (typeof prompt !== 'string' && !isConversation(prompt)) return Array.from(prompt)
  const { tokenizer } = model
  if (!tokenizer) {
    throw new WestwindError(
      'ERR_TOKENIZER',
      `${model.path ?? 'the model'} has no tokenizer.json: prompts must be token ids`,
    )
  }
  const raw = options.raw ?? !(options.template || tokenizer.chatTemplate !== undefined)
  if (typeof prompt === 'string' && raw) {
    return tokenizer.encode(prompt, { addSpecialTokens: true })
  }
  const template = options.template ?? compileTemplate(tokenizer.chatTemplate ?? zephyrTemplate)
  const messages = typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : prompt
  const tokens = { ...templateTokens(tokenizer), addGenerationPrompt: true }
  return tokenizer.encode(template.render(messages, tokens))
}

function isConversation(prompt: Exclude<Prompt, string>): prompt is readonly Message[] {
  return typeof prompt[0] === 'object'
}

/**
 * The tokens that end a text: `eos_token_id` of `generation_config.json`, else of `config.json`, and the
 * tokenizer's EOS.
 */
export async function stopIdsOf(model: Model): Promise<number[]> {
  const fromFile = model.path === undefined ? undefined : await generationEos(model.path)
  const configured = [fromFile ?? model.config.eosTokenId ?? []].flat()
  return [...new Set([...configured, model.tokenizer?.eosId ?? []].flat())]
}

async function generationEos(dir: string): Promise<number[] | undefined> {
  const file = join(dir, 'generation_config.json')
  const text = await readFile(file, 'utf8').catch(() => undefined)
  if (text === undefined) return undefined
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (cause) {
    throw new WestwindError('ERR_CONFIG', `${file}: not JSON`, { cause })
  }
  if (!isRecord(json) || json.eos_token_id === undefined || json.eos_token_id === null) {
    return undefined
  }
  const ids = [json.eos_token_id].flat()
  return ids.map((id) => {
    if (typeof id === 'number' && Number.isInteger(id)) return id
    throw new WestwindError(
      'ERR_CONFIG',
      `${file}: eos_token_id must be a token id or a list of them, got ${JSON.stringify(json.eos_token_id)}`,
    )
  })
}
