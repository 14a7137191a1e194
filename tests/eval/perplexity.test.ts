import { afterAll, describe, expect, it } from 'vitest'
import { openCpu } from '../../src/device/device.js'
import { evaluatePerplexity, windows } from '../../src/eval/perplexity.js'
import { score } from '../../src/eval/score.js'
import { randomModel } from '../support/small-models.js'

const model = randomModel(openCpu(), { window: null })
afterAll(() => model.dispose())

describe('windows', () => {
  const prefix = -1
  it.each([
    [1, 8, 8],
    [8, 8, 8],
    [9, 8, 8],
    [50, 8, 8],
    [50, 8, 3],
    [51, 8, 1],
    [5, 1, 1],
  ])(
    'of %d tokens, length %d, stride %d predict each token once, in order',
    (n, length, stride) => {
      const tokens = Array.from({ length: n }, (_, i) => i)
      const cut = windows(tokens, prefix, length, stride)
      expect(cut.flatMap(({ ids, scored }) => [...ids.slice(-scored)])).toEqual(tokens)
      for (const [i, { ids, scored }] of cut.entries()) {
        expect(ids.length - 1).toBeLessThanOrEqual(length)
        expect(scored).toBeLessThanOrEqual(i === 0 ? length : stride)
        const first = ids[ids.length - scored]!
        const from = ids[0] === prefix ? -1 : ids[0]!
        expect([...ids.slice(1)]).toEqual(tokens.slice(from + 1, from + ids.length)) // one piece of the text
        if (i > 0) expect(first - from).toBe(ids.length - scored)
        // all the context that fits
        if (i > 0) expect(ids.length).toBe(Math.min(length, first + scored) + 1)
      }
    },
  )

  it('of no token are none', () => {
    expect(windows([], prefix, 8, 8)).toEqual([])
  })
})

describe('evaluatePerplexity', () => {
  const text = 'One cat  sat on the mat.\nTwo 😀 ran.'
  const long = 'The dog was there again and again. '.repeat(12)

  it('is exp of minus the mean log-prob by word, byte and token', async () => {
    const { metrics, samples } = await evaluatePerplexity(model, [
      { text },
      { text: long, id: 'b' },
    ])
    const tokenizer = model.tokenizer!
    const ids = tokenizer.encode(text, { addSpecialTokens: true })
    const request = { ids: Int32Array.from([1, ...ids]), scored: ids.length }
    const [one] = await score(model, [request])
    const { logprobs, sum } = one!
    expect(samples[0]).toMatchObject({
      ...{ id: '0', logprob: sum, text_logprob: sum - logprobs[0]! },
      ...{ tokens: ids.length - 1, words: 9, bytes: Buffer.byteLength(text) },
    })
    const total = (name: 'logprob' | 'words' | 'bytes' | 'tokens' | 'text_logprob') =>
      samples[0]![name] + samples[1]![name]
    expect(samples[1]!.tokens).toBeGreaterThan(128)
    expect(metrics).toEqual({
      word_perplexity: Math.exp(-total('logprob') / total('words')),
      byte_perplexity: Math.exp(-total('logprob') / total('bytes')),
      bits_per_byte: -total('logprob') / total('bytes') / Math.LN2,
      token_perplexity: Math.exp(-total('text_logprob') / total('tokens')),
    })
  })

  it('a stride changes long texts alone', async () => {
    const rows = [{ text }, { text: long }]
    const whole = await evaluatePerplexity(model, rows)
    const strided = await evaluatePerplexity(model, rows, { stride: 32 })
    expect(strided.samples[0]).toEqual(whole.samples[0])
    expect(strided.samples[1]!.logprob).not.toBe(whole.samples[1]!.logprob)
    expect(strided.samples[1]).toMatchObject({ tokens: whole.samples[1]!.tokens })
  })

  it('takes messages through the template, and refuses what is no text', async () => {
    const messages = [
      { role: 'user', content: 'Hi' },
      { role: 'assistant', content: 'Ho' },
    ]
    const { samples } = await evaluatePerplexity(model, [{ messages }])
    const asText = { text: '<|user|>\nHi</s>\n<|assistant|>\nHo</s>\n' }
    expect(samples).toEqual((await evaluatePerplexity(model, [asText])).samples)
    await expect(evaluatePerplexity(model, [{ input_ids: [1, 2] }])).rejects.toThrow(
      'row 1: perplexity is measured on text or messages',
    )
    await expect(evaluatePerplexity(model, [])).rejects.toThrow('perplexity: there is no text')
    await expect(evaluatePerplexity(model, [{ text }], { stride: 129 })).rejects.toThrow(
      "stride must be at most the model's context of 128, got 129",
    )
  })
})
