import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openCpu } from '../../src/device/device.js'
import { generate } from '../../src/model/generate.js'
import { loadModel, type Model } from '../../src/model/model.js'
import { type Server, serve } from '../../src/serve/server.js'
import { saveModel } from '../../src/train/run.js'
import { randomModel } from '../support/small-models.js'
import { collect, fakeServer, openai, until } from './support.js'

// The client of the openai package against a server of its own.

const dir = mkdtempSync(join(tmpdir(), 'westwind-openai-'))
let server: Server
let model: Model
let client: OpenAI

beforeAll(async () => {
  const path = join(dir, 'tiny')
  using fresh = randomModel(openCpu(), { window: 24 })
  await saveModel(path, fresh, fresh.tokenizer!.files)
  model = await loadModel(path, { device: openCpu(), dtype: 'f32' })
  server = await serve({ models: [path], port: 0, logLevel: 'silent', maxBatch: 4 })
  client = openai(server.url)
})
afterAll(async () => {
  await server.close()
  model.dispose()
  rmSync(dir, { recursive: true, force: true })
})

const prompt = 'Tell me a story'
const messages: OpenAI.ChatCompletionMessageParam[] = [
  { role: 'system', content: 'Be brief.' },
  {
    role: 'user',
    content: [
      { type: 'text', text: 'Tell me ' },
      { type: 'text', text: 'a story' },
    ],
  },
]
const conversation = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'Tell me a story' },
]

describe('completions', () => {
  it('n texts are the n streams of the seed, as generate() makes them, again and again', async () => {
    const asked = {
      model: 'tiny',
      prompt,
      max_tokens: 12,
      temperature: 1.5,
      top_p: 0.9,
      seed: 7,
      n: 3,
    }
    const sampling = { maxNewTokens: 12, temperature: 1.5, topP: 0.9, seed: 7, raw: true }
    const expected = await generate(model, [prompt, prompt, prompt], sampling)
    for (let again = 0; again < 2; again++) {
      const { choices, usage } = await client.completions.create(asked)
      expect(choices.map(({ text }) => text)).toEqual(expected.map(({ text }) => text))
      const reasons = choices.map((choice) => choice.finish_reason)
      expect(reasons).toEqual(expected.map(({ finishReason }) => finishReason))
      const made = expected.reduce((sum, { ids }) => sum + ids.length, 0)
      expect(usage!.completion_tokens).toBe(made)
      expect(usage!.total_tokens).toBe(usage!.prompt_tokens + made)
    }
    expect(new Set(expected.map(({ text }) => text)).size).toBe(3)
  })

  it('a stream gives the same texts, log-probs and usage in pieces', async () => {
    const asked = {
      ...{ model: 'tiny', prompt: [prompt, 'And'], max_tokens: 10, temperature: 1, seed: 3, n: 2 },
      ...{ echo: true, logprobs: 3, stream_options: { include_usage: true } },
    }
    const { stream_options, ...plain } = asked
    const whole = await client.completions.create(plain)
    const chunks = await collect(await client.completions.create({ ...asked, stream: true }))
    expect(chunks.slice(0, -1).every(({ choices }) => choices.length === 1)).toBe(true)
    expect(chunks.at(-1)!.choices).toEqual([])
    expect(chunks.at(-1)!.usage).toEqual(whole.usage)
    expect(chunks[0]!.usage).toBe(null)
    for (const choice of whole.choices) {
      const pieces = chunks
        .flatMap(({ choices }) => choices)
        .filter(({ index }) => index === choice.index)
      expect(pieces.map(({ text }) => text).join('')).toBe(choice.text)
      for (const name of ['tokens', 'token_logprobs', 'top_logprobs', 'text_offset'] as const) {
        const joined = pieces.flatMap(({ logprobs }): unknown[] => logprobs?.[name] ?? [])
        expect(joined).toEqual(choice.logprobs![name])
      }
      const reasons = pieces.map(({ finish_reason }) => finish_reason as string | null)
      expect(reasons.filter((reason) => reason !== null)).toEqual([choice.finish_reason])
    }
  })

  it('without a seed two answers differ; with top_k 1 or top_p 0 they do not', async () => {
    const ask = async (more: object) => {
      const asked = { model: 'tiny', prompt, max_tokens: 20, temperature: 2, ...more }
      return (await client.completions.create(asked)).choices[0]!.text
    }
    expect(await ask({})).not.toBe(await ask({}))
    const [greedy] = await generate(model, [prompt], { maxNewTokens: 20, raw: true })
    for (const more of [{ top_k: 1 }, { top_p: 0 }, { temperature: 0 }]) {
      expect(await ask(more)).toBe(greedy!.text)
    }
  })
})

describe('chat', () => {
  it('answers as generate() does, whole and as a stream', async () => {
    const asked = {
      model: 'tiny',
      messages,
      max_completion_tokens: 14,
      temperature: 0,
      logprobs: true,
      top_logprobs: 2,
    }
    const [expected] = await generate(model, [conversation], { maxNewTokens: 14 })
    const { choices, usage } = await client.chat.completions.create(asked)
    const [choice] = choices
    expect(choice!.message).toEqual({ role: 'assistant', content: expected!.text, refusal: null })
    expect(choice!.finish_reason).toBe(expected!.finishReason)
    expect(usage!.completion_tokens).toBe(expected!.ids.length)
    const content = choice!.logprobs!.content!
    expect(content).toHaveLength(expected!.ids.length)
    for (const { logprob, top_logprobs, token, bytes } of content) {
      expect(top_logprobs[0]!.logprob).toBe(logprob)
      expect(top_logprobs).toHaveLength(2)
      if (!token.startsWith('bytes:')) expect(bytes).toEqual([...Buffer.from(token)])
    }

    const chunks = await collect(await client.chat.completions.create({ ...asked, stream: true }))
    expect(chunks[0]!.choices[0]!.delta).toEqual({ role: 'assistant', content: '', refusal: null })
    expect(chunks.at(-1)!.choices[0]).toMatchObject({
      delta: {},
      finish_reason: expected!.finishReason,
    })
    const texts = chunks.map((chunk) => chunk.choices[0]!.delta.content ?? '')
    expect(texts.join('')).toBe(expected!.text)
    const logprobs = chunks.flatMap((chunk) => chunk.choices[0]!.logprobs?.content ?? [])
    expect(logprobs).toEqual(content)
    expect(chunks.every(({ object }) => object === 'chat.completion.chunk')).toBe(true)
  })

  it('without max_tokens an answer may go on until the context ends', async () => {
    const { client, engine, say } = await fakeServer()
    say('words')
    await client.chat.completions.create({ model: 'tiny', messages })
    const { ids, maxNewTokens } = engine.requests[0]!
    expect(ids.length + maxNewTokens).toBe(128)
  })

  it('a character of several tokens comes whole', async () => {
    const { client, say } = await fakeServer()
    say('a€😀b')
    const asked = { model: 'tiny', messages, max_tokens: 30, stream: true } as const
    const chunks = await collect(await client.chat.completions.create(asked))
    const texts = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '')
    expect(texts.join('').trim()).toBe('a€😀b')
    expect(texts.join('|')).not.toContain('\ufffd')
    expect(texts).toContain('😀')
  })

  it('leaving a stream ends its work', async () => {
    const { client, say, engine, gate } = await fakeServer()
    say('many words that nobody waits for, and more of them')
    engine.msPerToken = 10
    const asked = { model: 'tiny', messages, stream: true } as const
    for await (const chunk of await client.chat.completions.create(asked)) {
      if (chunk.choices[0]?.delta.content) break
    }
    await until(() => gate.active === 0)
    expect(engine.aborted).toBe(1)
  })
})

describe('errors come as the classes of the client', () => {
  it.each([
    [{ model: 'gpt-4', prompt }, OpenAI.NotFoundError, 'model_not_found'],
    [
      { model: 'tiny', prompt, max_tokens: 1000 },
      OpenAI.BadRequestError,
      'context_length_exceeded',
    ],
    [{ model: 'tiny', prompt, temperature: 9 }, OpenAI.BadRequestError, null],
  ])('%j', async (asked, type, code) => {
    const error = await client.completions.create(asked).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(type)
    expect(error).toMatchObject({ code })
  })
})
