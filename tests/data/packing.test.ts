import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { SftExample } from '../../src/data/encode-sft.js'
import { listOf } from '../../src/data/items.js'
import { documents, packBfd, packWrapped } from '../../src/data/packing.js'

const golden = new URL('../fixtures/golden/trl_sft/', import.meta.url)

/** A document whose ids and labels say which one it is. */
function document(length: number, name: number): SftExample {
  const ids = Int32Array.from({ length }, (_, t) => name * 1000 + t)
  return { ids, labels: ids.map((id, t) => (t % 3 === 0 ? -100 : id)) }
}

const bfd = (examples: SftExample[], maxLength: number) =>
  listOf(packBfd(documents(examples), maxLength))
const wrapped = (...[examples, ...rest]: [SftExample[], number, { eosBetween?: number }?]) =>
  listOf(packWrapped(documents(examples), ...rest))
const lengths = (rows: SftExample[][]) => rows.map((row) => row.map(({ ids }) => ids.length))
const names = (rows: SftExample[][]) => rows.map((row) => row.map(({ ids }) => ids[0]! / 1000))

describe('packBfd', () => {
  it('gives the rows, labels and document lengths of TRL 1.13', () => {
    const lines = readFileSync(new URL('packing_bfd.dataset.jsonl', golden), 'utf8')
      .trim()
      .split('\n')
    const examples = lines.map((line): SftExample => {
      const ids = Int32Array.from(JSON.parse(line).input_ids)
      return { ids, labels: ids }
    })
    const rows = bfd(examples, 256)
    const prepared: { input_ids: number[]; labels: number[]; seq_lengths: number[] }[] = JSON.parse(
      readFileSync(new URL('packing_bfd.prepared.json', golden), 'utf8'),
    )
    expect(
      rows.map((row) => ({
        input_ids: row.flatMap(({ ids }) => [...ids]),
        labels: row.flatMap(({ labels }) => [...labels]),
        seq_lengths: row.map(({ ids }) => ids.length),
      })),
    ).toEqual(prepared)
  })

  it('takes the smallest space that suffices, and of equal spaces the older one', () => {
    const examples = [7, 7, 6, 4, 3, 3, 2].map((length, i) => document(length, i))
    // 4 and 3 fit the row of 6 (space 4) and the rows of 7 (space 3)
    expect(lengths(bfd(examples, 10))).toEqual([[7, 3], [7, 3], [6, 4], [2]])
    expect(names(bfd(examples, 10))).toEqual([[0, 4], [1, 5], [2, 3], [6]])
  })

  it('cuts long documents, drops empty ones and marks what it cut', () => {
    const rows = bfd([document(0, 1), document(9, 2), document(5, 3)], 5)
    expect(lengths(rows)).toEqual([[5], [5]])
    expect(rows.map(([first]) => first!.truncated ?? false)).toEqual([true, false])
    expect([...rows[0]![0]!.labels]).toEqual([-100, 2001, 2002, -100, 2004])
  })

  it('packs each chunk of 1000 examples on its own', () => {
    const examples = Array.from({ length: 1001 }, (_, i) => document(i < 1000 ? 6 : 4, i))
    const rows = bfd(examples, 10)
    expect(rows).toHaveLength(1001) // the last document does not join an earlier chunk
  })

  it('refuses a length that is not a positive integer', () => {
    expect(() => bfd([], 0)).toThrow('max_length must be a positive integer, got 0')
  })
})

describe('packWrapped', () => {
  const examples = [document(5, 1), document(0, 2), document(6, 3)]

  it('concatenates everything, cuts every max_length tokens and keeps the rest', () => {
    const rows = wrapped(examples, 4)
    expect(lengths(rows)).toEqual([[4], [4], [3]])
    for (const key of ['ids', 'labels'] as const) {
      expect(rows.flatMap((row) => [...row[0]![key]])).toEqual(examples.flatMap((e) => [...e[key]]))
    }
  })

  it('puts a scored EOS after every document when asked', () => {
    const rows = wrapped([document(2, 1), document(1, 2)], 3, { eosBetween: 2 })
    expect(rows.map(([row]) => [...row!.ids])).toEqual([
      [1000, 1001, 2],
      [2000, 2],
    ])
    expect(rows.map(([row]) => [...row!.labels])).toEqual([
      [-100, 1001, 2],
      [-100, 2],
    ])
  })
})
