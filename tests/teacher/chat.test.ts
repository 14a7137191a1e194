import { afterEach, describe, expect, it } from 'vitest'
import { Budget } from '../../src/teacher/budget.js'
import { openTeacher, TeacherError } from '../../src/teacher/chat.js'
import { type Endpoint, endpointSchema } from '../../src/teacher/endpoint.js'
import { pauseMs, retryAfterMs } from '../../src/teacher/retry.js'
import { type Reply, startTeacher, type TeacherServer } from '../support/teacher.js'

let server: TeacherServer | undefined
afterEach(async () => {
  await server?.close().catch(() => undefined)
  server = undefined
})

const messages = [{ role: 'user', content: 'What is a fjord?' }]
const settings = { max_tokens: 50, temperature: 0 }

async function endpointFor(
  script: (times: number) => Reply,
  options: Partial<Endpoint> = {},
): Promise<Endpoint> {
  let requests = 0
  server = await startTeacher(() => script(++requests))
  return endpointSchema.parse({ base_url: server.url, model: 'gpt-4', max_retries: 2, ...options })
}

async function failure(endpoint: Endpoint, budget = new Budget()): Promise<TeacherError> {
  const error: unknown = await openTeacher(endpoint, { budget })
    .chat(messages, settings)
    .catch((e) => e)
  if (error instanceof TeacherError) return error
  throw new Error(`expected a TeacherError, got ${error}`)
}

describe('chat', () => {
  it('gives text, finish reason, usage and the dated model; settings go by their names', async () => {
    const usage = { prompt_tokens: 11, completion_tokens: 7 }
    const endpoint = await endpointFor(() => ({ text: 'A sea inlet.', usage }), {
      price: { input: 30, output: 60 },
    })
    const full = { ...settings, top_p: 0.6, seed: 3, stop: ['</s>'] }
    const { answer, spent } = await openTeacher(endpoint).chat(messages, full)
    expect(answer).toEqual({
      text: 'A sea inlet.',
      finish_reason: 'stop',
      usage,
      model: 'gpt-4-0613',
    })
    expect(spent).toEqual({ requests: 1, ...usage, cost: (11 * 30 + 7 * 60) / 1e6 })
    expect(server!.log[0]!.request).toEqual({ model: 'gpt-4', messages, ...full })
    expect(server!.log[0]!.authorization).toBeUndefined()
  })

  it('gives the log-probabilities of tokens and of their alternatives', async () => {
    const top_logprobs = [{ token: 'm', logprob: -0.1, bytes: [109] }]
    const content = [{ token: 'm', logprob: -0.1, bytes: [109], top_logprobs }]
    const endpoint = await endpointFor(() => ({ text: 'm', logprobs: { content, refusal: null } }))
    const asked = { max_tokens: 1, logprobs: true, top_logprobs: 5 }
    const { answer } = await openTeacher(endpoint).chat(messages, asked)
    const alternative = { token: 'm', logprob: -0.1 }
    expect(answer.logprobs).toEqual([{ ...alternative, top_logprobs: [alternative] }])
    expect(server!.log[0]!.request).toMatchObject(asked)
  })

  it('estimates usage that the endpoint leaves out: a token per 4 bytes, 4 per message', async () => {
    const endpoint = await endpointFor(() => ({ text: '12345', usage: null }))
    const { answer } = await openTeacher(endpoint).chat(messages, settings)
    expect(answer.usage).toEqual({ prompt_tokens: 8, completion_tokens: 2 })
  })

  const faults: [string, Reply, number][] = [
    ['a 500', { status: 500 }, 0],
    ['a 429', { status: 429, headers: { 'retry-after': '0' } }, 0],
    ['a 408', { status: 408 }, 58],
    ['a 504', { status: 504 }, 58],
    ['a 409', { status: 409 }, 0],
    ['a dropped connection', { fault: 'drop' }, 58],
    ['a connection cut within the body', { fault: 'cut' }, 58],
    ['a body that is no JSON', { fault: 'not-json' }, 58],
    ['an answer without choices', { fault: 'no-choices' }, 58],
    ['an endpoint that does not answer in time', { fault: 'hang' }, 58],
    ['a body that does not end in time', { fault: 'hang-in-body' }, 58],
  ]
  it.each(faults)(
    'asks again after %s, and counts what it may have cost',
    async (_, fault, tokens) => {
      const usage = { prompt_tokens: 10, completion_tokens: 5 }
      const script = (times: number): Reply => (times === 1 ? fault : { text: 'ok', usage })
      const endpoint = await endpointFor(script, { timeout: 0.3 })
      const budget = new Budget()
      const { answer, spent } = await openTeacher(endpoint, { budget }).chat(messages, settings)
      expect(answer.text).toBe('ok')
      expect(spent.requests).toBe(2)
      expect(spent.prompt_tokens + spent.completion_tokens).toBe(15 + tokens)
      expect(budget.spent).toEqual(spent)
    },
  )

  it.each([400, 401, 403, 404])('a %i is not tried again, and says what to do', async (status) => {
    const endpoint = await endpointFor(() => ({ status, message: 'no such thing' }))
    const error = await failure(endpoint)
    expect({ code: error.code, status: error.status }).toEqual({ code: 'ERR_TEACHER', status })
    expect(error.message).toContain(`gpt-4 at ${endpoint.base_url}: ${status} no such thing`)
    expect(server!.log).toHaveLength(1)
  })

  it('a request that is too long or forbidden is refused alone', async () => {
    const endpoint = await endpointFor((times) => ({
      status: 400,
      message: times === 1 ? "This model's maximum context length is 8192 tokens" : 'blocked',
      ...(times === 2 && { code: 'content_filter' }),
    }))
    expect((await failure(endpoint)).code).toBe('ERR_REFUSED')
    expect((await failure(endpoint)).code).toBe('ERR_REFUSED')
  })

  it('gives up after max_retries with the last reason', async () => {
    const endpoint = await endpointFor(() => ({ status: 503, headers: { 'retry-after-ms': '1' } }))
    const error = await failure(endpoint)
    expect(error.code).toBe('ERR_NETWORK')
    expect(error.message).toMatch(/no answer in 3 attempts: 503 status 503$/)
    expect(error.spent.requests).toBe(3)
  })

  it('an endpoint that is not there costs nothing and is named', async () => {
    const endpoint = await endpointFor(() => ({ text: 'ok' }), { max_retries: 0 })
    await server!.close()
    const { message, spent } = await failure(endpoint)
    expect(message).toMatch(/^gpt-4 at http:.*: no answer in 1 attempt: .*ECONNREFUSED/)
    expect(spent).toMatchObject({ requests: 1, prompt_tokens: 0, completion_tokens: 0 })
  })

  it('a signal ends a request, and a pause before the next attempt', async () => {
    const endpoint = await endpointFor((times) =>
      times === 1 ? { status: 429, headers: { 'retry-after': '600' } } : { fault: 'hang' },
    )
    for (let i = 0; i < 2; i++) {
      const stop = new AbortController()
      setTimeout(() => stop.abort(), 100)
      const begin = Date.now()
      const chat = openTeacher(endpoint).chat(messages, settings, stop.signal)
      await expect(chat).rejects.toMatchObject({ code: 'ERR_ABORTED' })
      expect(Date.now() - begin).toBeLessThan(5000)
    }
  })
})

describe('keys', () => {
  const env = { MY_KEY: 'sk-very-secret', OPENAI_API_KEY: 'sk-of-openai' }

  it('come from the named variable, and leave every error', async () => {
    const endpoint = await endpointFor(
      () => ({ status: 401, message: 'Incorrect API key provided: sk-very-secret' }),
      { api_key_env: 'MY_KEY' },
    )
    const error: unknown = await openTeacher(endpoint, { env })
      .chat(messages, settings)
      .catch((e) => e)
    expect(server!.log[0]!.authorization).toBe('Bearer sk-very-secret')
    expect(String(error)).toMatch(/401 Incorrect API key provided: \[key\].*variable MY_KEY/)
    expect(JSON.stringify(error) + (error instanceof Error ? error.stack : '')).not.toContain(
      'very-secret',
    )
  })

  it('OPENAI_API_KEY goes to OpenAI alone', async () => {
    const endpoint = await endpointFor(() => ({ text: 'ok' }))
    await openTeacher(endpoint, { env }).chat(messages, settings)
    expect(server!.log[0]!.authorization).toBeUndefined()
    const openAi = endpointSchema.parse({ base_url: 'https://api.openai.com/v1', model: 'gpt-4' })
    expect(() => openTeacher(openAi, { env: {} })).toThrow(
      /variable OPENAI_API_KEY, which is not set/,
    )
  })
})

describe('a budget', () => {
  it('lets no request begin that could pass it, however many are open', async () => {
    const usage = { prompt_tokens: 8, completion_tokens: 12 }
    const endpoint = await endpointFor(() => ({ text: 'ok', usage, afterMs: 20 }))
    const budget = new Budget({ max_tokens: 150 }) // the 5th could pass it: 4 · 20 + 8 + 50 = 138, 158
    const teacher = openTeacher(endpoint, { budget })
    const asked = Array.from({ length: 12 }, () => teacher.chat(messages, settings))
    const outcomes = await Promise.allSettled(asked)
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(5)
    expect(server!.log).toHaveLength(5)
    expect(budget.spent.prompt_tokens + budget.spent.completion_tokens).toBe(100)
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') expect(outcome.reason.code).toBe('ERR_BUDGET')
    }
  })

  it('counts attempts, and money by the price table', async () => {
    const failing = await endpointFor(() => ({ status: 500 }))
    expect((await failure(failing, new Budget({ max_requests: 2 }))).code).toBe('ERR_BUDGET')
    expect(server!.log).toHaveLength(2)
    const price = { input: 1e6, output: 1e6 } // a token costs 1
    const error = await failure({ ...failing, price }, new Budget({ max_cost: 57.9 }))
    expect(error.message).toMatch(/could pass max_cost\. Spent: 0 requests, 0 \+ 0 tokens/)
  })
})

describe('pauses', () => {
  it('grow, with a random part, and are at least what Retry-After asks', () => {
    expect([1, 2, 3, 20].map((n) => pauseMs(n, undefined, () => 0))).toEqual([
      500, 1000, 2000, 60_000,
    ])
    expect(pauseMs(1, undefined, () => 0.99)).toBeGreaterThan(250)
    expect(pauseMs(1, 3000, () => 0.5)).toBeGreaterThan(3000)
  })

  it('Retry-After is read as seconds, as a date and in milliseconds', () => {
    const now = Date.parse('2030-01-01T00:00:00Z')
    const read = (headers: Record<string, string>) => retryAfterMs(new Headers(headers), now)
    expect(read({ 'retry-after': '7' })).toBe(7000)
    expect(read({ 'retry-after': 'Tue, 01 Jan 2030 00:00:09 GMT' })).toBe(9000)
    expect(read({ 'retry-after': 'Mon, 31 Dec 2029 23:00:00 GMT' })).toBe(0)
    expect(read({ 'retry-after-ms': '250', 'retry-after': '7' })).toBe(250)
    for (const odd of ['', 'soon', '-3', '1e3'])
      expect(read({ 'retry-after': odd })).toBeUndefined()
  })
})
