import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { parquetWriteBuffer } from 'hyparquet-writer'
import { describe, expect, it } from 'vitest'
import { readRows } from '../../src/data/read-rows.js'
import { loadRows } from '../../src/data/source.js'
import { sharedPath } from '../support/shared.js'

/** A folder with these files; returns its path. */
function folder(files: Record<string, string | Uint8Array>): string {
  const root = mkdtempSync(join(tmpdir(), 'westwind-data-'))
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true })
    writeFileSync(join(root, name), content)
  }
  return root
}

const lines = (...rows: unknown[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join('')

function parquet(text: string[], big: bigint[], rowGroupSize = 1000): Uint8Array {
  return new Uint8Array(
    parquetWriteBuffer({
      columnData: [
        { name: 'text', data: text, type: 'STRING' },
        { name: 'big', data: big, type: 'INT64' },
      ],
      rowGroupSize,
    }),
  )
}

describe('readRows', () => {
  it('reads the same rows from JSON Lines, JSON and both gzipped', async () => {
    const rows = [{ text: 'a' }, { text: 'b\u2028c\u0085d' }, { text: 'e' }]
    const jsonl = lines(...rows)
    const root = folder({
      'a.jsonl': jsonl,
      'b.jsonl.gz': gzipSync(jsonl),
      'c.json': JSON.stringify(rows),
      'd.json.gz': gzipSync(JSON.stringify(rows)),
      'e.json': jsonl,
      'f.jsonl': `${jsonl.trimEnd().replaceAll('\n', '\r\n\n')}`, // blank lines, no \n at the end
    })
    for (const name of ['a.jsonl', 'b.jsonl.gz', 'c.json', 'd.json.gz', 'e.json', 'f.jsonl']) {
      expect(await readRows(join(root, name)), name).toEqual(rows)
    }
  })

  it('reads lines longer than a chunk of the stream', async () => {
    const rows = [{ text: 'ä'.repeat(100_000) }, { text: 'b' }, { text: '€'.repeat(70_001) }]
    expect(await readRows(join(folder({ 'a.jsonl': lines(...rows) }), 'a.jsonl'))).toEqual(rows)
  })

  it('reads Parquet over several row groups, 64-bit integers as numbers', async () => {
    const text = Array.from({ length: 25 }, (_, i) => `row ${i}`)
    const root = folder({
      'a.parquet': parquet(
        text,
        text.map((_, i) => BigInt(i)),
        10,
      ),
    })
    const file = join(root, 'a.parquet')
    expect(await readRows(file)).toEqual(text.map((value, big) => ({ text: value, big })))
    expect(await readRows(file, { columns: ['text'] })).toEqual(
      text.map((value) => ({ text: value })),
    )
  })

  it('keeps a byte order mark at the beginning of a string', async () => {
    const root = folder({
      'a.parquet': parquet(['\ufeffx'], [1n]),
      'b.jsonl': lines({ text: '\ufeffx' }),
    })
    expect((await readRows(join(root, 'a.parquet')))[0]?.text).toBe('\ufeffx')
    expect((await readRows(join(root, 'b.jsonl')))[0]?.text).toBe('\ufeffx')
  })

  it('keeps a 64-bit integer that a number cannot hold as a string', async () => {
    const root = folder({ 'a.parquet': parquet(['x'], [2n ** 60n + 1n]) })
    expect(await readRows(join(root, 'a.parquet'))).toEqual([
      { text: 'x', big: '1152921504606846977' },
    ])
  })

  it('names file, line and reason of a malformed line', async () => {
    const root = folder({
      'a.jsonl': `${lines({ text: 1 })}\n{"text": \n`,
      'b.jsonl': '[1]\n',
      'c.jsonl': Buffer.from([0x22, 0xff, 0x22]),
      'd.json': '[{}, 3]',
      'e.parquet': 'not parquet at all',
      'f.jsonl.gz': 'not gzip',
    })
    const failure = (name: string) => readRows(join(root, name)).then(String, String)
    expect(await failure('a.jsonl')).toMatch(/a\.jsonl:3: not a JSON object on one line: .*JSON/)
    expect(await failure('b.jsonl')).toContain('b.jsonl:1: expected a JSON object, got [1]')
    expect(await failure('c.jsonl')).toContain(
      'c.jsonl:1: not a JSON object on one line: not UTF-8',
    )
    expect(await failure('d.json')).toContain('d.json: element 2: expected an object, got 3')
    expect(await failure('e.parquet')).toContain('e.parquet: cannot be read: ')
    expect(await failure('f.jsonl.gz')).toContain('f.jsonl.gz: cannot be read: ')
  })

  it('lists the columns when one is missing', async () => {
    const root = folder({ 'a.parquet': parquet(['x'], [1n]), 'b.jsonl': lines({ a: 1 }, { b: 2 }) })
    const wanted = { columns: ['messages'] }
    await expect(readRows(join(root, 'a.parquet'), wanted)).rejects.toThrow(
      'no column "messages"; the columns are text, big',
    )
    await expect(readRows(join(root, 'b.jsonl'), wanted)).rejects.toThrow('the columns are a, b')
  })

  it('stops when aborted', async () => {
    const file = join(folder({ 'a.jsonl': lines({ a: 1 }) }), 'a.jsonl')
    await expect(readRows(file, { signal: AbortSignal.abort() })).rejects.toThrow('stopped')
  })
})

describe('loadRows', () => {
  const row = (name: string) => lines({ name })
  const names = async (id: string, split: string, config?: string) =>
    (await loadRows({ id, split, config })).map(({ name }) => name)

  it('finds a split by the name of its file, its shards in order, in data/ or in a folder of its own', async () => {
    const root = folder({
      'train_sft.jsonl': row('plain'),
      'train_sft.meta.jsonl': row('companion'),
      'data/test_sft-00001-of-00002-0123abcd.jsonl': row('second'),
      'data/test_sft-00000-of-00002-4567cdef.jsonl': row('first'),
      'gen/0001.jsonl': row('own 1'),
      'gen/0000.jsonl': row('own 0'),
      'README.md': '# a data set',
    })
    expect(await names(root, 'train_sft')).toEqual(['plain'])
    expect(await names(root, 'test_sft')).toEqual(['first', 'second'])
    expect(await names(root, 'gen')).toEqual(['own 0', 'own 1'])
  })

  it('reads one format of a split that exists in several', async () => {
    const root = folder({
      'train.jsonl.gz': gzipSync(row('gz')),
      'train.jsonl': row('jsonl'),
      'train.json': '[{"name": "json"}]',
    })
    expect(await names(root, 'train')).toEqual(['jsonl'])
  })

  it('looks for a config in its folder only', async () => {
    const root = folder({ 'train.jsonl': row('outside'), 'de/train.jsonl': row('de') })
    expect(await names(root, 'train', 'de')).toEqual(['de'])
    expect(await names(root, 'train', 'default')).toEqual(['outside'])
    await expect(names(root, 'train', 'fr')).rejects.toThrow('(config "fr"): no split "train"')
  })

  it('lists the splits found when one is missing', async () => {
    const root = folder({ 'train_prefs.jsonl': row('a'), 'data/test_prefs.jsonl': row('b') })
    await expect(names(root, 'train_sft')).rejects.toThrow(
      'no split "train_sft"; the splits found are test_prefs, train_prefs',
    )
    await expect(names(folder({ 'a.txt': '' }), 'train')).rejects.toThrow(
      'no data files were found',
    )
  })

  it('takes a file for any split but one it is named against', async () => {
    const root = folder({ 'dialogues.jsonl': row('a'), 'test_sft.jsonl': row('b'), 'x.csv': 'a' })
    expect(await names(join(root, 'dialogues.jsonl'), 'train')).toEqual(['a'])
    expect(await names(join(root, 'test_sft.jsonl'), 'test')).toEqual(['b'])
    await expect(names(join(root, 'test_sft.jsonl'), 'train')).rejects.toThrow('found are test_sft')
    await expect(names(join(root, 'x.csv'), 'train')).rejects.toThrow('a file ending in .parquet')
  })

  it('asks the resolver for what is not local and looks like a Hub id', async () => {
    const root = folder({ 'train.jsonl': row('hub') })
    const asked: unknown[] = []
    const resolve = async (...args: unknown[]) => {
      asked.push(args)
      return root
    }
    const rows = await loadRows({ id: 'owner/set', revision: 'v1', split: 'train' }, { resolve })
    expect(rows).toEqual([{ name: 'hub' }])
    expect(asked).toEqual([['owner/set', 'v1']])
    for (const id of ['./missing', 'a/b/c', 'data/missing.jsonl']) {
      await expect(loadRows({ id, split: 'train' }, { resolve })).rejects.toThrow(
        'no such file or folder',
      )
    }
    expect(asked).toHaveLength(1)
  })

  it('refuses a split without rows', async () => {
    await expect(names(folder({ 'train.jsonl': '' }), 'train')).rejects.toThrow('no rows')
  })
})

describe('the reference data', () => {
  const sets = [
    ['ultrachat_like', 'test_sft', 'test_sft.jsonl'],
    ['ultrachat_like', 'train_sft', 'train_sft.jsonl.gz'],
    ['ultrafeedback_like', 'train_prefs', 'train_prefs.jsonl.gz'],
  ] as const

  it.each(sets)('%s/%s: Parquet holds the rows of the JSON Lines', async (name, split, file) => {
    const root = sharedPath('data', name)
    if (!root) return console.log('skipped: the reference data is not here')
    const fromParquet = await loadRows({ id: root, split })
    const fromLines = await readRows(join(root, file))
    expect(fromParquet.length).toBe(fromLines.length)
    const canonical = (value: unknown) =>
      JSON.stringify(value, (_, v) =>
        v && typeof v === 'object' && !Array.isArray(v)
          ? Object.fromEntries(Object.entries(v).sort())
          : v,
      )
    const differing = fromLines.findIndex((row, i) => canonical(row) !== canonical(fromParquet[i]))
    expect(differing).toBe(-1)
  })
})
