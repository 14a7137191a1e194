import { afterAll, describe, expect, it } from 'vitest'
import { compileTemplate } from '../../src/data/chat-template.js'
import { openCpu } from '../../src/device/device.js'
import { uniform } from '../../src/model/decoding.js'
import { generate, generateStream, promptIds, stopIdsOf } from '../../src/model/generate.js'
import { integers } from '../support/random.js'
import { allLogits, argmax, randomModel } from '../support/small-models.js'

const cpu = openCpu()
const V = 320
const windowed = randomModel(cpu, { window: 7 })
const full = randomModel(cpu, { window: null, tied: true })
const weights = cpu.stats()
afterAll(() => cpu.dispose())

const prompts = [3, 21, 1, 9, 30].map((length, i) => [...integers(length, V, i + 1)])
const greedy = { maxNewTokens: 24, stopIds: [] }
const sampled = { ...greedy, temperature: 1.3, topK: 40, topP: 0.9, seed: 11 }

describe.each([
  ['a sliding window', windowed],
  ['full attention', full],
])('generate with %s', (_, model) => {
  it('greedy tokens are those that the whole forward pass finds likeliest, step by step', async () => {
    for (const { prompt, ids, finishReason } of await generate(model, prompts, greedy)) {
      const all = [...(prompt as number[])]
      for (const id of ids) {
        const logits = await allLogits(model, all)
        expect(id).toBe(argmax(logits.subarray(logits.length - V)))
        all.push(id)
      }
      expect([ids.length, finishReason]).toEqual([24, 'length'])
    }
  })

  it('batches of any size give the same tokens, sampled ones too', async () => {
    const [one, three, all] = await Promise.all(
      [1, 3, 16].map((batchSize) => generate(model, prompts, { ...sampled, batchSize })),
    )
    expect(three).toEqual(one)
    expect(all).toEqual(one)
  })
})

it('a seed repeats itself, another one does not; the same prompt twice gives two texts', async () => {
  const [a, b] = [await generate(full, prompts, sampled), await generate(full, prompts, sampled)]
  expect(a).toEqual(b)
  const other = await generate(full, prompts, { ...sampled, seed: 12 })
  expect(other.map(({ ids }) => ids)).not.toEqual(a.map(({ ids }) => ids))
  const [x, y] = await generate(full, [prompts[0]!, prompts[0]!], sampled)
  expect(x!.ids).not.toEqual(y!.ids)
})

it('random numbers are below 1 and exact in f32', () => {
  let sum = 0
  for (let token = 0; token < 1000; token++) {
    const x = uniform(3, 1, token)
    expect(Math.fround(x)).toBe(x)
    expect(x).toBeLessThan(1)
    sum += x
  }
  expect(Math.abs(sum / 1000 - 0.5)).toBeLessThan(0.04) // four standard errors
})

it('a text ends with the first stop token, and the others go on', async () => {
  const before = await generate(full, prompts, greedy)
  const stop = before[1]!.ids[5]!
  const after = await generate(full, prompts, { ...greedy, stopIds: [stop] })
  for (const [i, { ids, finishReason }] of after.entries()) {
    const at = before[i]!.ids.indexOf(stop)
    expect(ids).toEqual(at < 0 ? before[i]!.ids : before[i]!.ids.slice(0, at + 1))
    expect(finishReason).toBe(at < 0 ? 'length' : 'stop')
  }
})

it('the context of the model ends a text', async () => {
  const [long] = await generate(full, [[...integers(120, V, 9)]], { ...greedy, maxNewTokens: 50 })
  expect([long!.ids.length, long!.finishReason]).toEqual([8, 'length'])
})

it('pieces of a stream join to the text, and no piece breaks a character', async () => {
  const done = await generate(full, ['Tell me', 'Why?'], { ...sampled, maxNewTokens: 60 })
  const pieces = ['', '']
  const ids: number[][] = [[], []]
  for await (const event of generateStream(full, ['Tell me', 'Why?'], {
    ...sampled,
    maxNewTokens: 60,
  })) {
    pieces[event.index] += event.text
    ids[event.index]!.push(event.id)
  }
  expect(pieces).toEqual(done.map(({ text }) => text))
  expect(ids).toEqual(done.map((one) => one.ids))
})

it('strings go through the template, raw ones and conversations as documented', () => {
  const { tokenizer } = full
  const chat = promptIds(full, 'Hi')
  expect(tokenizer!.decode(chat)).toContain('<|user|>\nHi</s>')
  expect(promptIds(full, [{ role: 'user', content: 'Hi' }])).toEqual(chat)
  expect(promptIds(full, 'Hi', { raw: true })).toEqual(
    tokenizer!.encode('Hi', { addSpecialTokens: true }),
  )
  const template = compileTemplate('{{ messages[0].content }}!')
  expect(promptIds(full, 'Hi', { template })).toEqual(tokenizer!.encode('Hi!'))
  expect(promptIds(full, Int32Array.of(4, 5))).toEqual([4, 5])
})

it('EOS of the config and of the tokenizer stop by default', async () => {
  expect(await stopIdsOf(full)).toEqual([2])
})

it('wrong options and prompts are refused by name', async () => {
  const bad = (options: object, prompt: number[] | string = [1]) =>
    generate(full, [[3], prompt], options)
  await expect(bad({ maxNewTokens: 0 })).rejects.toThrow('maxNewTokens must be an integer of at')
  await expect(bad({ topP: 0 })).rejects.toThrow('topP must be above 0 and at most 1, got 0')
  await expect(bad({ temperature: -1 })).rejects.toThrow(
    'temperature must be a number of at least 0',
  )
  await expect(bad({ topK: 1.5 })).rejects.toThrow('topK must be an integer')
  await expect(bad({ seed: Number.NaN })).rejects.toThrow('seed must be an integer')
  await expect(bad({}, [])).rejects.toThrow('prompt 2 is empty')
  await expect(bad({}, [320])).rejects.toThrow('token id 320 is not in the model')
  await expect(bad({}, Array(128).fill(5))).rejects.toThrow(
    "prompt 2 has 128 tokens and leaves no room in the model's context of 128",
  )
  expect(await generate(full, [])).toEqual([])
})

it('a signal stops it, between two tokens', async () => {
  const controller = new AbortController()
  const seen: number[] = []
  const run = async () => {
    for await (const { id } of generateStream(full, [[3]], {
      ...greedy,
      signal: controller.signal,
    })) {
      seen.push(id)
      if (seen.length === 4) controller.abort()
    }
  }
  await expect(run()).rejects.toMatchObject({ code: 'ERR_ABORTED' })
  expect(seen).toHaveLength(4)
})

it('memory is back to the weights after an end, an early exit and an error', async () => {
  await generate(full, prompts, greedy)
  for await (const _ of generateStream(full, prompts, greedy)) break
  await generate(full, [[3]], { ...greedy, signal: AbortSignal.abort() }).catch(() => undefined)
  expect(cpu.stats().liveBytes).toBe(weights.liveBytes)
  expect(cpu.stats().liveTensors).toBe(weights.liveTensors)
  expect(cpu.stats().forgottenTensors).toBe(0)
})

it('bf16 generates too, the same in every batch', async () => {
  using model = randomModel(cpu, { window: 7, dtype: 'bf16' })
  const one = await generate(model, prompts, { ...sampled, batchSize: 1 })
  expect(await generate(model, prompts, { ...sampled, batchSize: 4 })).toEqual(one)
})
