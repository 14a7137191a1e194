import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { decontaminator, words } from '../../src/feedback/decontaminate.js'
import { type EvalSet, readEvalSet } from '../../src/feedback/eval-sets.js'
import { integers } from '../support/random.js'
import { lines } from './ratings.js'

const dir = mkdtempSync(join(tmpdir(), 'westwind-eval-sets-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

function set(...texts: string[]): EvalSet {
  const items = texts.map((text, i) => ({ row: i + 1, text }))
  return { file: 'set.jsonl', rows: items.length, items }
}

const overlaps = (sets: EvalSet[], prompt: string, n = 13) =>
  decontaminator(sets, n).overlaps(prompt)

describe('words', () => {
  it('are lower-case NFKC without punctuation; a Chinese or Japanese character is one', () => {
    expect(words('  The “ﬁrst”\tCAFÉ, isn’t it?\n')).toEqual([
      'the',
      'first',
      'café',
      'isn',
      't',
      'it',
    ])
    expect(words('ＡＢＣ１２ 天空abc')).toEqual(['abc12', '天', '空', 'abc'])
    expect(words('?! …')).toEqual([])
  })
})

describe('a prompt overlaps a set', () => {
  const question =
    'one two three four five six seven eight nine ten eleven twelve thirteen fourteen'

  it('where n words in a row are those of an item', () => {
    const shared = question.split(' ').slice(1).join(' ')
    expect(overlaps([set('other', question)], `Please: ${shared.toUpperCase()}!`)).toEqual([
      { set: 'set.jsonl', row: 2, words: shared },
    ])
    const twelve = question.split(' ').slice(2).join(' ')
    expect(overlaps([set(question)], `one ${twelve}`)).toEqual([])
    expect(overlaps([set(question)], twelve, 12)).toHaveLength(1)
  })

  it('where it holds all of an item shorter than n words', () => {
    const short = 'Can coughing stop a heart attack?'
    expect(overlaps([set(short)], `I wonder, can coughing stop a heart attack, or not`)).toEqual([
      { set: 'set.jsonl', row: 1, words: 'can coughing stop a heart attack' },
    ])
    expect(overlaps([set(short)], 'can coughing ever stop a heart attack')).toEqual([])
  })

  it('where it is all of an item of fewer than five words', () => {
    expect(overlaps([set('Who are you?')], 'who  are you')).toHaveLength(1)
    expect(overlaps([set('Who are you?')], 'who are you to say that')).toEqual([])
  })

  it('once per set, in the order of the sets', () => {
    const sets = [set('a b c d e f'), set('x y'), { ...set('p q', 'a b c d e'), file: 'third' }]
    const found = overlaps(sets, 'a b c d e f a b c d e')
    expect(found.map(({ set }) => set)).toEqual(['set.jsonl', 'third'])
    expect(found[1]!.row).toBe(2)
  })

  it('and never where no text is: empty items and empty prompts', () => {
    expect(overlaps([set('?!', 'a')], '...')).toEqual([])
    expect(overlaps([set('?!', 'a')], '')).toEqual([])
  })
})

it('finds what a plain search finds, over random texts of a few words', () => {
  const next = integers(200_000, 3, 9)
  let at = 0
  const text = (length: number) => Array.from({ length }, () => 'abc'[next[at++]!]).join(' ')
  for (let round = 0; round < 300; round++) {
    const n = 6 + (round % 4)
    const items = Array.from({ length: 4 }, (_, i) => text(2 + ((round + 3 * i) % 12)))
    const prompt = text(round % 30)
    const inside = (words: string) => ` ${prompt} `.includes(` ${words} `)
    const expected = items.some((item) => {
      const all = item.split(' ')
      if (all.length < 5) return item === prompt
      if (all.length <= n) return inside(item)
      return all.some((_, i) => i + n <= all.length && inside(all.slice(i, i + n).join(' ')))
    })
    expect(overlaps([set(...items)], prompt, n).length > 0, `${items} | ${prompt}`).toBe(expected)
  }
})

describe('readEvalSet', () => {
  const read = (...rows: object[]) => {
    const file = join(dir, 'set.jsonl')
    writeFileSync(file, lines(rows))
    return readEvalSet(file)
  }
  const texts = async (...rows: object[]) => (await read(...rows)).items.map(({ text }) => text)

  it.each([
    [{ question_id: 81, category: 'x', turns: ['a', 'b'] }, ['a', 'b']],
    [{ dataset: 'x', instruction: 'a', output: 'z' }, ['a']],
    [{ id: 'arc/1', question: 'a', choices: ['y', 'z'], gold: 1 }, ['a']],
    [{ id: 'h/1', query: 'a', choices: ['y'], gold: 0 }, ['a']],
    [{ ctx: 'a', endings: ['y'] }, ['a']],
    [{ prompt: 'a', text: 'b' }, ['a']],
    [
      {
        messages: [
          { role: 'user', content: 'a' },
          { role: 'assistant', content: 'z' },
          { role: 'user', content: 'b' },
        ],
      },
      ['a', 'b'],
    ],
  ])('%j: the prompts are %j', async (row, expected) => {
    expect(await texts(row)).toEqual(expected)
  })

  it('names the file and the row that has no text', async () => {
    await expect(read({ text: 'a' }, { label: 1 })).rejects.toThrow(
      /set\.jsonl, row 2: expected a text in one of the fields turns, .*; got label$/,
    )
    await expect(read()).rejects.toThrow(/no rows/)
  })
})
