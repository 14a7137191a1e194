import { describe, expect, it } from 'vitest'
import { compare, markdownTable, type Pair } from '../../src/bench/compare.js'

const pair = (ours: number, peer: number, others = 0): Pair => ({
  ours,
  peer: { mm: peer },
  others,
})

describe('compare', () => {
  it('ratios are taken within a pair: a machine twice as slow for one of them changes nothing', () => {
    const result = compare([pair(10, 15), pair(20, 30), pair(10, 15), pair(20, 30)])
    expect(result).toMatchObject({ form: 'mm', ratio: 1.5, low: 1.5, high: 1.5 })
  })

  it('pairs that other programs disturbed do not count', () => {
    const quiet = [pair(10, 20, 0.1), pair(10, 22), pair(10, 18, 0.2)]
    const result = compare([pair(10, 90, 1.5), ...quiet, pair(10, 1, 1)])
    expect(result).toMatchObject({ ratio: 2, low: 1.8, high: 2.2, ours: 10, peer: 20 })
  })

  it("the peer's fastest form counts", () => {
    const pairs = [8, 4, 9].map((slice) => ({ ours: 4, peer: { whole: 10, slice }, others: 0 }))
    expect(compare(pairs)).toMatchObject({ form: 'slice', ratio: 2, peer: 8 })
  })

  it.each([
    { what: 'no pairs', pairs: [] },
    { what: 'no form', pairs: [{ ours: 1, peer: {}, others: 0 }] },
    { what: 'no time of ours', pairs: [pair(Number.NaN, 1)] },
    { what: 'no time of a form', pairs: [pair(1, 1), { ours: 1, peer: { other: 1 }, others: 1 }] },
  ])('$what is an error, not a ratio', ({ pairs }) => {
    expect(() => compare(pairs)).toThrow('lacks a time')
  })
})

it('a table in Markdown', () => {
  expect(markdownTable(['a', 'b'], [['1', '2']])).toBe('| a | b |\n| --- | --- |\n| 1 | 2 |')
})
