import { describe, expect, it } from 'vitest'
import { compileTemplate, zephyrTemplate } from '../../src/data/chat-template.js'
import {
  type EncodeOptions,
  encodePair,
  encodeSft,
  type PairExample,
  type PairSource,
  splitPrompt,
} from '../../src/data/encode.js'
import { loadTokenizer } from '../../src/data/tokenizer/tokenizer.js'
import { fixturePath } from '../support/fixtures.js'

const tokenizer = await loadTokenizer(fixturePath('golden/tiny_tokenizer'))
const template = compileTemplate(zephyrTemplate)
const user = (content: string) => ({ role: 'user', content })
const assistant = (content: string) => ({ role: 'assistant', content })
const BOS = 1
const EOS = 2

function sft(row: Parameters<typeof encodeSft>[2], options: EncodeOptions = {}) {
  const example = encodeSft(tokenizer, template, row, options)
  if ('dropped' in example) throw new Error(`dropped: ${example.dropped}`)
  const ids = [...example.ids]
  const labels = [...example.labels]
  return { ...example, ids, labels, scored: ids.filter((_, t) => labels[t] !== -100) }
}

function pair(row: PairSource, options: EncodeOptions = {}): PairExample {
  const example = encodePair(tokenizer, template, row, options)
  if ('dropped' in example) throw new Error(`dropped: ${example.dropped}`)
  return example
}

const encode = (text: string) => tokenizer.encode(text)
const list = (ids: Int32Array) => [...ids]

describe('encodeSft', () => {
  it('text: BOS, the text, EOS; all scored; an EOS that is there is not doubled', () => {
    const { ids, labels } = sft({ text: 'the way' })
    expect(ids).toEqual([BOS, ...encode('the way'), EOS])
    expect(labels).toEqual(ids)
    expect(sft({ text: 'the way</s>' }).ids).toEqual(ids)
  })

  it('string prompt and completion: BOS first, only the completion and EOS scored', () => {
    const row = { prompt: 'the answer', completion: ' is it' }
    const { ids, scored } = sft(row)
    expect(ids).toEqual([BOS, ...encode('the answer is it'), EOS])
    expect(scored).toEqual([...encode('the answer is it').slice(encode('the answer').length), EOS])
    expect(sft(row, { completionOnlyLoss: false }).scored).toEqual(ids)
  })

  it('a token that joins prompt and completion is scored', () => {
    const { ids, scored } = sft({ prompt: 'an', completion: 'swer' })
    expect(ids).toEqual([BOS, ...encode('answer'), EOS])
    expect(scored).toEqual([...encode('answer'), EOS])
  })

  it('messages as prompt and completion: the newline after EOS is scored, the header is not', () => {
    const row = { prompt: [user('Why?')], completion: [assistant('So.')] }
    const { ids, scored } = sft(row)
    expect(ids).toEqual(encode('<|user|>\nWhy?</s>\n<|assistant|>\nSo.</s>\n'))
    expect(tokenizer.decode(scored)).toBe('So.</s> \n') // ▁ opens a segment
    expect(tokenizer.decode(sft(row, { assistantOnlyLoss: true }).scored)).toBe('So.</s>')
  })

  it('input_ids: labels as given, else all; no tokenizer is needed', () => {
    const ids = [5, 6, 7]
    expect(encodeSft(undefined, undefined, { input_ids: ids })).toEqual({
      ids: Int32Array.from(ids),
      labels: Int32Array.from(ids),
    })
    const labels = [-100, 6, -100]
    expect(sft({ input_ids: ids, labels }).labels).toEqual(labels)
    expect(() => encodeSft(undefined, undefined, { text: 'a' })).toThrow(/need a tokenizer/)
    expect(() => encodeSft(tokenizer, undefined, { messages: [user('a')] })).toThrow(
      /chat template/,
    )
  })

  it('keeps the first maxLength tokens and drops what has no label left', () => {
    const row = { input_ids: [5, 6, 7, 8], labels: [-100, -100, 7, 8] }
    expect(sft(row, { maxLength: 3 })).toMatchObject({
      ids: [5, 6, 7],
      labels: [-100, -100, 7],
      truncated: true,
    })
    expect(sft(row, { maxLength: 4 }).truncated).toBeUndefined()
    expect(encodeSft(undefined, undefined, row, { maxLength: 2 })).toEqual({
      dropped: 'no label left',
    })
    expect(encodeSft(undefined, undefined, { input_ids: [] })).toEqual({ dropped: 'no tokens' })
    // position 0 has a label, which is enough, though nothing predicts it
    expect(sft({ input_ids: [5, 6], labels: [5, -100] }).labels).toEqual([5, -100])
  })

  it('refuses a loss that the rows cannot give', () => {
    const only = { assistantOnlyLoss: true }
    expect(() => sft({ text: 'a' }, only)).toThrow(/assistant_only_loss needs conversations/)
    expect(() => sft({ prompt: 'a', completion: 'b' }, only)).toThrow(/assistant_only_loss/)
    expect(() => sft({ input_ids: [1] }, only)).toThrow(/assistant_only_loss/)
    expect(() => sft({ messages: [user('a')] }, { completionOnlyLoss: true })).toThrow(
      /completion_only_loss needs rows of prompt and completion/,
    )
  })

  it('2023: addBos, and an empty system turn where the template knows system turns', () => {
    const row = { messages: [user('Why?'), assistant('So.')] }
    const text = '<|user|>\nWhy?</s>\n<|assistant|>\nSo.</s>\n'
    expect(sft(row, { addBos: true }).ids).toEqual([BOS, ...encode(text)])
    const withSystem = encode(`<|system|>\n</s>\n${text}`)
    expect(sft(row, { insertEmptySystem: true }).ids).toEqual(withSystem)
    const plain = compileTemplate(`{% for m in messages %}{{ m.content }}{% endfor %}`)
    const got = encodeSft(tokenizer, plain, row, { insertEmptySystem: true })
    expect(got).toMatchObject({ ids: Int32Array.from(encode('Why?So.')) })
  })
})

describe('encodePair', () => {
  const row = {
    prompt: [user('Why?')],
    chosen: [assistant('So.')],
    rejected: [assistant('No, no.')],
  }

  it('strings: BOS on the prompt, EOS on the completions', () => {
    const got = pair({ prompt: 'the', chosen: ' way', rejected: ' answer</s>' })
    expect(list(got.promptIds)).toEqual([BOS, ...encode('the')])
    expect(list(got.chosenIds)).toEqual([...encode('the way').slice(encode('the').length), EOS])
    expect(list(got.rejectedIds)).toEqual([
      ...encode('the answer').slice(encode('the').length),
      EOS,
    ])
  })

  it('a token that joins prompt and completion goes to both completions', () => {
    const got = pair({ prompt: 'the an', chosen: 'swer', rejected: '!' })
    expect(list(got.promptIds)).toEqual([BOS, ...encode('the')])
    expect([...got.promptIds, ...got.chosenIds]).toEqual([BOS, ...encode('the answer'), EOS])
    expect([...got.promptIds, ...got.rejectedIds]).toEqual([BOS, ...encode('the an!'), EOS])
  })

  it('implicit prompts: the common beginning; of equal completions all but the last', () => {
    const turns = [user('a'), assistant('b'), user('c')]
    const split = (chosen: string, rejected: string) => splitPrompt({ chosen, rejected })
    expect(
      splitPrompt({ chosen: [...turns, assistant('x')], rejected: [...turns, assistant('y')] }),
    ).toEqual({
      prompt: turns,
      chosen: [assistant('x')],
      rejected: [assistant('y')],
    })
    expect(splitPrompt({ chosen: turns, rejected: turns }).prompt).toEqual(turns.slice(0, 2))
    expect(split('sky is blue', 'sky is red')).toEqual({
      prompt: 'sky is',
      chosen: ' blue',
      rejected: ' red',
    })
    expect(split('same', 'same')).toEqual({ prompt: 'sam', chosen: 'e', rejected: 'e' })
    expect(split('x', 'y')).toEqual({ prompt: '', chosen: 'x', rejected: 'y' })
  })

  it('drops pairs whose prompt leaves no room, cuts longer completions at their end', () => {
    const whole = pair(row)
    const prompt = whole.promptIds.length
    expect(encodePair(tokenizer, template, row, { maxLength: prompt })).toEqual({
      dropped: 'prompt >= max_length',
    })
    const got = pair(row, { maxLength: prompt + 2 })
    expect(got).toEqual({
      promptIds: whole.promptIds,
      chosenIds: whole.chosenIds.slice(0, 2),
      rejectedIds: whole.rejectedIds.slice(0, 2),
      truncated: true,
    })
    expect(pair(row, { maxLength: 1000 })).toEqual(whole)
  })

  it('drops pairs with an empty prompt or completion', () => {
    const ids = { prompt_ids: [1], chosen_ids: [2], rejected_ids: [3] }
    const drop = (fields: object) => encodePair(undefined, undefined, { ...ids, ...fields })
    expect(drop({ prompt_ids: [] })).toEqual({ dropped: 'empty prompt' })
    expect(drop({ rejected_ids: [] })).toEqual({ dropped: 'empty completion' })
    expect(drop({})).toMatchObject({ chosenIds: Int32Array.from([2]) })
  })

  it('2023: the header belongs to the completion, a second EOS and BOS are added', () => {
    const today = pair(row)
    const header = encode('<|user|>\nWhy?</s>\n<|assistant|>\n').slice(
      encode('<|user|>\nWhy?</s>\n').length,
    )
    const then = pair(row, { scoreHeader: true, secondEos: true, addBos: true })
    expect(list(then.promptIds)).toEqual([BOS, ...today.promptIds.slice(0, -header.length)])
    expect(list(then.chosenIds)).toEqual([...header, ...today.chosenIds, EOS])
  })

  it('2023: a too long prompt keeps its last maxPromptLength tokens, then completions are cut', () => {
    const ids = { prompt_ids: [1, 2, 3, 4], chosen_ids: [5, 6, 7], rejected_ids: [8, 9] }
    const cut = (maxLength: number, maxPromptLength: number) => {
      const got = pair(ids, { maxLength, maxPromptLength })
      return [got.promptIds, got.chosenIds, got.rejectedIds].map(list)
    }
    expect(cut(7, 2)).toEqual([
      [1, 2, 3, 4],
      [5, 6, 7],
      [8, 9],
    ])
    expect(cut(6, 2)).toEqual([
      [3, 4],
      [5, 6, 7],
      [8, 9],
    ])
    expect(cut(4, 2)).toEqual([
      [3, 4],
      [5, 6],
      [8, 9],
    ])
  })
})
