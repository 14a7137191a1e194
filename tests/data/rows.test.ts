import { describe, expect, it } from 'vitest'
import { pairSource, sftSource } from '../../src/data/encode.js'

const turn = { role: 'user', content: 'hi' }

describe('rows of unknown origin', () => {
  it('SFT: every schema, extra fields left out', () => {
    const messages = [{ ...turn, id: 3 }]
    expect(sftSource({ prompt: 'hi', prompt_id: 'x', messages }, 'r')).toEqual({ messages: [turn] })
    expect(sftSource({ prompt: 'a', completion: 'b', text: 'c' }, 'r')).toEqual({
      prompt: 'a',
      completion: 'b',
    })
    expect(sftSource({ text: 'c', completion: null }, 'r')).toEqual({ text: 'c' })
    expect(sftSource({ input_ids: [1, 2n], labels: [-100, 2] }, 'r')).toEqual({
      input_ids: [1, 2],
      labels: [-100, 2],
    })
    expect(sftSource({ input_ids: BigInt64Array.of(1n, 2n) }, 'r')).toEqual({ input_ids: [1, 2] })
  })

  it('preferences: every schema', () => {
    expect(pairSource({ chosen: 'a', rejected: 'b', score_chosen: 1 }, 'r')).toEqual({
      chosen: 'a',
      rejected: 'b',
    })
    expect(pairSource({ prompt: 'p', chosen: [turn], rejected: [turn] }, 'r')).toEqual({
      prompt: 'p',
      chosen: [turn],
      rejected: [turn],
    })
    const ids = { prompt_ids: [1], chosen_ids: [2], rejected_ids: [3] }
    expect(pairSource({ ...ids, prompt: 'p' }, 'r')).toEqual(ids)
  })

  it.each([
    [null, 'r 7: expected an object with named fields, got null'],
    [[], 'r 7: expected an object with named fields, got an empty array'],
    [
      { conversations: [] },
      'r 7: expected the fields messages, prompt + completion, text, or input_ids',
    ],
    [
      { messages: 'hi' },
      'r 7: messages must be an array of at least one { role, content }, got string hi',
    ],
    [
      { messages: [] },
      'r 7: messages must be an array of at least one { role, content }, got an empty',
    ],
    [{ messages: [turn, 'x'] }, 'r 7: messages[1]: expected an object'],
    [
      { messages: [{ role: 'user', content: null }] },
      'r 7: messages[0].content must be a string, got null',
    ],
    [{ messages: [{ content: 'x' }] }, 'r 7: messages[0].role must be a string, got nothing'],
    [{ messages: [{ from: 'human', value: 'x' }] }, 'r 7: messages[0] is in ShareGPT form'],
    [
      { prompt: 'a', completion: [turn] },
      'r 7: prompt and completion must both be strings or both be messages',
    ],
    [{ completion: 'a' }, 'r 7: prompt must be a string or an array'],
    [{ text: 5 }, 'r 7: text must be a string, got number 5'],
    [{ input_ids: [1, 'x'] }, 'r 7: input_ids[1] must be a token id, got string x'],
    [{ input_ids: [-1] }, 'r 7: input_ids[0] must be a token id, got number -1'],
    [{ input_ids: [1.5] }, 'r 7: input_ids[0]'],
    [{ input_ids: [2 ** 31] }, 'r 7: input_ids[0]'],
    [{ input_ids: { 0: 1 } }, 'r 7: input_ids must be an array of integers, got an object'],
    [{ input_ids: [1], labels: [1, 2] }, 'r 7: labels must have one number per token, got 2 for 1'],
    [{ input_ids: [1], labels: [-5] }, 'r 7: labels[0] must be a token id or -100, got number -5'],
  ])('SFT %j: names row and field', (row, message) => {
    expect(() => sftSource(row, 'r 7')).toThrow(
      expect.objectContaining({ code: 'ERR_DATA', message: expect.stringContaining(message) }),
    )
  })

  it.each([
    [{ prompt: 'a', chosen: 'b' }, 'r 7: rejected must be a string or an array'],
    [{ chosen: 'a', rejected: [turn] }, 'r 7: chosen and rejected must both be'],
    [{ prompt: [turn], chosen: 'a', rejected: 'b' }, 'r 7: prompt and chosen must both be'],
    [
      { prompt_ids: [1], chosen_ids: [1] },
      'r 7: rejected_ids must be an array of integers, got nothing',
    ],
    [{ messages: [turn] }, 'r 7: expected the fields chosen + rejected'],
  ])('preferences %j: names row and field', (row, message) => {
    expect(() => pairSource(row, 'r 7')).toThrow(
      expect.objectContaining({ code: 'ERR_DATA', message: expect.stringContaining(message) }),
    )
  })
})
