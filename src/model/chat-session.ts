import { abortSignal, type Check, fields, flag, optional, text as string } from '../arguments.js'
import { type ChatTemplate, checkTemplate } from '../data/chat-template.js'
import type { Message } from '../data/conversation.js'
import { WestwindError } from '../errors.js'
import { Engine } from './engine.js'
import {
  checkFits,
  type GenerationEvent,
  lengthOf,
  promptIds,
  type SamplingOptions,
  samplingChecks,
  samplingOf,
  textOf,
} from './generate.js'
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
  #engine: Engine | undefined
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
    const ids = this.#promptIds(messages)
    checkFits(model, turn, ids)
    const request = { ...(await samplingOf(model, this.#options)), ids, stream: turn }
    const engine = this.#engineFor(lengthOf(model, request))
    const reused = engine.stats().reusedTokens
    const textSoFar = textOf(model, ids)
    const answer = { role: 'assistant', content: '' }
    this.#messages = [...messages, answer]
    for await (const event of engine.submit({ ...request, ...(signal && { signal }) })) {
      if (event.type !== 'token') continue
      this.#reused = engine.stats().reusedTokens - reused
      const { id, finishReason } = event
      const piece = textSoFar(id, finishReason !== undefined)
      answer.content += piece
      yield { index: turn, id, text: piece, ...(finishReason && { finishReason }) }
    }
  }

  /** Forgets the conversation. */
  reset(): void {
    this.#messages = []
  }

  /** Gives the cache's memory back. A second call does nothing. */
  dispose(): void {
    this.#engine?.dispose()
    this.#engine = undefined
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

  #engineFor(length: number): Engine {
    if (this.#engine && this.#engine.length >= length) return this.#engine
    const context = this.#model.config.maxPositionEmbeddings
    const grown = Math.max(length, 2 * (this.#engine?.length ?? kFirstLength / 2))
    this.dispose()
    this.#engine = new Engine(this.#model, { slots: 1, length: Math.min(grown, context) })
    return this.#engine
  }
}
