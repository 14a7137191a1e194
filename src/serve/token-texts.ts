import { IncrementalDecoder } from '../data/tokenizer/incremental.js'
import type { Tokenizer } from '../data/tokenizer/tokenizer.js'

/** A token as a client sees it. */
export interface TokenText {
  /** As it stands inside a text; special tokens by their name, part of a character as `bytes:\xe2`. */
  text: string
  /** UTF-8; null where the token stands for no bytes. */
  bytes: number[] | null
  /** Characters it gives to a text, as far as it alone tells. */
  length: number
}

/** The texts of single tokens, each computed once. */
export class TokenTexts {
  readonly #tokenizer: Tokenizer
  readonly #known = new Map<number, TokenText>()
  /** A token before others, so that a space at their beginning is not taken for that of the text. */
  readonly #anchor: number
  readonly #anchorText: string
  /** Characters of the longest token of the vocabulary. */
  readonly longest: number

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer
    this.#anchor = tokenizer.encode('a').at(-1) ?? 0
    this.#anchorText = tokenizer.decode([this.#anchor])
    this.longest = longestToken(tokenizer)
  }

  of(id: number): TokenText {
    let known = this.#known.get(id)
    if (!known) {
      known = this.#look(id)
      this.#known.set(id, known)
    }
    return known
  }

  /**
   * The text of a prompt's tokens and where in it each of them begins, in characters. Special tokens and
   * incomplete characters take no room.
   */
  prompt(ids: readonly number[]): { text: string; offsets: number[] } {
    const text = this.#tokenizer.decode(ids, { skipSpecialTokens: true })
    const offsets: number[] = []
    let at = 0
    for (const id of ids) {
      offsets.push(at)
      at += this.of(id).length
    }
    if (at === text.length) return { text, offsets }
    const space = at === text.length + 1 // the decoder drops a space before the first word
    if (space) return { text, offsets: offsets.map((offset) => Math.max(0, offset - 1)) }
    return this.#exactly(ids)
  }

  /** Token by token, for texts whose tokens are more or less than their parts. */
  #exactly(ids: readonly number[]): { text: string; offsets: number[] } {
    const decoder = new IncrementalDecoder(this.#tokenizer)
    let text = ''
    const offsets = ids.map((id) => {
      const offset = text.length
      text += decoder.push(id)
      return offset
    })
    return { text: text + decoder.end(), offsets }
  }

  #look(id: number): TokenText {
    const name = this.#tokenizer.idToToken(id)
    if (name === undefined) return { text: `<token ${id}>`, bytes: null, length: 0 }
    if (this.#tokenizer.specialTokenAt(name, 0) === name) {
      return { text: name, bytes: utf8(name), length: 0 }
    }
    const text = this.#tokenizer.decode([this.#anchor, id]).slice(this.#anchorText.length)
    if (!text.includes('\ufffd')) return { text, bytes: utf8(text), length: text.length }
    const bytes = bytesOf(name)
    if (!bytes) return { text, bytes: null, length: text.length }
    const hex = bytes.map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`)
    return { text: `bytes:${hex.join('')}`, bytes, length: 0 }
  }
}

function longestToken(tokenizer: Tokenizer): number {
  let longest = 1
  for (let id = 0; id < tokenizer.vocabSize; id++) {
    longest = Math.max(longest, tokenizer.idToToken(id)?.length ?? 0)
  }
  return longest
}

function utf8(text: string): number[] {
  return [...Buffer.from(text, 'utf8')]
}

/** The bytes of a token that is no whole text: SentencePiece's `<0xE2>`, or letters of GPT-2's byte alphabet. */
function bytesOf(name: string): number[] | undefined {
  const hex = /^<0x([0-9A-F]{2})>$/.exec(name)
  if (hex) return [Number.parseInt(hex[1]!, 16)]
  const bytes = Array.from(name, (letter) => byteAlphabet.get(letter))
  return bytes.every((byte) => byte !== undefined) ? bytes : undefined
}

/** GPT-2 writes each byte as a printable character: itself where it is one, else the next from U+0100 on. */
const byteAlphabet: ReadonlyMap<string, number> = new Map(
  (() => {
    let next = 0x100
    return Array.from({ length: 256 }, (_, byte): [string, number] => {
      const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad)
      return [String.fromCodePoint(printable ? byte : next++), byte]
    })
  })(),
)
