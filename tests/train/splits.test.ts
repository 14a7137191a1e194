import { mkdirSync, mkdtempSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { compileTemplate, zephyrTemplate } from '../../src/data/chat-template.js'
import { pairData, sftData } from '../../src/data/dataset.js'
import { listOf } from '../../src/data/items.js'
import { loadTokenizer } from '../../src/data/tokenizer/tokenizer.js'
import { parseRecipe } from '../../src/recipe/recipe.js'
import type { TextInputs } from '../../src/train/inputs.js'
import { loadSplits, type Splits } from '../../src/train/splits.js'
import { fixturePath } from '../support/fixtures.js'

let folder: string
let text: TextInputs

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'westwind-splits-'))
  process.env.WESTWIND_CACHE = join(folder, 'cache')
  const tokenizer = await loadTokenizer(fixturePath('golden/tiny_tokenizer'))
  const template = compileTemplate(zephyrTemplate)
  text = { tokenizer, template, templateFrom: 'default (Zephyr)' }
})

afterAll(() => rmSync(folder, { recursive: true, force: true }))

const line = (name: string) => `${JSON.stringify({ text: `the model learns from ${name}` })}\n`

/** Writes a file as it was changed at that second. */
function write(file: string, content: string, seconds: number): void {
  writeFileSync(file, content)
  utimesSync(file, seconds, seconds)
}

function load(dataset_name: string, keys: Record<string, unknown> = {}) {
  const shared = { dataset_name, model_name_or_path: 'none', output_dir: join(folder, 'out') }
  const { config } = parseRecipe('sft', { ...shared, max_length: 64, ...keys })
  return loadSplits(sftData, config, text, {})
}

const examples = ({ train, test }: Splits<unknown>) => [
  listOf(train.examples),
  test && listOf(test.examples),
]

describe('a start from files that are known', () => {
  it('gives the same splits, and reads no row', async () => {
    const file = join(folder, 'same.jsonl')
    const content = line('data') + line('text')
    write(file, content, 1000)
    const first = await load(file)
    // What only a reader of rows would see: size and time stay.
    write(file, 'x'.repeat(content.length), 1000)
    const second = await load(file)
    expect([first.train.fromCache, second.train.fromCache]).toEqual([false, true])
    expect(second.train.hash).toBe(first.train.hash)
    expect(second.train.statistics).toEqual(first.train.statistics)
    expect(examples(second)).toEqual(examples(first))
  })

  it('reads rows again where a file has another size or time, or other options count', async () => {
    const file = join(folder, 'other.jsonl')
    const read = async (content: string, seconds: number, keys = {}) => {
      write(file, content, seconds)
      return (await load(file, keys)).train
    }
    const first = await read(line('data'), 1000)
    const later = await read(line('text'), 2000)
    expect(later.fromCache).toBe(false)
    expect(later.hash).not.toBe(first.hash)
    expect((await read(line('data') + line('text'), 2000)).statistics.rows).toBe(2)
    expect((await read(line('data'), 3000)).fromCache).toBe(true) // the same rows as at first
    expect((await read(line('data'), 3000, { max_length: 4 })).statistics.truncated).toBe(1)
  })

  it('reads rows again where the tokens are no longer in the cache', async () => {
    const file = join(folder, 'gone.jsonl')
    write(file, line('data'), 1000)
    const { hash } = (await load(file)).train
    rmSync(join(folder, 'cache', 'data', `${hash}.bin`))
    expect((await load(file)).train).toMatchObject({ hash, fromCache: false })
  })

  it('knows the split to evaluate on, too', async () => {
    const data = join(folder, 'both')
    const files = [`${data}/train.jsonl`, `${data}/test.jsonl`]
    mkdirSync(data)
    for (const [i, file] of files.entries()) write(file, line(`file ${i}`), 1000)
    const keys = { eval_strategy: 'steps', eval_steps: 1 }
    const first = await load(data, keys)
    for (const file of files) write(file, 'x'.repeat(statSync(file).size), 1000)
    expect(examples(await load(data, keys))).toEqual(examples(first))
    expect(first.test?.examples.length).toBe(1)
    await expect(load(data)).rejects.toMatchObject({ code: 'ERR_DATA' }) // without evaluation: not noted
  })

  it('does not take pairs for rows of SFT', async () => {
    const file = join(folder, 'kinds.jsonl')
    write(file, `${JSON.stringify({ text: 'a', prompt: 'a', chosen: 'b', rejected: 'c' })}\n`, 1000)
    expect((await load(file)).train.statistics.lengths).toHaveProperty('document')
    const recipe = { dataset_name: file, model_name_or_path: 'none', output_dir: folder }
    const { config } = parseRecipe('dpo', recipe)
    const { train } = await loadSplits(pairData, config, text, {})
    expect(train.statistics.lengths).toHaveProperty('chosen')
  })
})
