import { describe, expect, it } from 'vitest'
import {
  microBatches,
  pairBatch,
  pairTokens,
  type SegmentBatch,
  sftBatch,
} from '../../src/data/batch.js'
import type { PairExample } from '../../src/data/encode-pair.js'
import type { SftExample } from '../../src/data/encode-sft.js'
import { permutation } from '../../src/data/order.js'

/** What each prediction of a batch sees: position and id of the tokens visible to it, then what it has to say. */
function predictions(batch: SegmentBatch): { sequence: number; context: string; target: number }[] {
  const { ids, positions, segStart, segPrefix } = batch
  const slice = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, t) => `${positions[from + t]}:${ids[from + t]}`)
  return Array.from(batch.scoredRows, (row, n) => {
    const segment = segStart.filter((start) => start <= row).length - 1
    const prefix = segPrefix[segment]!
    const before = prefix < 0 ? [] : slice(segStart[prefix]!, segStart[prefix + 1]!)
    const context = [...before, ...slice(segStart[segment]!, row + 1)].join(' ')
    return { sequence: batch.sequence[n]!, context, target: batch.targets[n]! }
  })
}

/** Pseudo-random ids, none of them equal: a mistake of one place shows. */
function randomPairs(seed: number, count: number, shortest: number): PairExample[] {
  const ids = permutation(10_000, seed)
  let used = 0
  const take = () => {
    const length = shortest + (ids[used]! % 7)
    used += length
    return ids.slice(used - length, used)
  }
  return Array.from({ length: count }, () => ({
    promptIds: take(),
    chosenIds: take(),
    rejectedIds: take(),
  }))
}

const ids = (...values: number[]) => Int32Array.from(values)

describe('sftBatch', () => {
  const a: SftExample = { ids: ids(1, 2, 3), labels: ids(1, -100, 3) }
  const b: SftExample = { ids: ids(4, 5), labels: ids(4, 5) }
  const c: SftExample = { ids: ids(6), labels: ids(6) }

  it('makes every document a segment and never scores its first token', () => {
    const batch = sftBatch([[a, b], [c]])
    expect([...batch.ids]).toEqual([1, 2, 3, 4, 5, 6])
    expect([...batch.positions]).toEqual([0, 1, 2, 0, 1, 0])
    expect([...batch.segStart]).toEqual([0, 3, 5, 6])
    expect([...batch.segPrefix]).toEqual([-1, -1, -1])
    expect([...batch.scoredRows]).toEqual([1, 3])
    expect([...batch.targets]).toEqual([3, 5])
    expect([...batch.sequence]).toEqual([0, 1])
    expect(batch.sequences).toBe(3)
    expect(batch.inputTokens).toBe(6)
  })

  it('gives the same predictions packed, unpacked and in one row', () => {
    const together = predictions(sftBatch([[a, b, c]]))
    expect(predictions(sftBatch([[a], [b], [c]]))).toEqual(together)
  })

  it('refuses an empty document', () => {
    expect(() => sftBatch([[{ ids: ids(), labels: ids() }]])).toThrow('at least one token')
  })
})

describe('pairBatch', () => {
  const pair: PairExample = { promptIds: ids(1, 2), chosenIds: ids(3, 4), rejectedIds: ids(5) }

  it('shares the prompt: its last token predicts both completions, which go on at its positions', () => {
    const batch = pairBatch([pair], { prefixSharing: true })
    expect([...batch.ids]).toEqual([1, 2, 3, 4, 5])
    expect([...batch.positions]).toEqual([0, 1, 2, 3, 2])
    expect([...batch.segStart]).toEqual([0, 2, 4, 5])
    expect([...batch.segPrefix]).toEqual([-1, 0, 0])
    expect([...batch.scoredRows]).toEqual([1, 2, 1])
    expect([...batch.targets]).toEqual([3, 4, 5])
    expect([...batch.sequence]).toEqual([0, 0, 1])
    expect([batch.sequences, batch.inputTokens]).toEqual([2, 7])
  })

  it('is two whole documents per pair in the plain layout', () => {
    const batch = pairBatch([pair], { prefixSharing: false })
    expect([...batch.ids]).toEqual([1, 2, 3, 4, 1, 2, 5])
    expect([...batch.segStart]).toEqual([0, 4, 7])
    expect([...batch.segPrefix]).toEqual([-1, -1])
    expect([...batch.scoredRows]).toEqual([1, 2, 5])
    expect([batch.sequences, batch.inputTokens]).toEqual([2, 7])
  })

  it.each([1, 2, 3, 4, 5])(
    'scores the same tokens in the same contexts in both layouts (seed %i)',
    (seed) => {
      // from length 0 on: empty prompts and empty completions included
      for (const shortest of [0, 1]) {
        const pairs = randomPairs(seed, 6, shortest)
        const shared = pairBatch(pairs, { prefixSharing: true })
        const plain = pairBatch(pairs, { prefixSharing: false })
        expect(predictions(shared)).toEqual(predictions(plain))
        expect(shared.inputTokens).toBe(plain.inputTokens)
        expect(shared.sequences).toBe(12)
        for (const batch of [shared, plain]) {
          const starts = [...batch.segStart]
          expect(starts.slice(1).every((start, s) => start > starts[s]!)).toBe(true)
          expect(starts.at(-1)).toBe(batch.ids.length)
          for (const [s, prefix] of batch.segPrefix.entries()) expect(prefix).toBeLessThan(s)
        }
        const tokens = (prefixSharing: boolean) =>
          pairs.reduce((sum, pair) => sum + pairTokens(pair, { prefixSharing }), 0)
        expect(shared.ids.length).toBe(tokens(true))
        expect(plain.ids.length).toBe(tokens(false))
      }
    },
  )

  it('gives each pair the predictions it has alone', () => {
    const pairs = randomPairs(9, 4, 0)
    const together = predictions(pairBatch(pairs, { prefixSharing: true }))
    const alone = pairs.flatMap((pair, i) =>
      predictions(pairBatch([pair], { prefixSharing: true })).map((p) => ({
        ...p,
        sequence: p.sequence === 0 ? i : pairs.length + i,
      })),
    )
    alone.sort((p, q) => p.sequence - q.sequence)
    expect(together).toEqual(alone)
  })
})

describe('microBatches', () => {
  it('groups in order, within a micro-batch and within the budget', () => {
    const groups = microBatches([3, 4, 2, 9, 1, 1], { perDevice: 4, tokenBudget: 7 })
    expect(groups).toEqual([[[0, 1], [2], [3]], [[4, 5]]])
  })

  it('is one group per micro-batch without a budget', () => {
    expect(microBatches([5, 5, 5], { perDevice: 2 })).toEqual([[[0, 1]], [[2]]])
  })

  it.each([1, 10, 100])('puts every example into exactly one group (budget %i)', (tokenBudget) => {
    const lengths = permutation(57, 3)
    const groups = microBatches(lengths, { perDevice: 8, tokenBudget })
    expect(groups.flat(2)).toEqual([...lengths.keys()])
    for (const group of groups.flat()) {
      const tokens = group.reduce((sum, i) => sum + lengths[i]!, 0)
      expect(group.length === 1 || tokens <= tokenBudget).toBe(true)
    }
  })
})
