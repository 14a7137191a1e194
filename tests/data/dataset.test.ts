import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { compileTemplate, zephyrTemplate } from '../../src/data/chat-template.js'
import {
  type Prepared,
  type PrepareOptions,
  preparePairs,
  prepareSft,
} from '../../src/data/dataset.js'
import { formatStatistics, inspectData } from '../../src/data/inspect.js'
import { listOf } from '../../src/data/items.js'
import { lengthStatistics } from '../../src/data/statistics.js'
import { loadTokenizer } from '../../src/data/tokenizer/tokenizer.js'

const tokenizer = await loadTokenizer(
  fileURLToPath(new URL('../fixtures/golden/tiny_tokenizer', import.meta.url)),
)
const template = compileTemplate(zephyrTemplate)
const base: PrepareOptions = { tokenizer, template, cacheDir: null }
const temporary = () => mkdtempSync(join(tmpdir(), 'westwind-cache-'))

/** With all examples read. */
const whole = (prepared: Prepared<unknown>) => ({
  ...prepared,
  examples: listOf(prepared.examples),
})

const turn = (role: string, content: string) => ({ role, content })
const words = ['model', 'learns', 'from', 'data', 'to', 'write']

/** Rows of different lengths. */
const chats = Array.from({ length: 150 }, (_, i) => ({
  messages: [
    turn('user', words.slice(0, 1 + (i % 6)).join(' ')),
    turn('assistant', words.slice(i % 5).join(' ')),
  ],
  note: i,
}))
const pairs = Array.from({ length: 90 }, (_, i) => ({
  prompt: 'a prompt of its own',
  chosen: [turn('user', `say ${i}`), turn('assistant', 'model learns')],
  rejected: [turn('user', `say ${i}`), turn('assistant', 'no')],
}))

describe('prepareSft', () => {
  it('keeps rows in order and counts what the loss sees', async () => {
    const encode = { assistantOnlyLoss: true, maxLength: 52 }
    const { rowOf, statistics, lengths, ...rest } = await prepareSft(chats, { ...base, encode })
    const examples = listOf(rest.examples)
    expect([...lengths]).toEqual(examples.map(({ ids }) => ids.length))
    expect(examples.length).toBe(rowOf.length)
    expect([...rowOf]).toEqual([...rowOf].sort((a, b) => a - b))
    const dropped = Object.values(statistics.dropped).reduce((a, b) => a + b, 0)
    expect(statistics).toMatchObject({ rows: 150, examples: examples.length })
    expect(examples.length + dropped).toBe(150)
    expect(statistics.truncated).toBe(examples.filter(({ truncated }) => truncated).length)
    expect(statistics.truncated).toBeGreaterThan(0)
    expect(statistics.tokens).toBe(examples.reduce((sum, { ids }) => sum + ids.length, 0))
    const scored = examples
      .flatMap(({ labels }) => [...labels.slice(1)])
      .filter((id) => id !== -100)
    expect(statistics.scoredTokens).toBe(scored.length)
    const withEos = examples.filter(({ labels }) =>
      labels.slice(1).includes(tokenizer.eosId!),
    ).length
    expect(statistics.eosInLoss).toBe(withEos / examples.length)
    expect(statistics.lengths.document!.max).toBe(52)
  })

  it('gives the same in worker threads as in this one, and reports every row', async () => {
    const here = await prepareSft(chats, { ...base, workers: 0 })
    const progress: number[] = []
    const onProgress = (done: number, total: number) => {
      expect(total).toBe(150)
      progress.push(done)
    }
    const there = await prepareSft(chats, { ...base, workers: 2, onProgress })
    expect(whole(there)).toEqual(whole(here))
    expect(progress.at(-1)).toBe(150)
    expect(progress).toEqual([...progress].sort((a, b) => a - b))
  })

  it.each([0, 2])('names the row that is malformed (workers: %i)', async (workers) => {
    const rows = [...chats.slice(0, 70), { messages: [{ role: 'user' }] }]
    const result = prepareSft(rows, { ...base, workers, name: 'train' })
    await expect(result).rejects.toMatchObject({
      code: 'ERR_DATA',
      message: expect.stringContaining('train, row 71: messages[0].content must be a string'),
    })
  })

  it('takes tokenised rows without tokenizer or template', async () => {
    const rows = [{ input_ids: [5, 6, 7], labels: [-100, 6, 7] }, { input_ids: [8n, 9n] }]
    const { examples, statistics } = await prepareSft(rows, { cacheDir: null })
    expect(listOf(examples).map(({ labels }) => [...labels])).toEqual([
      [-100, 6, 7],
      [8, 9],
    ])
    expect(statistics.eosInLoss).toBeUndefined()
  })

  it('reads plain text from the column that is named', async () => {
    const [text, content] = await Promise.all([
      prepareSft([{ text: 'model learns' }], base),
      prepareSft([{ content: 'model learns' }], { ...base, textField: 'content' }),
    ])
    expect(listOf(content.examples)).toEqual(listOf(text.examples))
  })

  it('explains a loss mask that is zero everywhere', async () => {
    const rows = [{ messages: [turn('user', 'model')] }, { messages: [turn('user', 'data')] }]
    await expect(
      prepareSft(rows, { ...base, encode: { assistantOnlyLoss: true } }),
    ).rejects.toThrow(
      /nothing to train on: all 2 rows were dropped \(no label left: 2\).*zero everywhere/,
    )
    await expect(prepareSft([], base)).rejects.toThrow('there are no rows')
  })

  it.each([0, 2])('stops when aborted (workers: %i)', async (workers) => {
    const controller = new AbortController()
    const options = {
      ...base,
      workers,
      signal: controller.signal,
      onProgress: () => controller.abort(),
    }
    await expect(prepareSft(chats, options)).rejects.toMatchObject({ code: 'ERR_ABORTED' })
  })
})

describe('preparePairs', () => {
  it('ignores a string prompt beside conversations, and measures prompt and completions', async () => {
    const { examples, statistics } = await preparePairs(pairs, base)
    const { lengths, tokens, scoredTokens, eosInLoss } = statistics
    expect(examples).toHaveLength(90)
    expect(tokenizer.decode(examples.at(7)!.promptIds)).toContain('say 7')
    expect(lengths.chosen!.mean).toBeGreaterThan(lengths.rejected!.mean)
    const completions = lengths.chosen!.mean + lengths.rejected!.mean
    expect(scoredTokens).toBe(Math.round(90 * completions))
    expect(tokens).toBe(Math.round(90 * (completions + lengths.prompt!.mean)))
    expect(eosInLoss).toBe(1)
  })

  it('counts pairs whose prompt leaves no room', async () => {
    const long = {
      ...pairs[0]!,
      chosen: [turn('user', words.join(' ').repeat(9)), turn('assistant', 'a')],
    }
    const row = { ...long, rejected: [long.chosen[0]!, turn('assistant', 'b')] }
    const { statistics } = await preparePairs([row, ...pairs], {
      ...base,
      encode: { maxLength: 60 },
    })
    expect(statistics.dropped).toEqual({ 'prompt >= max_length': 1 })
  })
})

describe('lengthStatistics', () => {
  it('takes quantiles by nearest rank, whatever the order', () => {
    const lengths = Array.from({ length: 200 }, (_, i) => 200 - i)
    const expected = { mean: 100.5, min: 1, p50: 100, p90: 180, p99: 198, max: 200 }
    expect(lengthStatistics(lengths)).toEqual(expected)
    expect(lengthStatistics([7])).toEqual({ mean: 7, min: 7, p50: 7, p90: 7, p99: 7, max: 7 })
  })
})

/** Flips a bit of the byte at a place, from the end where that is negative. */
function flipBit(path: string, at: number): void {
  const bytes = readFileSync(path)
  const place = at < 0 ? bytes.length + at : at
  bytes[place] = bytes[place]! ^ 1
  writeFileSync(path, bytes)
}

describe('the cache', () => {
  const file = (cacheDir: string) => join(cacheDir, 'data', readdirSync(join(cacheDir, 'data'))[0]!)

  it('gives the second run the same examples without encoding', async () => {
    const cacheDir = temporary()
    for (const prepare of [
      () => prepareSft(chats, { ...base, cacheDir, encode: { maxLength: 24 } }),
      () => preparePairs(pairs, { ...base, cacheDir }),
    ]) {
      const first = await prepare()
      const second = await prepare()
      expect([first.fromCache, second.fromCache]).toEqual([false, true])
      expect({ ...whole(second), fromCache: false }).toEqual(whole(first))
    }
    expect(readdirSync(join(cacheDir, 'data')).filter((name) => name.endsWith('.tmp'))).toEqual([])
  })

  it('has another name for other rows, options, template or tokenizer, and not for unused columns', async () => {
    const hash = async (rows: typeof chats, options: PrepareOptions = {}) =>
      (await prepareSft(rows, { ...base, ...options })).hash
    const others = await Promise.all([
      hash(chats),
      hash(chats.slice(1)),
      hash([...chats].reverse()),
      hash(chats, { encode: { maxLength: 24 } }),
      hash(chats, { encode: { assistantOnlyLoss: true } }),
      hash(chats, { template: compileTemplate(`{# other #}${zephyrTemplate}`) }),
      hash(chats, { tokenizer: { ...tokenizer, hash: 'another' } }),
    ])
    expect(new Set(others).size).toBe(others.length)
    const noted = chats.map((row) => ({ ...row, note: -1 }))
    expect(await hash(noted, { encode: { maxLength: null } })).toBe(others[0])
  })

  const damages: [string, (path: string) => void][] = [
    ['cut short', (path) => truncateSync(path, statSync(path).size - 5)],
    ['empty', (path) => truncateSync(path, 0)],
    ['longer', (path) => writeFileSync(path, 'x', { flag: 'a' })],
    ...[0, 9, 40].map((at): [string, (path: string) => void] => [
      `with a bit flipped at ${at}`,
      (path) => flipBit(path, at),
    ]),
    ['of another format', (path) => writeFileSync(path, '{"examples": []}')],
  ]

  it.each(damages)('makes a file %s again', async (_, damage) => {
    const cacheDir = temporary()
    const first = await prepareSft(chats, { ...base, cacheDir })
    const good = readFileSync(file(cacheDir))
    damage(file(cacheDir))
    const second = await prepareSft(chats, { ...base, cacheDir })
    expect(whole(second)).toEqual(whole(first)) // fromCache: false included
    expect(readFileSync(file(cacheDir)).equals(good)).toBe(true)
  })

  it.each([
    ['with a bit flipped in its last token', (path: string) => flipBit(path, -1)],
    ['that went away', (path: string) => rmSync(path)],
  ])('names a file %s when the tokens are read, and makes it again', async (_, damage) => {
    const cacheDir = temporary()
    const first = whole(await prepareSft(chats, { ...base, cacheDir }))
    const { examples } = await prepareSft(chats, { ...base, cacheDir })
    const path = file(cacheDir)
    damage(path)
    expect(() => examples.at(149)).toThrow(`the cached tokens in ${path} cannot be read`)
    expect(whole(await prepareSft(chats, { ...base, cacheDir }))).toEqual(first)
  })

  it('is only a warning where it cannot be written', async () => {
    const blocked = join(temporary(), 'file')
    writeFileSync(blocked, '')
    const warned = new Promise<Error>((resolve) => process.once('warning', resolve))
    expect((await prepareSft(chats, { ...base, cacheDir: blocked })).examples).toHaveLength(150)
    expect((await warned).message).toContain('could not be cached')
  })
})

describe('inspectData', () => {
  it('marks scored text, ids and mask of a dialogue, and counts', async () => {
    const rows = [{ messages: [turn('user', 'from data'), turn('assistant', 'model learns')] }]
    const prepared = await prepareSft(rows, { ...base, encode: { assistantOnlyLoss: true } })
    const example = prepared.examples.at(0)
    const text = inspectData(prepared, { count: 5, color: false, tokenizer })
    expect(text).toContain('── example 1 (row 1)')
    expect(text).toContain('⟦model learns</s>⟧')
    expect(text).toContain(`ids  ${[...example!.ids].join(' ')}`)
    const mask = [...example!.labels].map((label) => (label === -100 ? '0' : '1')).join('')
    expect(text).toContain(`mask ${mask}`)
    expect(text).toMatch(/EOS in loss {2}100\.0 %/)
    const coloured = inspectData(prepared, { count: 1, color: true, tokenizer })
    expect(coloured).toContain('\u001b[32mmodel learns</s>\u001b[0m')
  })

  it('shows prompt, chosen and rejected of a pair', async () => {
    const text = inspectData(await preparePairs(pairs, base), { count: 1, color: false, tokenizer })
    expect(text).toMatch(/prompt: \d+ tokens, 0 scored/)
    expect(text).toContain('chosen: ')
    expect(text).toContain('⟦no</s>')
  })

  it('shows control characters instead of sending them to the terminal', async () => {
    const prepared = await prepareSft([{ text: 'a\u001b[2Jb' }], base)
    const text = inspectData(prepared, { count: 1, color: false, tokenizer })
    expect(text).not.toContain('\u001b')
    expect(text).toContain('␛[2J')
  })

  it('warns where no loss includes EOS', async () => {
    const { statistics } = await prepareSft([{ input_ids: [5, 6] }], base)
    expect(formatStatistics(statistics)).toContain('0.0 %: the model will not learn to stop')
  })
})
