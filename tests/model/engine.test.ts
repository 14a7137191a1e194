import { afterAll, describe, expect, it } from 'vitest'
import { logprobs } from '../../src/eval/logprobs.js'
import { Engine, type EngineRequest, type TokenLogprob } from '../../src/model/engine.js'
import { loadModel, type Model } from '../../src/model/model.js'
import { kvAppend } from '../../src/ops/decode.js'
import { fromArray } from '../../src/tensor/tensor.js'
import { engines, named } from '../support/devices.js'
import { integers, uniform } from '../support/random.js'
import { sharedPath } from '../support/shared.js'
import { randomModel } from '../support/small-models.js'

const V = 320
const ids = (length: number, seed: number) => [...integers(length, V, seed)]

interface Result {
  prompt?: TokenLogprob[]
  ids: number[]
  logprobs: TokenLogprob[]
  finishReason?: string
}

/** What a request gets, or its first tokens if it is left after `leaveAfter`. */
async function collect(
  engine: Engine,
  request: EngineRequest,
  leaveAfter = Number.POSITIVE_INFINITY,
): Promise<Result> {
  const result: Result = { ids: [], logprobs: [] }
  for await (const event of engine.submit(request)) {
    if (event.type === 'prompt') {
      result.prompt = event.logprobs
      continue
    }
    result.ids.push(event.id)
    if (event.logprob) result.logprobs.push(event.logprob)
    if (event.finishReason) result.finishReason = event.finishReason
    if (result.ids.length >= leaveAfter) break
  }
  return result
}

/** What it gets from an engine that has seen nothing else. */
async function alone(model: Model, request: EngineRequest, length = 96): Promise<Result> {
  const engine = new Engine(model, { slots: 1, length })
  const result = await collect(engine, request)
  await engine.close()
  return result
}

/** Requests of all kinds, whose prompts have beginnings in common. */
function randomRequests(count: number, seed: number): EngineRequest[] {
  const next = uniform(seed)
  const below = (n: number) => Math.floor(next() * n)
  const pieces = Array.from({ length: 6 }, (_, i) => ids(9 + 7 * i, seed + i))
  return Array.from({ length: count }, (_, stream) => {
    const prompt = [pieces[below(2)]!, pieces[2 + below(2)]!, pieces[4 + below(2)]!]
    const length = 1 + below(prompt.flat().length)
    const given = [...prompt.flat().slice(0, length), ...ids(below(4), stream)].slice(0, 80)
    const maxNewTokens = below(3) === 0 ? 0 : 1 + below(12)
    const sampled = { temperature: 0.8 + below(2), topK: 20, topP: 0.9, seed, stream }
    return {
      ids: given,
      maxNewTokens,
      ...(below(2) === 0 && sampled),
      ...(below(2) === 0 && { promptLogprobsFrom: 1 + below(given.length) }),
      ...(below(3) === 0 && { topLogprobs: below(4) }),
      ...(below(3) === 0 && { stopIds: [below(V), below(V), below(V)] }),
    }
  })
}

describe.each(engines.map(named))('the engine on %s', (_, device) => {
  const models: [string, Model][] = [
    ['f32, full attention', randomModel(device, { window: null, tied: true })],
    ['f32, a sliding window', randomModel(device, { window: 7 })],
    ['bf16, a sliding window', randomModel(device, { window: 20, dtype: 'bf16' })],
  ]
  const [full] = models[0]!.slice(1) as [Model]
  const before = device.stats()
  afterAll(() => {
    expect(device.stats().liveBytes).toBe(before.liveBytes)
    expect(device.stats().forgottenTensors).toBe(0)
  })
  const gpu = device.name !== 'cpu'

  it.each(models)(
    'a request gets the bits it gets alone, whatever comes, goes and is in the cache: %s',
    async (_, model) => {
      const requests = randomRequests(gpu ? 6 : 40, 3)
      const expected: Result[] = []
      for (const request of requests) expected.push(await alone(model, request))
      const next = uniform(8)
      const engine = new Engine(model, { slots: 4, length: 96, prefillTokens: 24 })
      const results = requests.map(async (request, i) => {
        for (let wait = next() * 40; wait > 0; wait--) await new Promise(setImmediate)
        const whole = next() < 0.7
        const result = await collect(
          engine,
          request,
          whole ? undefined : 1 + Math.floor(next() * 5),
        )
        if (whole) expect(result, `request ${i}`).toEqual(expected[i])
        else expect(result.ids).toEqual(expected[i]!.ids.slice(0, result.ids.length))
      })
      await Promise.all(results)
      const { active, waiting, reusedTokens } = engine.stats()
      expect([active, waiting]).toEqual([0, 0])
      expect(reusedTokens).toBeGreaterThan(gpu ? 20 : 400)
      await engine.close()
    },
  )

  it.each(models)(
    'the next turn of a conversation finds the last one and says what it says alone: %s',
    async (_, model) => {
      const engine = new Engine(model, { slots: 2, length: 96 })
      const first = ids(40, 1)
      const { ids: answer } = await collect(engine, { ids: first, maxNewTokens: 10 })
      await collect(engine, { ids: ids(40, 2), maxNewTokens: 1 })
      const before = engine.stats().reusedTokens
      const turn = { ids: [...first, ...answer, ...ids(8, 3)], maxNewTokens: 4, topLogprobs: 2 }
      expect(await collect(engine, turn)).toEqual(await alone(model, turn))
      // The answer's last token was never put in. On a GPU decoded tokens have other bits than a prompt's.
      expect(engine.stats().reusedTokens - before).toBe(gpu ? 40 : 49)
      await engine.close()
    },
  )

  it('four choices compute their question once, and log-probs are the same', async () => {
    const question = ids(50, 1)
    const choices = [1, 2, 3, 4].map((i): EngineRequest => {
      const prompt = [...question, ...ids(5, 10 + i)]
      return { ids: prompt, maxNewTokens: 0, promptLogprobsFrom: 50, topLogprobs: 1 }
    })
    const expected: Result[] = []
    for (const choice of choices) expected.push(await alone(full, choice))
    const engine = new Engine(full, { length: 96 })
    expect(await Promise.all(choices.map((choice) => collect(engine, choice)))).toEqual(expected)
    // The last token of the question predicts the first one that is scored, and the last of all predicts nothing.
    expect(engine.stats()).toMatchObject({ reusedTokens: 3 * 49, computedTokens: 49 + 4 * 5 })
    await engine.close()
  })
})

const [device] = engines
const model = randomModel(device!, { window: null })

it('log-probs are those of the whole forward pass; of the likeliest token the same float twice', async () => {
  const text = ids(40, 2)
  const { prompt, logprobs: told } = await alone(model, {
    ids: text,
    maxNewTokens: 6,
    promptLogprobsFrom: 1,
    topLogprobs: 5,
  })
  const all = [...text, ...told.map(({ id }) => id)]
  const { value: expected } = await logprobs(model, [{ input_ids: all }]).next()
  if (!expected || !('logps' in expected)) throw new Error('a pair')
  const given = [...prompt!, ...told]
  expect(given.map(({ id }) => id)).toEqual(all.slice(1))
  for (const [i, { id, logprob, top }] of given.entries()) {
    expect(Math.abs(logprob - expected.logps[i]!)).toBeLessThan(1e-5)
    expect(top).toHaveLength(5)
    expect(top.map((one) => one.logprob)).toEqual(
      top.map((one) => one.logprob).sort((a, b) => b - a),
    )
    for (const one of top) if (one.id === id) expect(one.logprob).toBe(logprob)
    expect(top.every((one) => one.logprob >= logprob) || top.some((one) => one.id === id)).toBe(
      true,
    )
  }
  for (const { id, top } of told) expect(top[0]!.id).toBe(id)
})

it('fewer alternatives, or none, change no number', async () => {
  const request = { ids: ids(30, 3), maxNewTokens: 4, promptLogprobsFrom: 5 }
  const five = await alone(model, { ...request, topLogprobs: 5 })
  for (const topLogprobs of [0, 1]) {
    const cut = (all: TokenLogprob[]) =>
      all.map((x) => ({ ...x, top: x.top.slice(0, topLogprobs) }))
    const fewer = await alone(model, { ...request, topLogprobs })
    expect(fewer).toEqual({ ...five, prompt: cut(five.prompt!), logprobs: cut(five.logprobs) })
  }
  const none = await alone(model, request)
  expect(none.logprobs).toEqual([])
  expect(none.prompt!.map(({ logprob }) => logprob)).toEqual(five.prompt!.map((x) => x.logprob))
})

it('running texts go on while a long prompt is computed in parts', async () => {
  using engine = new Engine(model, { slots: 2, length: 128, prefillTokens: 8 })
  const order: string[] = []
  const follow = async (name: string, request: EngineRequest) => {
    for await (const event of engine.submit(request)) order.push(`${name} ${event.type}`)
  }
  const short = follow('short', { ids: ids(3, 1), maxNewTokens: 30 })
  while (order.length < 2) await new Promise(setImmediate)
  const from = order.length
  await Promise.all([short, follow('long', { ids: ids(80, 2), maxNewTokens: 1 })])
  expect(order.slice(from).indexOf('long token')).toBeGreaterThan(8)
})

it('first come, first served', async () => {
  using engine = new Engine(model, { slots: 1, length: 64 })
  const order: number[] = []
  const one = async (i: number) => {
    for await (const _ of engine.submit({ ids: ids(4, i), maxNewTokens: 2 })) order.push(i)
  }
  await Promise.all([0, 1, 2, 3].map(one))
  expect(order).toEqual([0, 0, 1, 1, 2, 2, 3, 3])
})

it('a request that is stopped or left gives its slot back at once', async () => {
  const engine = new Engine(model, { slots: 1, length: 128 })
  const stop = new AbortController()
  const long = collect(engine, { ids: ids(4, 1), maxNewTokens: 120, signal: stop.signal })
  const waiting = collect(engine, { ids: ids(4, 2), maxNewTokens: 120, signal: stop.signal })
  const next = collect(engine, { ids: ids(4, 3), maxNewTokens: 2 })
  await new Promise(setImmediate)
  expect(engine.stats()).toMatchObject({ active: 1, waiting: 2 })
  stop.abort()
  await expect(long).rejects.toMatchObject({ code: 'ERR_ABORTED' })
  await expect(waiting).rejects.toMatchObject({ code: 'ERR_ABORTED' })
  expect((await next).ids).toHaveLength(2)
  expect(engine.stats().generatedTokens).toBeLessThan(60)

  // Nobody looks at this one: it is dropped all the same.
  const unread = new AbortController()
  const stream = engine.submit({ ids: ids(4, 1), maxNewTokens: 120, signal: unread.signal })
  await stream.next()
  unread.abort()
  expect((await collect(engine, { ids: ids(4, 3), maxNewTokens: 2 })).ids).toHaveLength(2)
  await expect(stream.next()).rejects.toMatchObject({ code: 'ERR_ABORTED' })
  await engine.close()
})

const refused: [string, Partial<EngineRequest>, RegExp][] = [
  ['an empty prompt', { ids: [] }, /the prompt is empty/],
  [
    'an id that the model has not',
    { ids: [1, V] },
    /token id 320 is not in the model's vocabulary/,
  ],
  [
    'a prompt that leaves no room',
    { ids: ids(64, 1) },
    /64 tokens and leaves no room in the cache of 64/,
  ],
  [
    'a scored prompt that is too long',
    { ids: ids(66, 1), maxNewTokens: 0 },
    /does not fit the cache of 64/,
  ],
  [
    'log-probs from the first token on',
    { promptLogprobsFrom: 0 },
    /promptLogprobsFrom must be an integer of at least 1/,
  ],
  [
    'log-probs from behind the prompt',
    { promptLogprobsFrom: 5 },
    /promptLogprobsFrom must be at most the prompt's 4 tokens/,
  ],
  [
    'too many alternatives',
    { topLogprobs: 21 },
    /topLogprobs must be an integer of at least 0 and at most 20/,
  ],
  ['no probability', { topP: 0 }, /topP must be above 0/],
]
it.each(refused)('refuses %s, and that request alone', async (_, change, message) => {
  using engine = new Engine(model, { slots: 2, length: 64 })
  const good = { ids: ids(4, 1), maxNewTokens: 3 }
  const other = collect(engine, good)
  await expect(collect(engine, { ...good, ...change })).rejects.toThrow(message)
  expect((await other).ids).toHaveLength(3)
})

it('an error of the device ends what has begun, and the engine goes on with nothing in its cache', async () => {
  const engine = new Engine(model, { slots: 2, length: 128 })
  const request = { ids: ids(30, 1), maxNewTokens: 30 }
  const running = collect(engine, request)
  const outcome = expect(running).rejects.toMatchObject({ code: 'ERR_DEVICE' })
  await new Promise(setImmediate)
  using slot = fromArray([7], [1], 'i32', device!)
  using qkv = fromArray([1, 2, 3], [1, 3, 1], 'f32', device!)
  using k = fromArray([0], [1, 1, 1, 1], 'f32', device!)
  using v = fromArray([0], [1, 1, 1, 1], 'f32', device!)
  kvAppend(qkv, { k, v }, { slot, position: slot }, { heads: 1, kvHeads: 1 })
  await outcome
  expect(engine.stats()).toMatchObject({ active: 0, cachedTokens: 0 })
  expect(await collect(engine, request)).toEqual(await alone(model, request, 128))
  await engine.close()
})

it('a disposed engine ends its requests and takes no more', async () => {
  const engine = new Engine(model, { slots: 1, length: 64 })
  const all = [1, 2].map((i) => collect(engine, { ids: ids(4, i), maxNewTokens: 50 }))
  const outcomes = all.map((one) => expect(one).rejects.toMatchObject({ code: 'ERR_DISPOSED' }))
  await new Promise(setImmediate)
  await engine.close()
  engine.dispose()
  await Promise.all(outcomes)
  await expect(collect(engine, { ids: [1], maxNewTokens: 1 })).rejects.toThrow('is disposed')
})

it('a thousand requests leave memory as it was', async () => {
  const count = device!.name === 'cpu' ? 1000 : 60
  const before = device!.stats()
  const engine = new Engine(model, { slots: 8, length: 32 })
  const run = (from: number, to: number) =>
    Promise.all(
      Array.from({ length: to - from }, (_, i) => {
        const seed = from + i
        const sampled = seed % 3 === 0 ? { temperature: 1, seed } : {}
        const scored = seed % 5 === 0 ? { promptLogprobsFrom: 2, topLogprobs: 2 } : {}
        const prompt = [...ids(12, seed % 20), ...ids(3, seed)]
        return collect(engine, { ids: prompt, maxNewTokens: seed % 4, ...sampled, ...scored })
      }),
    )
  await run(0, count / 5)
  const warm = device!.stats()
  await run(count / 5, count)
  const after = device!.stats()
  if (count === 1000) {
    // With fewer, steps of new sizes are still being recorded.
    expect(after.liveTensors).toBeLessThan(warm.liveTensors * 1.2)
    expect(after.liveBytes).toBeLessThan(warm.liveBytes * 1.2)
  }
  await engine.close()
  expect(device!.stats().liveBytes).toBe(before.liveBytes)
  expect(device!.stats().forgottenTensors).toBe(0)
})

describe.each(['stories260K', 'BabyLlama-tok105'])('%s', (name) => {
  const dir = sharedPath('pretrained', name)
  it.skipIf(!dir)(
    'gives the bits of a lone request in a crowd that shares beginnings',
    async () => {
      using trained = await loadModel(dir!, { device: device!, dtype: 'f32' })
      const text = trained.tokenizer!.encode(
        'Once upon a time, there was a little dog named Tim. He',
      )
      const requests = [4, 9, 9, 12, text.length, text.length].map(
        (length, stream): EngineRequest => {
          const prompt = [...text.slice(0, length), ...text.slice(0, 12)]
          const sampled = stream % 2 === 0 ? { temperature: 0.9, topK: 30, seed: 4, stream } : {}
          return {
            ids: prompt,
            maxNewTokens: 12,
            promptLogprobsFrom: 10,
            topLogprobs: 2,
            ...sampled,
          }
        },
      )
      const engine = new Engine(trained, { slots: 3, length: 96, prefillTokens: 16 })
      const crowd = await Promise.all(requests.map((request) => collect(engine, request)))
      await engine.close()
      for (const [i, request] of requests.entries()) {
        expect(crowd[i]).toEqual(await alone(trained, request))
      }
    },
  )
})
