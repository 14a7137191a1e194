import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openCpu } from '../../src/device/device.js'
import { logprobs } from '../../src/eval/logprobs.js'
import { generate, promptIds } from '../../src/model/generate.js'
import { loadModel, type Model } from '../../src/model/model.js'
import { type Server, serve } from '../../src/serve/server.js'
import { saveModel } from '../../src/train/run.js'
import { uniform } from '../support/random.js'
import { sharedPath } from '../support/shared.js'
import { randomModel } from '../support/small-models.js'
import { generateUntil, loglikelihoods, type Scored } from './lm-eval.js'
import { fakeServer, post } from './support.js'

// What evaluation harnesses read of a server's answers, item by item: lm-evaluation-harness's
// local-completions, local-chat-completions and remote tokenizer, FastChat, AlpacaEval.

const dir = mkdtempSync(join(tmpdir(), 'westwind-serve-'))
const tiny = join(dir, 'tiny')
afterAll(() => rmSync(dir, { recursive: true, force: true }))

interface Completion {
  id: string
  object: string
  created: number
  model: string
  choices: {
    index: number
    text: string
    finish_reason: string
    logprobs: {
      tokens: string[]
      token_logprobs: (number | null)[]
      top_logprobs: (Record<string, number> | null)[]
      text_offset: number[]
    }
  }[]
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number }
}

const models = [
  { name: 'a tiny random model', path: tiny },
  { name: 'stories260K', path: sharedPath('pretrained', 'stories260K') },
]

describe.each(models)('lm-evaluation-harness on $name', ({ path }) => {
  let server: Server
  let model: Model
  let name: string

  beforeAll(async () => {
    if (path === undefined) return
    if (path === tiny) {
      using fresh = randomModel(openCpu(), { window: 24 })
      await saveModel(tiny, fresh, fresh.tokenizer!.files)
    }
    model = await loadModel(path, { device: openCpu(), dtype: 'f32' })
    server = await serve({ models: [path], port: 0, dtype: 'f32', logLevel: 'silent', maxBatch: 5 })
    name = basename(path)
  })
  afterAll(async () => {
    await server?.close()
    model?.dispose()
  })

  const words = (n: number, seed: number) => {
    const next = uniform(seed)
    const { vocabSize } = model.config
    return Array.from({ length: n }, () => 3 + Math.floor(next() * (vocabSize - 3)))
  }
  const ask = async (body: object): Promise<Completion> => {
    const { status, text } = await post(`${server.url}/v1/completions`, { model: name, ...body })
    expect(status, text).toBe(200)
    return JSON.parse(text)
  }
  const score = { max_tokens: 1, temperature: 0, logprobs: 1, echo: true, seed: 1234 }

  it.skipIf(!path)(
    'log-likelihoods are those of logprobs(), bit for bit, in any batch',
    async () => {
      const shared = words(40, 1) // few-shot examples
      const requests = Array.from({ length: 16 }, (_, i): Scored => {
        const context = [...(i % 2 === 0 ? shared : []), ...words(5 + i, i + 2)]
        return { context, continuation: words(1 + (i % 4), i + 50) }
      })
      const [likeliest] = await generate(model, [shared], { maxNewTokens: 4, stopIds: [] })
      requests.push({ context: shared, continuation: likeliest!.ids })
      const rows = requests.map(({ context, continuation }) => ({
        input_ids: [...context, ...continuation],
        labels: [...context.map(() => -100), ...continuation],
      }))
      const expected: number[] = []
      for await (const row of logprobs(model, rows)) if ('sum' in row) expected.push(row.sum)
      for (const batchSize of [1, 3, 8]) {
        const got = await loglikelihoods(server.url, name, requests, batchSize)
        expect(got.map(({ sum }) => sum)).toEqual(expected)
        expect(got.at(-1)!.greedy).toBe(true)
        expect(got[0]!.greedy).toBe(false)
      }
    },
  )

  it.skipIf(!path)(
    'ids are taken as they are: no BOS, none made anew, one entry more',
    async () => {
      const ids = model.tokenizer!.encode('th').flatMap((id) => [id, id]) // no text is cut like this
      const { choices, usage } = await ask({ prompt: [...ids, 5], ...score })
      const { tokens, token_logprobs, top_logprobs, text_offset } = choices[0]!.logprobs
      const lengths = [tokens, token_logprobs, top_logprobs, text_offset].map(
        ({ length }) => length,
      )
      expect(lengths).toEqual(Array(4).fill(ids.length + 2))
      expect(usage.prompt_tokens).toBe(ids.length + 1)
      expect(token_logprobs[0]).toBe(null)
      expect(top_logprobs[0]).toBe(null)
      for (const logp of token_logprobs.slice(1)) expect(logp).toBeLessThanOrEqual(0)
    },
  )

  it.skipIf(!path)('the likeliest token stands in top_logprobs, with the same float', async () => {
    const prompt = words(30, 9)
    const { choices } = await ask({ prompt, ...score, max_tokens: 8 })
    const { token_logprobs, top_logprobs } = choices[0]!.logprobs
    for (const [t, top] of top_logprobs.entries()) {
      if (t === 0) continue
      const best = Math.max(...Object.values(top!))
      if (t < prompt.length) expect(best).toBeGreaterThanOrEqual(token_logprobs[t]!)
      else expect(best).toBe(token_logprobs[t])
    }
    const scored = choices[0]!.logprobs.token_logprobs
    const ids = model.tokenizer!.encode(choices[0]!.text)
    expect(ids.length).toBeGreaterThan(0)
    const again = await ask({ prompt, ...score, max_tokens: 8 }) // now from what was scored before
    expect(again.choices[0]!.logprobs.token_logprobs).toEqual(scored)
  })

  it.skipIf(!path)('numbers do not change with what else is computed', async () => {
    const prompts = Array.from({ length: 12 }, (_, i) => words(3 + 2 * i, i + 100))
    const quiet: Completion[] = []
    for (const prompt of prompts) quiet.push(await ask({ prompt, ...score }))
    const fresh = prompts.map((prompt) => [...prompt].reverse())
    const [batch, ...busy] = await Promise.all([
      ask({ prompt: prompts, ...score, logprobs: 2 }),
      ...fresh.map((prompt) => ask({ prompt, max_tokens: 20, temperature: 1 })),
    ])
    expect(busy).toHaveLength(12)
    const numbers = (all: Completion['choices']) =>
      all.map(({ logprobs }) => logprobs.token_logprobs)
    const one = quiet.map(({ choices }) => numbers(choices)[0])
    expect(numbers(batch!.choices)).toEqual(one)
  })

  it.skipIf(!path)(
    'generation requests give the greedy text up to the first stop string',
    async () => {
      const prompts = ['Once upon', 'The cat', 'x']
      const whole = await generate(model, prompts, { maxNewTokens: 32, raw: true })
      const texts = whole.map(({ text }) => text)
      const eos = model.tokenizer!.eosToken!
      expect(await generateUntil(server.url, name, prompts, [eos])).toEqual(texts)
      const stop = texts[0]!.slice(-2)
      const cut = texts.map((text) => text.split(stop)[0]!)
      expect(await generateUntil(server.url, name, prompts, [stop, eos])).toEqual(cut)
      const ids = prompts.map((text) => promptIds(model, text, { raw: true }))
      expect(await generateUntil(server.url, name, ids, [eos])).toEqual(texts)
    },
  )

  it.skipIf(!path)('prompts of all four forms, their texts and usage', async () => {
    const ids = promptIds(model, 'Once upon', { raw: true })
    const greedy = { max_tokens: 3, temperature: 0 }
    const forms = ['Once upon', ['Once upon', 'The'], ids, [ids, [5, 6]]]
    const answers = await Promise.all(
      forms.map((prompt) => ask({ prompt, ...greedy, suffix: 'x' })),
    )
    const first = answers.map(({ choices }) => choices[0]!.text)
    expect(new Set(first).size).toBe(1)
    expect(answers.map(({ choices }) => choices.map(({ index }) => index))).toEqual([
      ...[[0], [0, 1], [0], [0, 1]],
    ])
    expect(answers[0]).toEqual({
      id: expect.stringMatching(/^cmpl-/),
      object: 'text_completion',
      created: expect.any(Number),
      model: name,
      choices: [{ index: 0, text: first[0], finish_reason: 'length', logprobs: null }],
      usage: {
        prompt_tokens: ids.length,
        completion_tokens: 3,
        total_tokens: ids.length + 3,
      },
    })
  })

  it.skipIf(!path)('echo repeats the prompt; offsets say where its tokens begin', async () => {
    const prompt = 'Once upon a time, Tom'
    const { choices } = await ask({ prompt, ...score, max_tokens: 4 })
    const { text, logprobs } = choices[0]!
    expect(text.startsWith(prompt)).toBe(true)
    const { tokens, text_offset } = logprobs
    expect(tokens[0]).toBe(model.tokenizer!.bosToken)
    expect(text_offset.slice(0, 2)).toEqual([0, 0])
    for (const [i, token] of tokens.slice(0, -4).entries()) {
      const begins = i < 2 ? token.trimStart() : token // the first word has no space before it
      const shown = i > 0 && !/^bytes:|^</.test(token)
      if (shown) expect(text.startsWith(begins, text_offset[i])).toBe(true)
    }
    const only = await ask({ prompt, echo: true, max_tokens: 0 })
    expect(only.choices[0]).toMatchObject({ text: prompt, finish_reason: 'length', logprobs: null })
    const scored = await ask({ prompt, ...score, max_tokens: 0 })
    expect(scored.choices[0]!.logprobs.token_logprobs).toEqual(logprobs.token_logprobs.slice(0, -4))
    expect(scored.usage.completion_tokens).toBe(0)
  })

  it.skipIf(!path)('the remote tokenizer cuts and joins as the local one', async () => {
    const tokenizer = model.tokenizer!
    const info = await (await fetch(`${server.url}/tokenizer_info`)).json()
    expect(info).toMatchObject({ eos_token: tokenizer.eosToken, bos_token: tokenizer.bosToken })
    const prompt = 'A little girl, and a dog.'
    const plain = await post(`${server.url}/tokenize`, { prompt, add_special_tokens: false })
    expect(plain.json).toEqual({ tokens: tokenizer.encode(prompt) })
    const special = await post(`${server.url}/tokenize`, { prompt })
    expect(special.json).toEqual({ tokens: tokenizer.encode(prompt, { addSpecialTokens: true }) })
    const back = await post(`${server.url}/detokenize`, { tokens: tokenizer.encode(prompt) })
    expect(back.json).toEqual({ prompt })
    const wrong = await post(`${server.url}/detokenize`, { tokens: [5, -1] })
    expect(wrong).toMatchObject({ status: 400, json: { error: { param: 'tokens.1' } } })
  })

  it.skipIf(!path)('chat answers have what FastChat and AlpacaEval read', async () => {
    const messages = [
      { role: 'system', content: '' },
      { role: 'user', content: 'Hi', type: 'text' },
    ]
    const body = { model: name, messages, max_tokens: 1, temperature: 1, logprobs: true, n: 1 }
    const url = `${server.url}/v1/chat/completions`
    const { json } = await post(url, { ...body, top_logprobs: 5, stop: ['a', 'b', 'c', 'd'] })
    expect(json).toEqual({
      id: expect.stringMatching(/^chatcmpl-/),
      object: 'chat.completion',
      created: expect.any(Number),
      model: name,
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: expect.any(String), refusal: null },
          finish_reason: expect.stringMatching(/^(stop|length)$/),
          logprobs: { content: expect.any(Array), refusal: null },
        },
      ],
      usage: {
        prompt_tokens: expect.any(Number),
        completion_tokens: 1,
        total_tokens: expect.any(Number),
      },
    })
  })
})

describe('what no model says when it is asked to', () => {
  const scoring = { prompt: [5, 6, 7], max_tokens: 1, echo: true, logprobs: 2, temperature: 0 }
  const logprobsOf = (json: unknown) => {
    return (json as Completion).choices[0]!.logprobs
  }

  it('the generated token has its entry where it is EOS too', async () => {
    const { url, engine } = await fakeServer()
    engine.says = [2]
    const { json } = await post(`${url}/v1/completions`, scoring)
    expect(logprobsOf(json).tokens.at(-1)).toBe('</s>')
    expect(logprobsOf(json).token_logprobs).toEqual([null, -1, -1, -1])
    expect((json as Completion).choices[0]).toMatchObject({ finish_reason: 'stop' })
  })

  it('of two tokens with the same text the likelier one stays, and its own text is a key', async () => {
    const { url, engine, tokenizer } = await fakeServer()
    const [letter, byte] = [tokenizer.encode('ba').at(-1)!, tokenizer.tokenToId('<0x61>')!]
    engine.logprob = (id) => {
      const top = [byte, letter].map((one, i) => ({ id: one, logprob: -0.25 - i }))
      return { id, logprob: -7, top }
    }
    const { json } = await post(`${url}/v1/completions`, scoring)
    expect(logprobsOf(json).top_logprobs[1]).toMatchObject({ a: -0.25 })
    expect(Object.values(logprobsOf(json).top_logprobs[1]!)).toEqual([-0.25, -7])
  })

  it('log-probs are finite numbers in full precision; NaN is an error of the server', async () => {
    const { url, engine } = await fakeServer()
    const exact = Math.fround(-1.2345678)
    engine.logprob = (id, t) => {
      return {
        id,
        logprob: t === 1 ? Number.NEGATIVE_INFINITY : exact,
        top: [{ id, logprob: exact }],
      }
    }
    const { text, json } = await post(`${url}/v1/completions`, scoring)
    expect(logprobsOf(json).token_logprobs).toEqual([null, -3.4028234663852886e38, exact, exact])
    expect(text).toContain(String(exact))
    engine.logprob = (id) => ({ id, logprob: Number.NaN, top: [] })
    const broken = await post(`${url}/v1/completions`, { ...scoring, prompt: [8, 9] })
    expect(broken).toMatchObject({ status: 500, json: { error: { code: 'ERR_NON_FINITE' } } })
  })

  it('of a beginning that was scored before only the rest is computed', async () => {
    const { url, engine } = await fakeServer()
    engine.logprob = (id, t) => ({ id, logprob: -t, top: [] })
    const ask = async (prompt: number[], logprobs = 1) => {
      const { json } = await post(`${url}/v1/completions`, { ...scoring, prompt, logprobs })
      return [logprobsOf(json).token_logprobs, engine.requests.at(-1)!.promptLogprobsFrom]
    }
    expect(await ask([5, 6, 7, 8])).toEqual([[null, -1, -2, -3, -4], 1])
    expect(await ask([5, 6, 7, 9, 9])).toEqual([[null, -1, -2, -3, -4, -5], 3])
    expect(await ask([5, 6, 7, 8])).toEqual([[null, -1, -2, -3, -4], 4])
    expect(await ask([5, 6, 7, 8], 3)).toEqual([[null, -1, -2, -3, -4], 1])
    expect(await ask([9])).toEqual([[null, -1], 1])
  })
})
