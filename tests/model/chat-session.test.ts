import { expect, it } from 'vitest'
import { openCpu } from '../../src/device/device.js'
import { ChatSession } from '../../src/model/chat-session.js'
import { generate } from '../../src/model/generate.js'
import { randomModel } from '../support/small-models.js'

const cpu = openCpu()
const model = randomModel(cpu, { window: 7 })
const weights = cpu.stats().liveBytes
const options = { maxNewTokens: 10 }

async function answer(session: ChatSession, text: string): Promise<string> {
  let all = ''
  for await (const event of session.say(text)) all += event.text
  return all
}

it('a turn on the kept cache says what the whole conversation from the start says', async () => {
  using session = new ChatSession(model, options)
  for (const text of ['Hi', 'Why?', 'Go on']) {
    const before = [...session.messages, { role: 'user', content: text }]
    const [expected] = await generate(model, [before], options)
    expect(await answer(session, text)).toBe(expected!.text)
    expect(session.messages.at(-1)).toEqual({ role: 'assistant', content: expected!.text })
    if (before.length > 1) expect(session.reusedTokens).toBeGreaterThan(10)
  }
})

it('after a reset the conversation is new', async () => {
  using session = new ChatSession(model, options)
  const first = await answer(session, 'Hi')
  await answer(session, 'Why?')
  session.reset()
  expect(session.messages).toEqual([])
  expect(await answer(session, 'Hi')).toBe(first)
})

it('raw sessions are one growing text', async () => {
  using session = new ChatSession(model, { ...options, raw: true })
  const first = await answer(session, 'The')
  const [expected] = await generate(model, [`The\n${first}\nand`], { ...options, raw: true })
  expect(await answer(session, 'and')).toBe(expected!.text)
})

it('an answer that is stopped stays as far as it came, and the talk goes on', async () => {
  using session = new ChatSession(model, options)
  const controller = new AbortController()
  const talk = async () => {
    for await (const _ of session.say('Hi', controller.signal)) controller.abort()
  }
  await expect(talk()).rejects.toMatchObject({ code: 'ERR_ABORTED' })
  expect(session.messages).toHaveLength(2)
  const before = [...session.messages, { role: 'user', content: 'Why?' }]
  const [expected] = await generate(model, [before], options)
  expect(await answer(session, 'Why?')).toBe(expected!.text)
})

it('a conversation beyond the context is refused and keeps its turns; dispose frees the cache', async () => {
  const session = new ChatSession(model, options)
  await answer(session, 'Hi')
  await expect(answer(session, 'long '.repeat(100))).rejects.toThrow('leaves no room')
  expect(session.messages).toHaveLength(2)
  session.dispose()
  session.dispose()
  expect(cpu.stats().liveBytes).toBe(weights)
})
