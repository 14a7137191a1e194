import { expect, it } from 'vitest'
import { capitalize, countWords, length, rstrip, strip } from '../../src/eval/python-text.js'

it('white space, words, length and capitals are those of Python', () => {
  expect(strip('\u00a0\x1c a\u2003b \u3000\n')).toBe('a\u2003b')
  expect(strip('\ufeff x')).toBe('\ufeff x') // a byte order mark is no space there
  expect(rstrip(' x \t')).toBe(' x')
  expect(countWords('')).toBe(1)
  expect(countWords(' two\n\nwords ')).toBe(4) // with an empty one at each end
  expect(length('a😀é')).toBe(3)
  expect(['éCOLE', 'ßA', '', 'HELLO World'].map(capitalize)).toEqual([
    'École',
    'Ssa',
    '',
    'Hello world',
  ])
})
