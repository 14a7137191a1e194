import { abortSignal, type Check, fields, flag, optional, text as string } from '../arguments.js'
import { type ChatTemplate, checkTemplate } from '../data/chat-template.js'
import type { Message } from '../data/conversation.js'
import { WestwindError } from '../errors.js'
import { decodeRows } from './decoding.js'
import {
  createRow,
  type GenerationEvent,
  promptIds,
  type SamplingOptions,
  samplingChecks,
  samplingOf,
  textOf,
} from './generate.js'
import { KvCache } from './kv-cache.js'
import { checkModel, type Model } from './model.js'

export interface ChatOptions extends SamplingOptions {
  /** One growing text without a chat template; the default where the tokenizer has none. */
  raw?: boolean
  /** Instead of the tokenizer's. */
  template?: ChatTemplate
}

const checkOptions: Check<ChatOptions> = fields<ChatOptions>({
  ...samplingChecks,
  raw: optional(flag),
  template: optional(checkTemplate),
})
const checkSignal: Check<AbortSignal | undefined> = optional(abortSignal)

/** Places of a new cache; it grows twofold where a conversation needs more. */
const kFirstLength = 1024

/**
 * A conversation with a model. The cache of keys and values stays between turns, and only what is new
 * since the last one is computed: the tokens after the common beginning. Dispose it.
 */
export class ChatSession {
  readonly #model: Model
  readonly #options: ChatOptions
  #messages: Message[] = []
  #cache: KvCache | undefined
  /** What the cache holds. */
  #held: number[] = []
  #reused = 0

  constructor(model: Model, options: ChatOptions = {}) {
    checkModel(model, 'ChatSession: model')
    checkOptions(options, 'ChatSession: options')
    this.#model = model
    this.#options = options
  }

  /** The turns so far; roles user and assistant. */
  get messages(): readonly Message[] {
    return this.#messages
  }

  /** Tokens of the last prompt that did not have to be computed again. */
  get reusedTokens(): number {
    return this.#reused
  }

  /**
   * The answer to `text`, token by token. Where the caller stops early or the signal fires, what was said
   * till then stays in the conversation.
   *
   * @throws ERR_INVALID_ARG where the conversation no longer fits the model's context; ERR_ABORTED
   */
  async *say(text: string, signal?: AbortSignal): AsyncGenerator<GenerationEvent, void> {
    string(text, 'say: text')
    checkSignal(signal, 'say: signal')
    const model = this.#model
    checkModel(model, 'say: model')
    const turn = Math.floor(this.#messages.length / 2)
    const messages = [...this.#messages, { role: 'user', content: text }]
    const row = createRow(model, turn, this.#promptIds(messages), this.#options)
    const sampling = { ...(await samplingOf(model, this.#options)), signal }
    const cache = this.#cacheFor(row.maxLength)
    row.cached = Math.min(commonLength(this.#held, row.ids), row.ids.length - 1)
    this.#reused = row.cached
    const textSoFar = textOf(model, row)
    const answer = { role: 'assistant', content: '' }
    this.#messages = [...messages, answer]
    try {
      for await (const { id, finishReason } of decodeRows(model, cache, [row], sampling)) {
        const piece = textSoFar(id, finishReason !== undefined)
        answer.content += piece
        yield { index: turn, id, text: piece, ...(finishReason && { finishReason }) }
      }
    } finally {
      this.#held = row.ids.slice(0, row.cached)
    }
  }

  /** Forgets the conversation. */
  reset(): void {
    this.#messages = []
  }

  /** Gives the cache's memory back. A second call does nothing. */
  dispose(): void {
    this.#cache?.dispose()
    this.#cache = undefined
    this.#held = []
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  #promptIds(messages: readonly Message[]): number[] {
    const { tokenizer } = this.#model
    if (!tokenizer) {
      const where = this.#model.path ?? 'the model'
      throw new WestwindError(
        'ERR_TOKENIZER',
        `${where} has no tokenizer.json: nothing to chat with`,
      )
    }
    const { template, raw = !(template || tokenizer.chatTemplate !== undefined) } = this.#options
    if (!raw) return promptIds(this.#model, messages, template ? { template } : {})
    const text = messages.map(({ content }) => content).join('\n')
    return promptIds(this.#model, text, { raw: true })
  }

  #cacheFor(length: number): KvCache {
    if (this.#cache && this.#cache.length >= length) return this.#cache
    const context = this.#model.config.maxPositionEmbeddings
    const grown = Math.max(length, 2 * (this.#cache?.length ?? kFirstLength / 2))
    this.dispose()
    this.#cache = new KvCache(this.#model, 1, Math.min(grown, context))
    return this.#cache
  }
}

function commonLength(a: readonly number[], b: readonly number[]): number {
  let n = 0
  while (n < a.length && n < b.length && a[n] === b[n]) n++
  return n
}
