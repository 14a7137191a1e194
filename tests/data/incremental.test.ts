import { expect, it } from 'vitest'
import { IncrementalDecoder } from '../../src/data/tokenizer/incremental.js'
import { tinyTokenizer } from '../support/small-models.js'

const tokenizer = tinyTokenizer()
const text = 'Grüße, 世界! 👩‍🚀 said: "naïve" — x² ≤ 3.\n\n  Two  spaces'

it('characters of several tokens come whole, and pieces join to the text', () => {
  const decoder = new IncrementalDecoder(tokenizer)
  const pieces = tokenizer.encode(text).map((id) => decoder.push(id))
  expect([...pieces, decoder.end()].join('')).toBe(text)
  for (const piece of pieces) expect(piece).not.toContain('\ufffd')
  expect(pieces).toContain('') // some tokens are part of a character
})

it('after a prompt the space before a word is kept', () => {
  const [hello, world] = [tokenizer.encode('hello'), tokenizer.encode('hello world')]
  const decoder = new IncrementalDecoder(tokenizer, hello)
  const pieces = world.slice(hello.length).map((id) => decoder.push(id))
  expect(pieces.join('')).toBe(' world')
})

it('an incomplete character comes at the end as U+FFFD, special tokens give nothing', () => {
  const decoder = new IncrementalDecoder(tokenizer)
  const [first] = tokenizer.encode('世').slice(-3)
  expect(decoder.push(first!)).toBe('')
  expect(decoder.push(tokenizer.eosId!)).toBe('')
  expect(decoder.end()).toMatch(/^\ufffd+$/)
})
