import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { loadMixture } from '../../src/data/mixture.js'
import type { Row } from '../../src/data/source.js'

/** A data set whose rows say where they come from, e.g. `a-train-3`. */
function dataset(name: string, sizes: Record<string, number>): string {
  const root = mkdtempSync(join(tmpdir(), 'westwind-mix-'))
  for (const [split, size] of Object.entries(sizes)) {
    const rows = Array.from({ length: size }, (_, i) => ({ text: `${name}-${split}-${i}`, id: i }))
    writeFileSync(join(root, `${split}.jsonl`), rows.map((row) => JSON.stringify(row)).join('\n'))
  }
  return root
}

const a = dataset('a', { train: 10, test: 4 })
const b = dataset('b', { train: 7, test: 3 })
const texts = (rows: readonly Row[]) => rows.map(({ text }) => String(text))
const upTo = (prefix: string, n: number) => Array.from({ length: n }, (_, i) => `${prefix}-${i}`)

describe('dataset_mixer', () => {
  const sources = [
    { id: a, fraction: 0.55, config: null },
    { id: b, fraction: 1, config: null },
  ]

  it('takes the first int(fraction · n) train rows, all test rows, and shuffles both', async () => {
    const { train, test } = await loadMixture({ kind: 'mixer', sources, splits: ['train', 'test'] })
    const kept = [...upTo('a-train', 5), ...upTo('b-train', 7)]
    expect(texts(train)).not.toEqual(kept)
    expect(texts(train).sort()).toEqual(kept.sort())
    expect(texts(test).sort()).toEqual([...upTo('a-test', 4), ...upTo('b-test', 3)].sort())
    const again = await loadMixture({ kind: 'mixer', sources, splits: ['train', 'test'] })
    expect(again).toEqual({ train, test })
  })

  it('refuses fractions that leave no row', async () => {
    const none = [{ id: a, fraction: 0.05, config: null }]
    await expect(loadMixture({ kind: 'mixer', sources: none, splits: ['train'] })).rejects.toThrow(
      'dataset_mixer: the fractions leave no row',
    )
  })
})

describe('dataset_mixture', () => {
  const entry = { config: null, revision: null, columns: null, weight: 1 }
  const mixture = (testSplitSize: number | null, weight = 1, seed = 0) => ({
    kind: 'mixture' as const,
    datasets: [
      { ...entry, id: a, split: 'train', weight },
      { ...entry, id: b, split: 'test' },
    ],
    testSplitSize,
    seed,
  })

  it('holds test rows out at random from everything it concatenated', async () => {
    const { train, test } = await loadMixture(mixture(5))
    expect([train.length, test.length]).toEqual([8, 5])
    const all = [...upTo('a-train', 10), ...upTo('b-test', 3)]
    expect([...texts(train), ...texts(test)].sort()).toEqual(all.sort())
    expect(await loadMixture(mixture(5))).toEqual({ train, test })
    expect(texts((await loadMixture(mixture(5, 1, 1))).test)).not.toEqual(texts(test))
  })

  it('shuffles before it takes a share, and takes a share of rows as test size', async () => {
    const { train, test } = await loadMixture(mixture(0.25, 0.5))
    expect([train.length, test.length]).toEqual([6, 2]) // ceil(0.25 · (5 + 3)) held out
    const fromA = texts([...train, ...test]).filter((text) => text.startsWith('a'))
    expect(fromA).toHaveLength(5)
    expect(fromA.sort()).not.toEqual(upTo('a-train', 5))
  })

  it('keeps the named columns, which must be the same everywhere', async () => {
    const one = { ...entry, id: a, split: 'train', columns: ['text'] }
    const other = { ...entry, id: b, split: 'train', columns: ['id'] }
    const base = { kind: 'mixture' as const, testSplitSize: null, seed: 0 }
    const { train } = await loadMixture({ ...base, datasets: [one] })
    expect(Object.keys(train[0]!)).toEqual(['text'])
    await expect(loadMixture({ ...base, datasets: [one, other] })).rejects.toThrow(
      'all data sets must have the same columns',
    )
  })

  it('refuses to hold everything out', async () => {
    await expect(loadMixture(mixture(13))).rejects.toThrow(
      'leaves nothing to train on: there are 13',
    )
  })
})

describe('dataset_name', () => {
  const named = {
    kind: 'name' as const,
    name: a,
    config: null,
    trainSplit: 'train',
    testSplit: 'test',
  }

  it('keeps file order and reads the test split only where the run evaluates', async () => {
    expect(texts((await loadMixture(named)).train)).toEqual(upTo('a-train', 10))
    expect((await loadMixture(named)).test).toEqual([])
    expect(texts((await loadMixture(named, { evaluates: true })).test)).toEqual(upTo('a-test', 4))
  })
})
