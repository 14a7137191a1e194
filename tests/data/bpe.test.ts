import { describe, expect, it } from 'vitest'
import { type Section, splitAtAddedTokens } from '../../src/data/tokenizer/added-tokens.js'
import { type BpeModel, createBpe, type TokenSpans } from '../../src/data/tokenizer/bpe.js'

/** Merges as the definition says: again and again the leftmost pair of lowest rank. */
function plainBpe(model: BpeModel, text: string): number[] {
  const parts = Array.from(text)
  const ranks = new Map(model.merges.map(([a, b], rank) => [`${a} ${b}`, rank]))
  for (;;) {
    let best = -1
    let lowest = Number.POSITIVE_INFINITY
    for (let i = 0; i + 1 < parts.length; i++) {
      const rank = ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Number.POSITIVE_INFINITY
      if (rank < lowest) [best, lowest] = [i, rank]
    }
    if (best < 0) return parts.map((part) => model.vocab[part] ?? 0)
    parts.splice(best, 2, `${parts[best]}${parts[best + 1]}`)
  }
}

function randomModel(random: (n: number) => number): BpeModel {
  const vocab: Record<string, number> = { '<unk>': 0 }
  const tokens = ['a', 'b', 'c', '▁', '字', '😀']
  for (const token of tokens) vocab[token] = Object.keys(vocab).length
  const merges: [string, string][] = []
  while (merges.length < 25) {
    const pair: [string, string] = [tokens[random(tokens.length)]!, tokens[random(tokens.length)]!]
    const merged = pair.join('')
    if (merged.length > 8 || merges.some(([a, b]) => a === pair[0] && b === pair[1])) continue
    merges.push(pair)
    if (vocab[merged] !== undefined) continue
    vocab[merged] = Object.keys(vocab).length
    tokens.push(merged)
  }
  return {
    vocab,
    merges,
    unkToken: '<unk>',
    fuseUnk: false,
    byteFallback: false,
    ignoreMerges: false,
  }
}

function generator(seed: number): (n: number) => number {
  let state = seed
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
}

function encode(model: BpeModel, text: string): TokenSpans {
  const out: TokenSpans = { ids: [], starts: [], ends: [] }
  createBpe(model).encode(text, 0, out)
  return out
}

const tiny: BpeModel = {
  vocab: { '<unk>': 0, '<0xC3>': 1, '<0xA9>': 2, a: 3, b: 4, ab: 5, ba: 6, aba: 7 },
  merges: [
    ['a', 'b'],
    ['ab', 'a'],
  ],
  unkToken: '<unk>',
  fuseUnk: false,
  byteFallback: false,
  ignoreMerges: false,
}

describe('byte-pair encoding', () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])(
    'random rules %i: equals the definition on random texts',
    (seed) => {
      const random = generator(seed)
      const model = randomModel(random)
      const bpe = createBpe(model)
      for (let n = 0; n < 60; n++) {
        const chars = Array.from(
          { length: random(60) },
          () => ['a', 'b', 'c', '▁', '字', '😀', 'x'][random(7)],
        )
        const out: TokenSpans = { ids: [], starts: [], ends: [] }
        bpe.encode(chars.join(''), 0, out)
        expect(out.ids, chars.join('')).toEqual(plainBpe(model, chars.join('')))
      }
    },
  )

  it('covers the text with its spans, in order and without gaps', () => {
    const random = generator(9)
    const model = randomModel(random)
    const text = Array.from({ length: 200 }, () => ['a', 'b', '▁', '字', '😀'][random(5)]).join('')
    const { starts, ends } = encode(model, text)
    expect(starts).toEqual([0, ...ends.slice(0, -1)])
    expect(ends.at(-1)).toBe(text.length)
  })

  it('byte fallback: all byte tokens of a character cover that character', () => {
    const got = encode({ ...tiny, byteFallback: true }, 'aéb')
    expect(got).toEqual({ ids: [3, 1, 2, 4], starts: [0, 1, 1, 2], ends: [1, 2, 2, 3] })
  })

  it('fuse_unk: neighbouring unknown characters are one token', () => {
    expect(encode({ ...tiny, fuseUnk: true }, 'axyb').ids).toEqual([3, 0, 4])
    expect(encode(tiny, 'axyb').ids).toEqual([3, 0, 0, 4])
  })

  it('ignore_merges: a word of the vocabulary is taken whole', () => {
    expect(encode(tiny, 'ba').ids).toEqual([4, 3])
    expect(encode({ ...tiny, ignoreMerges: true }, 'ba').ids).toEqual([6])
  })

  it('is not quadratic: 100,000 characters without a border take less than 4 s', () => {
    const begin = performance.now()
    expect(encode(tiny, 'ab'.repeat(50_000)).ids).toHaveLength(50_000)
    expect(performance.now() - begin).toBeLessThan(4000) // 60 ms on an idle core; a quadratic loop needs minutes
  })

  it('names a merge rule that the vocabulary lacks', () => {
    const model = { ...tiny, merges: [...tiny.merges, ['b', 'b'] as [string, string]] }
    expect(() => createBpe(model)).toThrow(/model\.merges\[2\] needs the token "bb"/)
  })
})

describe('added tokens', () => {
  const token = (content: string, flags = {}) => ({
    id: 7,
    content,
    special: true,
    normalized: false,
    lstrip: false,
    rstrip: false,
    singleWord: false,
    ...flags,
  })
  const texts = (text: string, sections: Section[]) =>
    sections.map(({ start, end }) => text.slice(start, end))

  it('are found leftmost first, then longest', () => {
    const split = splitAtAddedTokens([token('<s>'), token('<s>x'), token('s>xy')])
    expect(texts('a<s>xyb<s>', split('a<s>xyb<s>'))).toEqual(['a', '<s>x', 'yb', '<s>'])
  })

  it('take the spaces beside them with lstrip and rstrip', () => {
    const split = splitAtAddedTokens([token('<m>', { lstrip: true, rstrip: true })])
    expect(texts('a <m>  b', split('a <m>  b'))).toEqual(['a', ' <m>  ', 'b'])
  })

  it('with single_word are not found inside words', () => {
    const split = splitAtAddedTokens([token('go', { singleWord: true })])
    expect(texts('gopher go', split('gopher go'))).toEqual(['gopher ', 'go'])
  })
})
