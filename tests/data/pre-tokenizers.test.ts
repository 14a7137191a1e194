import { describe, expect, it } from 'vitest'
import { tokenizerFromFiles } from '../../src/data/tokenizer/tokenizer.js'

/** The letters that GPT-2's byte-level alphabet gives the 256 bytes. */
function byteLetters(): string[] {
  const printable = (b: number) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174
  let next = 256
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : next++))
}

function make(parts: object, tokens: string[], merges: string[] = []) {
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]))
  const end = { id: tokens.length, content: '<|end|>', special: true }
  const json = { added_tokens: [end], model: { type: 'BPE', vocab, merges }, ...parts }
  return tokenizerFromFiles({ 'tokenizer.json': JSON.stringify(json) })
}

/** The texts of the tokens that `encodeMasked` marks for one span. */
function marked(tokenizer: ReturnType<typeof make>, text: string, part: string) {
  const start = text.indexOf(part)
  const { ids, mask } = tokenizer.encodeMasked(text, [{ start, end: start + part.length }])
  expect([...ids]).toEqual(tokenizer.encode(text))
  return tokenizer.decode(ids.filter((_, t) => mask[t] === 1))
}

describe('byte-level tokenizers (Llama 3)', () => {
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, use_regex: true }
  const tokenizer = make(
    { pre_tokenizer: byteLevel, decoder: byteLevel },
    [...byteLetters(), 'Ġw', 'Ġwh', 'Ã©'],
    ['Ġ w', 'Ġw h', 'Ã ©'],
  )

  it('give any text back', () => {
    const text = 'né why  字😀<|end|>\n\tend'
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text)
  })

  it('mark exactly the tokens of a span, also behind characters of several bytes', () => {
    const text = 'é字 is<|end|>né why😀 so<|end|>'
    for (const part of [' is', 'is<|end|>', 'né', 'why😀', '😀', ' so<|end|>', '<|end|>né']) {
      const want = part === 'why😀' ? ' why😀' : part // 'Ġwh' is one token
      expect(marked(tokenizer, text, part), part).toBe(want)
    }
  })
})

describe('Metaspace tokenizers (Llama 2, not legacy)', () => {
  const tokens = ['<unk>', 'a', 'b', '▁', '▁a', '▁▁', 'ab']
  const merges = ['▁ ▁', '▁ a', 'a b']
  const metaspace = (fields: object) => ({
    pre_tokenizer: { type: 'Metaspace', replacement: '▁', ...fields },
    decoder: { type: 'Metaspace', replacement: '▁', ...fields },
  })

  it('prepend_scheme first: only the beginning of the text gets a ▁', () => {
    const tokenizer = make(metaspace({ prepend_scheme: 'first', split: false }), tokens, merges)
    expect(tokenizer.encode('ab<|end|>ab')).toEqual([4, 2, 7, 6])
    expect(tokenizer.encode('<|end|>ab')).toEqual([7, 6])
  })

  it('split cuts before every ▁, so that spaces are not joined', () => {
    const unsplit = make(metaspace({ prepend_scheme: 'never', split: false }), tokens, merges)
    const split = make(metaspace({ prepend_scheme: 'never', split: true }), tokens, merges)
    expect(unsplit.encode('a  b')).toEqual([1, 5, 2])
    expect(split.encode('a  b')).toEqual([1, 3, 3, 2])
  })

  it('mark the token of a ▁ that was put before a span with it', () => {
    const tokenizer = make(metaspace({ prepend_scheme: 'always', split: false }), tokens, merges)
    const { ids, mask } = tokenizer.encodeMasked('ab b', [{ start: 0, end: 1 }])
    expect([...ids]).toEqual([4, 2, 3, 2])
    expect([...mask]).toEqual([1, 0, 0, 0])
  })
})

describe('normalisers that change lengths', () => {
  it('NFC: a span that begins behind a composed character', () => {
    const tokenizer = make({ normalizer: { type: 'NFC' } }, ['e', 'é', 'x', 'y'])
    const text = 'e\u0301e\u0301xy'
    const { ids, mask } = tokenizer.encodeMasked(text, [{ start: 4, end: 5 }])
    expect([...ids]).toEqual([1, 1, 2, 3])
    expect([...mask]).toEqual([0, 0, 1, 0])
  })

  it('added tokens that are looked for in the normalised text', () => {
    const vocab = { a: 0, b: 1, X: 2, x: 3 }
    const json = {
      normalizer: { type: 'Lowercase' },
      added_tokens: [{ id: 9, content: 'xx', normalized: true }],
      model: { type: 'BPE', vocab, merges: [] },
    }
    const tokenizer = tokenizerFromFiles({ 'tokenizer.json': JSON.stringify(json) })
    expect(tokenizer.encode('aXXb')).toEqual([0, 9, 1])
    const { mask } = tokenizer.encodeMasked('aXXb', [{ start: 3, end: 4 }])
    expect([...mask]).toEqual([0, 0, 1])
  })
})
