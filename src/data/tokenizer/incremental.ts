import type { Tokenizer } from './tokenizer.js'

/** Tokens before the new ones that a piece is decoded with: how a token reads depends on its neighbours. */
const kContext = 6

/**
 * Turns tokens that arrive one by one into pieces of text that join to the whole. A piece waits until
 * its characters are complete: several tokens can make one UTF-8 character.
 */
export class IncrementalDecoder {
  readonly #tokenizer: Tokenizer
  /** The tokens that count for what comes next. */
  #ids: number[]
  /** How many of them are told already. */
  #told: number

  /** @param before tokens that the text goes on from, such as the prompt */
  constructor(tokenizer: Tokenizer, before: readonly number[] = []) {
    this.#tokenizer = tokenizer
    this.#ids = before.slice(-kContext)
    this.#told = this.#ids.length
  }

  /** The text that is complete with this token; empty while a character is not. Special tokens give none. */
  push(id: number): string {
    this.#ids.push(id)
    return this.#take(false)
  }

  /** What was still waiting, incomplete characters as U+FFFD. */
  end(): string {
    return this.#take(true)
  }

  #take(all: boolean): string {
    const options = { skipSpecialTokens: true }
    const text = this.#tokenizer.decode(this.#ids, options)
    const told = this.#tokenizer.decode(this.#ids.slice(0, this.#told), options)
    if (!all && text.endsWith('\ufffd')) return ''
    this.#ids = this.#ids.slice(-kContext)
    this.#told = this.#ids.length
    return text.slice(told.length)
  }
}
