import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'
import { readRows } from '../../src/data/read-rows.js'
import { type BinarizeOptions, binarize } from '../../src/feedback/binarize.js'
import { binarizeOptions } from '../../src/feedback/binarize-config.js'
import { formatReport } from '../../src/feedback/format-report.js'
import { parseFeedbackConfig } from '../../src/feedback/load-config.js'
import { parseRecipe } from '../../src/recipe/recipe.js'
import { dpo } from '../../src/train/dpo.js'
import { cliBuilt, westwind } from '../support/cli.js'
import { fixturePath } from '../support/fixtures.js'
import { lines, type RatingsRow, randomRatings } from './ratings.js'

const dir = mkdtempSync(join(tmpdir(), 'westwind-binarize-'))
afterAll(() => rm(dir, { recursive: true, force: true }))
let made = 0

/** A ratings file in a folder of its own, and a folder to write to. */
function files(rows: readonly object[]): { input: string; out: string } {
  const folder = join(dir, `${made++}`)
  mkdirSync(folder)
  writeFileSync(join(folder, 'ratings.jsonl'), lines(rows))
  return { input: join(folder, 'ratings.jsonl'), out: join(folder, 'pairs') }
}

async function run(rows: readonly object[], options: Partial<BinarizeOptions> = {}) {
  const places = files(rows)
  const report = await binarize({ ...places, ...options })
  const read = async (name: string) => {
    const file = join(places.out, name)
    return existsSync(file) && readFileSync(file).length > 0 ? readRows(file) : []
  }
  return { ...places, report, read }
}

/** Name and content of every file of a folder. */
function contents(folder: string): Record<string, string> {
  const sha = (name: string) =>
    createHash('sha256')
      .update(readFileSync(join(folder, name)))
      .digest('hex')
  return Object.fromEntries(readdirSync(folder).map((name) => [name, sha(name)]))
}

function row(instruction: string, scores: (number | null)[], more: object = {}): RatingsRow {
  const completions = scores.map((overall_score, i) => {
    return { model: `m${i}`, response: `answer ${i} of ${instruction}`, overall_score, ...more }
  })
  return { instruction, completions }
}

describe('the pairs', () => {
  it('have the columns of ultrafeedback_binarized, the same in Parquet and JSON Lines', async () => {
    const odd = 'Line\u2028 separator, \ufeffmark, 😀 and a lone \ud800 half'
    const { read, report } = await run([row(odd, [2, 7.5]), row('second', [9, 1])])
    const rows = await read('train_prefs.parquet')
    expect(await read('train_prefs.jsonl')).toEqual(rows)
    const prompt = odd.replace('\ud800', '\ufffd')
    const turns = (content: string) => [
      { content: prompt, role: 'user' },
      { content, role: 'assistant' },
    ]
    expect(rows[0]).toEqual({
      prompt,
      prompt_id: createHash('sha256').update(prompt).digest('hex'),
      chosen: turns(`answer 1 of ${prompt}`),
      rejected: turns(`answer 0 of ${prompt}`),
      messages: turns(`answer 1 of ${prompt}`),
      score_chosen: 7.5,
      score_rejected: 2,
    })
    expect(Object.keys(rows[0]!)).toEqual(
      'prompt prompt_id chosen rejected messages score_chosen score_rejected'.split(' '),
    )
    expect(await read('train_prefs.meta.jsonl')).toMatchObject([
      { row: 1, model_chosen: 'm1', model_rejected: 'm0', margin: 5.5 },
      { row: 2, model_chosen: 'm0', model_rejected: 'm1', margin: 8 },
    ])
    expect(report).toMatchObject({ tuples: 2, pairs: 2, train: 2, test: 0, dropped: {} })
  })

  it('do not depend on the order of the rows, on other rows, or on the format', async () => {
    const rows = randomRatings(120, 4)
    const key = (pair: object) => JSON.stringify(pair)
    const { read } = await run(rows)
    const pairs = (await read('train_prefs.jsonl')).map(key)
    const reversed = await run([...rows].reverse())
    expect((await reversed.read('train_prefs.jsonl')).map(key).reverse()).toEqual(pairs)
    const fewer = await run(rows.slice(60))
    const tail = (await fewer.read('train_prefs.jsonl')).map(key)
    expect(pairs.slice(-tail.length)).toEqual(tail)
    const places = files([])
    const input = `${places.input}.gz`
    writeFileSync(input, gzipSync(lines(rows)))
    await binarize({ input, out: places.out })
    const zipped = await readRows(join(places.out, 'train_prefs.jsonl'))
    expect(zipped.map(key)).toEqual(pairs)
  })

  it('are the same bytes in a second run, and others with another seed', async () => {
    const places = files(randomRatings(150, 5))
    await binarize({ ...places, testSize: 20 })
    const first = contents(places.out)
    await binarize({ ...places, testSize: 20 })
    expect(contents(places.out)).toEqual(first)
    await binarize({ ...places, testSize: 20, seed: 43 })
    expect(contents(places.out)['train_prefs.parquet']).not.toBe(first['train_prefs.parquet'])
  })
})

describe('accounting', () => {
  it.each([
    {},
    { ties: 'drop' as const },
    { minMargin: 2, minSpread: 4 },
    { chosen: 'mean_aspects' as const, maxDisagreement: 1 },
    { rejected: 'lowest' as const },
    { rejected: 'zephyr-beta' as const, minMargin: 1 },
  ])('%j: tuples = pairs + dropped, each with its reason', async (options) => {
    const rows = randomRatings(200, 6)
    const { report, read } = await run([...rows, rows[3]!, row('bare', [null, 4])], options)
    const removed = await read('removed.jsonl')
    const dropped = Object.values(report.dropped).reduce((sum, count) => sum + count, 0)
    expect(report.tuples).toBe(202)
    expect(report.pairs + dropped).toBe(202)
    expect(removed).toHaveLength(dropped)
    expect(report.dropped).toMatchObject({ duplicate: 1 })
    expect(removed.find(({ reason }) => reason === 'duplicate')).toMatchObject({
      row: 201,
      of_row: 4,
    })
    const meta = await read('train_prefs.meta.jsonl')
    const seen = [...removed, ...meta].map(({ row }) => Number(row)).sort((a, b) => a - b)
    expect(seen).toEqual(Array.from({ length: 202 }, (_, i) => i + 1))
  })

  it('a filter drops what is under it, and nothing else', async () => {
    const scores = [
      [5, 5],
      [5, 4.5],
      [5, 3],
      [9, 8, 2],
    ]
    const rows = scores.map((one, i) => row(`p${i}`, one))
    const kept = async (options: Partial<BinarizeOptions>) => {
      const { read } = await run(rows, options)
      return (await read('train_prefs.meta.jsonl')).map(({ row }) => row)
    }
    expect(await kept({ ties: 'keep' })).toEqual([1, 2, 3, 4])
    expect(await kept({ ties: 'drop' })).toEqual([2, 3, 4])
    expect(await kept({ rejected: 'lowest' })).toEqual([2, 3, 4])
    expect(await kept({ rejected: 'lowest', ties: 'keep' })).toEqual([1, 2, 3, 4])
    expect(await kept({ rejected: 'lowest', minMargin: 2 })).toEqual([3, 4])
    expect(await kept({ minSpread: 3 })).toEqual([4])
  })

  it('the largest disagreement is that of either answer: of the overall score, else of an aspect', async () => {
    const spread = (value: number) => ({
      annotations: {
        honesty: { rating: 3, spread: value },
        helpfulness: { rating: 4, spread: 0.5 },
      },
    })
    const rows = [
      row('a', [9, 2], spread(1)),
      row('b', [9, 2], spread(2)),
      row('c', [9, 2], { ...spread(2), overall_spread: 0 }),
      row('d', [9, 2]),
    ]
    const { read } = await run(rows, { maxDisagreement: 1 })
    expect((await read('train_prefs.meta.jsonl')).map(({ row }) => row)).toEqual([1, 3, 4])
    expect(await read('removed.jsonl')).toMatchObject([
      { row: 2, reason: 'disagreement', disagreement: 2 },
    ])
  })

  it('lengths and other rules are those of the plain formulas', async () => {
    const text = (i: number) => 'x'.repeat(i)
    const answer = (length: number, overall_score: number, aspect: number) => ({
      model: 'm',
      response: text(length),
      overall_score,
      annotations: { honesty: { rating: aspect, spread: 0, count: 1 } },
    })
    const rows = [
      { instruction: 'a', completions: [answer(10, 9, 1), answer(2, 3, 5)] },
      { instruction: 'b', completions: [answer(4, 9, 5), answer(2, 3, 1)] },
      { instruction: 'c', completions: [answer(1, 9, 5), answer(6, 3, 1)] },
    ]
    const { report } = await run(rows, { tokenizer: fixturePath('golden/tiny_tokenizer') })
    expect(report.lengths.map(({ unit }) => unit)).toEqual(['characters', 'tokens'])
    expect(report.lengths[0]).toEqual({
      unit: 'characters',
      chosen: { mean: 5, median: 4 },
      rejected: { mean: 10 / 3, median: 2 },
      chosenLonger: 2 / 3,
      equal: 0,
    })
    expect(report.warnings[0]).toMatch(/chosen has more characters in 66.7 % of the pairs/)
    const third = { pairs: 3, chosenDiffers: 1 / 3, rejectedDiffers: 1 / 3, pairDiffers: 1 / 3 }
    const none = { pairs: 3, chosenDiffers: 0, rejectedDiffers: 0, pairDiffers: 0 }
    expect(report.otherRules).toEqual([
      { chosen: 'overall', rejected: 'lowest', ...none },
      { chosen: 'overall', rejected: 'zephyr-beta', ...none },
      { chosen: 'mean_aspects', rejected: 'random', ...third },
      { chosen: 'mean_aspects', rejected: 'lowest', ...third },
      { chosen: 'mean_aspects', rejected: 'zephyr-beta', ...third },
    ])
    expect(formatReport(report)).toMatch(/mean_aspects, lowest +33.3 % +33.3 % +33.3 %/)
  })

  it('tells of scores of 1 that were multiplied by 10', async () => {
    const wrong = { annotations: { honesty: { Rating: '1' }, helpfulness: { Rating: '2' } } }
    const { report } = await run([row('a', [10, 3], wrong)])
    expect(report.warnings.join()).toMatch(/1 answers have an overall_score of 10 while/)
  })
})

describe('held out', () => {
  it('are whole prompts, as many pairs as fit, the same for the same seed', async () => {
    const rows = ['Same prompt', 'same  PROMPT!', 'b', 'c', 'd', 'e', 'f', 'g'].map((prompt, i) =>
      row(prompt, [9 - i / 10, 1]),
    )
    for (let seed = 0; seed < 6; seed++) {
      const { read, report } = await run(rows, { testSize: 3, seed })
      const prompts = async (name: string) => {
        const pairs = await read(`${name}.parquet`)
        return pairs.map(({ prompt }) => String(prompt).toLowerCase().replace(/\W+/g, ' ').trim())
      }
      const train = await prompts('train_prefs')
      const test = await prompts('test_prefs')
      expect(report).toMatchObject({ train: 5, test: 3 })
      expect(test).toHaveLength(3)
      expect(train.filter((prompt) => test.includes(prompt))).toEqual([])
    }
  })

  it('must leave something to train on', async () => {
    const rows = [row('a', [9, 1]), row('A', [8, 1]), row('b', [7, 1])]
    await expect(run(rows, { testSize: 3 })).rejects.toThrow(
      'testSize 3: of 3 pairs over 2 prompts that leaves 3 to test on and 0 to train on',
    )
  })
})

it('prompts that overlap evaluation sets are removed, with the set, its row and the words', async () => {
  const places = files([])
  const set = join(dir, 'questions.jsonl')
  const question =
    'Which of these seven long rivers flows north through more than one desert today?'
  writeFileSync(set, lines([{ turns: ['Other words entirely here', question] }]))
  const rows = [row(`Hello. ${question}`, [9, 1]), row('Something else', [9, 1])]
  writeFileSync(places.input, lines(rows))
  const report = await binarize({ ...places, decontaminate: [set] })
  const shared = 'which of these seven long rivers flows north through more than one desert'
    .split(' ')
    .slice(0, 13)
    .join(' ')
  expect(report).toMatchObject({
    pairs: 1,
    dropped: { contaminated: 1 },
    decontamination: {
      ngram: 13,
      sets: [{ file: set, rows: 1, hits: 1, examples: [{ row: 1, setRow: 1, words: shared }] }],
    },
  })
  expect(await readRows(join(places.out, 'removed.jsonl'))).toMatchObject([
    { row: 1, reason: 'contaminated', overlaps: [{ set, row: 1, words: shared }] },
  ])
})

describe('files', () => {
  it('are listed in the manifest with their hashes, beside the manifest of the input', async () => {
    const { out, input } = await run(randomRatings(50, 7), { testSize: 5 })
    const { files, source } = JSON.parse(readFileSync(join(out, 'manifest.json'), 'utf8'))
    const hashes = contents(out)
    expect([...Object.keys(files), 'manifest.json'].sort()).toEqual(Object.keys(hashes).sort())
    for (const [name, { sha256 }] of Object.entries<{ sha256: string }>(files)) {
      expect(sha256, name).toBe(hashes[name])
    }
    const sha = createHash('sha256').update(readFileSync(input)).digest('hex')
    expect(source).toEqual({ file: input, sha256: sha, rows: 50 })
    writeFileSync(join(input, '../manifest.json'), '{"teacher":{"model":"judge"}}')
    expect((await binarize({ input, out })).sourceManifest).toEqual({ teacher: { model: 'judge' } })
    expect(existsSync(join(out, 'test_prefs.parquet'))).toBe(false) // of the run before
  })

  it('of a run before stay as they are where a later one fails', async () => {
    const { out, input } = await run(randomRatings(20, 8))
    const before = contents(out)
    writeFileSync(input, lines([row('a', [9, 1]), row('b', [11, 1])]))
    await expect(binarize({ input, out })).rejects.toThrow(
      /ratings\.jsonl, row 2: completions\[0\]\.overall_score must be a number from 1 to 10/,
    )
    expect(contents(out)).toEqual(before)
  })

  it('of a run that is stopped are those of the run before', async () => {
    const { out, input } = await run(randomRatings(20, 11))
    const before = contents(out)
    const stop = new AbortController()
    const stopped = binarize({ input, out, seed: 1, signal: stop.signal })
    stop.abort()
    await expect(stopped).rejects.toMatchObject({ code: 'ERR_ABORTED' })
    expect(contents(out)).toEqual(before)
  })

  it('are never written into the folder of the ratings', async () => {
    const { input } = files([row('a', [9, 1])])
    await expect(binarize({ input, out: join(input, '..') })).rejects.toThrow(
      'out must be another folder than that of',
    )
  })

  it('are not made of nothing: an error says why no pair is left', async () => {
    await expect(run([row('a', [1, 1])], { ties: 'drop' })).rejects.toThrow(
      /no pair is left: 1: chosen and rejected are equally good$/,
    )
    await expect(run([row('a', [1, 2])], { chosen: 'mean_aspects' })).rejects.toThrow(
      /fewer than two scored answers\. No answer has ratings of aspects: choose by overall$/,
    )
    await expect(run([])).rejects.toThrow(/no pair is left: no rows/)
  })
})

it('dpo trains and evaluates on the folder as it is', async () => {
  const { out } = await run(randomRatings(40, 9), { testSize: 8 })
  process.env.WESTWIND_CACHE = join(dir, 'cache')
  const recipe = parseRecipe('dpo', {
    model_name_or_path: fixturePath('golden/models/h64d32_win16_tied/f32'),
    tokenizer_name_or_path: fixturePath('golden/tiny_tokenizer'),
    dataset_mixer: { [out]: 1 },
    dataset_splits: ['train_prefs', 'test_prefs'],
    bf16: false,
    max_steps: 2,
    max_length: 128,
    max_prompt_length: 64,
    per_device_train_batch_size: 4,
    do_eval: true,
    eval_strategy: 'steps',
    eval_steps: 2,
    save_strategy: 'no',
    report_to: 'none',
    output_dir: join(dir, 'run'),
  })
  const result = await dpo(recipe, { device: 'cpu' })
  expect(result.steps).toBe(2)
  expect(Object.keys(result.metrics)).toContain('eval_rewards/margins')
})

it('a feedback configuration names input, folder, rule and evaluation sets', () => {
  const yaml = `
output_dir: aif
seed: 7
binarize:
  rejected: lowest
  min_margin: 0.5
  test_size: 2
  decontaminate: [a.jsonl, b.parquet]
`
  expect(binarizeOptions(parseFeedbackConfig(yaml, 'aif.yaml'))).toMatchObject({
    input: join('aif', 'ratings.jsonl'),
    out: join('aif', 'pairs'),
    seed: 7,
    rejected: 'lowest',
    minMargin: 0.5,
    testSize: 2,
    decontaminate: ['a.jsonl', 'b.parquet'],
  })
  const wrong = yaml.replace('lowest', 'worst').replace('test_size', 'tst_size')
  expect(() => parseFeedbackConfig(wrong, 'aif.yaml')).toThrow(
    'aif.yaml:5: binarize.rejected must be random or lowest or zephyr-beta, got "worst"\n' +
      'aif.yaml:7: binarize.tst_size: unknown key; did you mean test_size?',
  )
})

describe.skipIf(!cliBuilt)('westwind feedback binarize', () => {
  it('prints the report, warns on standard error, and writes what the API writes', async () => {
    const rows = randomRatings(60, 10)
    const { out, report } = await run(rows, { testSize: 6, minMargin: 1, ties: 'drop' })
    const places = files(rows)
    const flags = '--test-size 6 --min-margin 1 --ties drop --seed 42'.split(' ')
    const args = ['feedback', 'binarize', places.input, '--out', places.out, ...flags]
    const plain = await westwind(args)
    expect(plain.stdout).toBe(`${formatReport(report)}\n`)
    expect(plain.stderr).toBe(report.warnings.map((warning) => `warning: ${warning}\n`).join(''))
    const { 'manifest.json': _, ...expected } = contents(out)
    expect(contents(places.out)).toMatchObject(expected)
    const config = join(dir, 'aif.yaml')
    const binarize = {
      input: places.input,
      out: join(dir, 'from-config'),
      test_size: 6,
      ties: 'drop',
    }
    writeFileSync(config, JSON.stringify({ output_dir: dir, binarize }))
    const configured = await westwind(['feedback', 'binarize', config, '--min-margin', '1'])
    expect(configured.stdout).toBe(plain.stdout)
    expect(contents(binarize.out)).toMatchObject(expected)
    const outless = await westwind(['feedback', 'binarize', places.input])
    expect(outless.stderr).toBe('error: --out: expected the folder to write the pairs to\n')
    const json = await westwind([...args, '--json', '--rejected', 'lowest'])
    expect(JSON.parse(json.stdout)).toMatchObject({ rule: { rejected: 'lowest' }, tuples: 60 })
  })
})
