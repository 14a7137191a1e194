import { connect } from 'node:net'
import { describe, expect, it } from 'vitest'
import { WestwindError } from '../../src/errors.js'
import { fakeServer, openai, post, until } from './support.js'

const completion = (more: object = {}) => ({ model: 'tiny', prompt: 'hi', ...more })
const chat = (more: object = {}) => {
  return { model: 'tiny', messages: [{ role: 'user', content: 'hi' }], ...more }
}
const failure = (param: unknown, code: unknown = null) => {
  return { error: { message: expect.any(String), type: 'invalid_request_error', param, code } }
}

describe('a wrong request', () => {
  it.each<[string, object, string | null, RegExp]>([
    ['no prompt', { prompt: undefined }, 'prompt', /got nothing/],
    ['a prompt of another type', { prompt: { a: 1 } }, 'prompt', /must be a string, token ids/],
    ['an empty list of prompts', { prompt: [] }, 'prompt', /1 to 256 prompts, got 0/],
    ['too many prompts', { prompt: Array(257).fill('a') }, 'prompt', /got 257/],
    ['an empty prompt among others', { prompt: [[5], []] }, 'prompt.1', /is empty/],
    ['an id outside the vocabulary', { prompt: [5, 320] }, 'prompt.1', /from 0 to 319, got 320/],
    ['an id that is no integer', { prompt: [[1, 2.5]] }, 'prompt.0.1', /got 2.5/],
    ['ids and texts mixed', { prompt: [1, 'a'] }, 'prompt.1', /got a/],
    ['a negative max_tokens', { max_tokens: -1 }, 'max_tokens', /an integer of at least 0, got -1/],
    ['max_tokens as text', { max_tokens: '5' }, 'max_tokens', /got 5/],
    ['a temperature too high', { temperature: 2.5 }, 'temperature', /a number from 0 to 2/],
    ['a temperature as text', { temperature: 'hot' }, 'temperature', /got hot/],
    ['top_p above 1', { top_p: 1.1 }, 'top_p', /from 0 to 1/],
    ['n of 0', { n: 0 }, 'n', /from 1 to 16/],
    ['a seed with a fraction', { seed: 1.5 }, 'seed', /an integer, got 1.5/],
    ['too many logprobs', { logprobs: 21 }, 'logprobs', /from 0 to 20/],
    ['an empty stop string', { stop: ['a', ''] }, 'stop.1', /a string that is not empty/],
    ['too many stop strings', { stop: Array(17).fill('a') }, 'stop', /at most 16/],
    ['a long stop string', { stop: 'x'.repeat(257) }, 'stop', /at most 256 characters/],
    ['echo that is no flag', { echo: 'yes' }, 'echo', /true or false/],
    ['stream that is no flag', { stream: 1 }, 'stream', /true or false/],
    [
      'stream options that are none',
      { stream_options: 'usage' },
      'stream_options',
      /include_usage/,
    ],
    ['a model that is no name', { model: 5 }, 'model', /the name of a model/],
  ])('%s is a 400 that names the field', async (_, more, param, message) => {
    const { url } = await fakeServer()
    const { status, json } = await post(`${url}/v1/completions`, completion(more))
    expect({ status, json }).toEqual({ status: 400, json: failure(param) })
    expect(json).toMatchObject({ error: { message: expect.stringMatching(message) } })
  })

  it.each<[string, object, string]>([
    ['no messages', { messages: [] }, 'messages'],
    ['messages that are no list', { messages: 'hi' }, 'messages'],
    ['a role nobody has', { messages: [{ role: 'god', content: '' }] }, 'messages.0.role'],
    ['content of another type', { messages: [{ role: 'user', content: 5 }] }, 'messages.0.content'],
    [
      'an image',
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
      'messages.0.content',
    ],
    ['max_tokens of 0', { max_tokens: 0 }, 'max_tokens'],
    ['top_logprobs without logprobs', { top_logprobs: 2 }, 'top_logprobs'],
  ])('%s is a 400 of chat that names the field', async (_, more, param) => {
    const { url } = await fakeServer()
    const { status, json } = await post(`${url}/v1/chat/completions`, chat(more))
    expect({ status, json }).toEqual({ status: 400, json: failure(param) })
  })

  it.each<[string, object]>([
    ['presence_penalty', { presence_penalty: 0.5 }],
    ['frequency_penalty', { frequency_penalty: -1 }],
    ['logit_bias', { logit_bias: { 5: 100 } }],
    ['tools', { tools: [{ type: 'function' }] }],
    ['response_format', { response_format: { type: 'json_object' } }],
  ])(
    '%s, which would change the answer, is refused; its neutral value is not',
    async (param, more) => {
      const { url } = await fakeServer()
      const refused = await post(`${url}/v1/chat/completions`, chat(more))
      expect(refused).toMatchObject({ status: 400, json: failure(param, 'unsupported_parameter') })
      const neutral = {
        ...{ presence_penalty: 0, frequency_penalty: 0, logit_bias: {}, tools: [], foo: 'unknown' },
        response_format: { type: 'text' },
      }
      expect((await post(`${url}/v1/chat/completions`, chat(neutral))).status).toBe(200)
    },
  )

  it('a prompt that does not fit the context is refused whole, with or without max_tokens', async () => {
    const { url, engine } = await fakeServer()
    const ids = (n: number) => Array<number>(n).fill(5)
    const ask = (more: object) => post(`${url}/v1/completions`, completion(more))
    for (const more of [
      { prompt: ids(128) },
      { prompt: ids(120), max_tokens: 9 },
      { prompt: [ids(3), ids(129)], max_tokens: 0 },
      { prompt: 'word '.repeat(500) },
      { prompt: 'x'.repeat(1_000_000) },
    ]) {
      const { status, json } = await ask(more)
      expect({ status, json }).toEqual({
        status: 400,
        json: failure('prompt', 'context_length_exceeded'),
      })
    }
    const messages = [{ role: 'user', content: 'word '.repeat(500) }]
    const long = await post(`${url}/v1/chat/completions`, chat({ messages }))
    expect(long.json).toEqual(failure('messages', 'context_length_exceeded'))
    expect(engine.requests).toEqual([])
    expect((await ask({ prompt: ids(120), max_tokens: 8 })).status).toBe(200)
    expect((await ask({ prompt: ids(128), max_tokens: 0, echo: true, logprobs: 1 })).status).toBe(
      200,
    )
    await ask({ prompt: ids(126) }) // the default of max_tokens is no wish: as many as fit
    expect(engine.requests.at(-1)).toMatchObject({ maxNewTokens: 2 })
  })

  it('what is no JSON, no object, too large or of another type is told so', async () => {
    const { url } = await fakeServer()
    const at = `${url}/v1/completions`
    expect(await post(at, '{"model":')).toMatchObject({ status: 400, json: failure(null) })
    expect(await post(at, '')).toMatchObject({ status: 400, json: failure(null) })
    expect(await post(at, '[1]')).toMatchObject({ status: 400, json: failure(null) })
    expect(await post(at, '[')).toMatchObject({ status: 400, json: failure(null) })
    expect(await post(at, '['.repeat(1e6))).toMatchObject({ status: 400, json: failure(null) })
    const large = JSON.stringify(completion({ prompt: 'x'.repeat(17 * 2 ** 20) }))
    expect(await post(at, large)).toMatchObject({ status: 413, json: failure(null) })
    const headers = { 'content-type': 'text/plain' }
    const plain = await post(at, completion(), { headers })
    expect(plain).toMatchObject({ status: 415, json: failure(null) })
    const proto = await post(at, '{"model":"tiny","prompt":"a","__proto__":{"n":2}}')
    expect(proto).toMatchObject({ status: 400, json: failure(null) })
  })

  it('an unknown route is a 404, a wrong method a 405 with the right ones', async () => {
    const { url } = await fakeServer()
    const unknown = await post(`${url}/v1/embeddings`, {})
    expect(unknown).toMatchObject({ status: 404, json: failure(null, 'unknown_url') })
    const method = await fetch(`${url}/v1/completions`)
    expect(method.status).toBe(405)
    expect(method.headers.get('allow')).toBe('POST')
    expect(await method.json()).toEqual(failure(null, 'method_not_allowed'))
    expect((await post(`${url}/v1/models/tiny`, {})).status).toBe(405)
    expect(await post(`${url}/%zz`, {})).toMatchObject({ status: 400, json: failure(null) })
  })

  it('what is no HTTP, and headers without end, get an answer and the connection ends', async () => {
    const { url } = await fakeServer()
    const send = (text: string) => {
      return new Promise<string>((resolve, reject) => {
        const socket = connect(Number(new URL(url).port), '127.0.0.1', () => socket.write(text))
        let answer = ''
        socket.on('data', (data) => {
          answer += data
        })
        socket.on('error', reject).on('close', () => resolve(answer))
      })
    }
    expect(await send('hello\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 .*"invalid_request_error"/s)
    const large = `GET /health HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`
    expect(await send(large)).toMatch(/^HTTP\/1\.1 431 .*headers are too large/s)
  })
})

describe('models', () => {
  it('one model answers to its name, its folder, and to no name', async () => {
    const { url } = await fakeServer()
    for (const model of ['tiny', 'runs/tiny', null, undefined]) {
      expect((await post(`${url}/v1/completions`, completion({ model }))).json).toMatchObject({
        model: 'tiny',
      })
    }
    const other = await post(`${url}/v1/completions`, completion({ model: 'gpt-4' }))
    expect(other).toMatchObject({ status: 404, json: failure('model', 'model_not_found') })
    expect(other.text).toContain('Served: tiny')
    expect(await (await fetch(`${url}/v1/models/runs/tiny`)).json()).toMatchObject({ id: 'tiny' })
    expect((await fetch(`${url}/v1/models/gpt-4`)).status).toBe(404)
  })

  it('of several models a request must name one', async () => {
    const { url, client } = await fakeServer({ ids: ['sft', 'dpo'] })
    const list = await client.models.list()
    expect(list.data.map(({ id }) => id)).toEqual(['sft', 'dpo'])
    expect(await client.models.retrieve('dpo')).toMatchObject({ id: 'dpo', object: 'model' })
    const unnamed = await post(`${url}/v1/completions`, completion({ model: undefined }))
    expect(unnamed).toMatchObject({ status: 400, json: failure('model') })
    expect(unnamed.text).toContain('sft, dpo')
    const named = await post(`${url}/v1/completions`, completion({ model: 'dpo' }))
    expect(named.json).toMatchObject({ model: 'dpo' })
  })
})

describe('who may ask', () => {
  it('with a key: whoever sends it; health needs none', async () => {
    const { url } = await fakeServer({ apiKey: 'sesame' })
    const missing = await post(`${url}/v1/completions`, completion())
    expect(missing).toMatchObject({ status: 401, json: failure(null, 'invalid_api_key') })
    expect(missing.headers.get('www-authenticate')).toBe('Bearer')
    const client = openai(url, 'wrong')
    await expect(client.completions.create(completion())).rejects.toMatchObject({ status: 401 })
    expect((await fetch(`${url}/nowhere`)).status).toBe(401)
    expect((await fetch(`${url}/metrics`)).status).toBe(401)
    expect((await fetch(`${url}/health`)).status).toBe(200)
    const right = await openai(url, 'sesame').completions.create(completion())
    expect(right.choices).toHaveLength(1)
  })

  it('without a key: only who calls this machine by its own name', async () => {
    const { url, app } = await fakeServer()
    const foreign = await app.inject({ url: '/v1/models', headers: { host: 'evil.example' } })
    expect(foreign.statusCode).toBe(403)
    expect(foreign.json()).toEqual(failure(null, 'host_not_allowed'))
    expect((await fetch(`${url.replace('127.0.0.1', 'localhost')}/v1/models`)).status).toBe(200)
  })

  it('while models load everything but metrics is 503 with Retry-After', async () => {
    const { url, serving } = await fakeServer({ loading: true })
    for (const path of ['/health', '/v1/models', '/tokenizer_info']) {
      const response = await fetch(url + path)
      expect(response.status).toBe(503)
      expect(response.headers.get('retry-after')).toBe('2')
      const { error } = (await response.json()) as { error: object }
      expect(error).toMatchObject({ type: 'server_error', code: 'model_loading' })
    }
    expect((await fetch(`${url}/metrics`)).status).toBe(200)
    serving.state = 'ready'
    expect(await (await fetch(`${url}/health`)).json()).toEqual({ status: 'ready' })
  })
})

describe('the queue', () => {
  it('computes so many texts at a time, lets so many wait and turns the rest away', async () => {
    const { url, engine, gate } = await fakeServer({ places: 2, maxQueue: 3 })
    engine.msPerToken = 30
    const ask = () => post(`${url}/v1/completions`, completion({ max_tokens: 5 }))
    engine.says = [5, 5, 5, 5, 5]
    const taken = Array.from({ length: 5 }, ask)
    await until(() => gate.waiting === 3)
    const refused = await ask()
    expect(refused.status).toBe(429)
    expect(refused.headers.get('retry-after')).toBe('1')
    expect(refused.json).toMatchObject({ error: { code: 'rate_limit_exceeded' } })
    expect((await Promise.all(taken)).map(({ status }) => status)).toEqual(Array(5).fill(200))
    expect(engine.mostActive).toBe(2)
    expect([gate.active, gate.waiting]).toEqual([0, 0])
  })

  it('a request of many texts does not keep others waiting', async () => {
    const { url, engine } = await fakeServer({ places: 2, maxQueue: 3 })
    engine.msPerToken = 10
    engine.says = [5, 5]
    let many = false
    const large = post(
      `${url}/v1/completions`,
      completion({ max_tokens: 2, prompt: Array(32).fill('a') }),
    )
    void large.then(() => {
      many = true
    })
    await until(() => engine.active === 2)
    await post(`${url}/v1/completions`, completion({ max_tokens: 2 }))
    expect(many).toBe(false)
    expect((await large).json).toMatchObject({ usage: { completion_tokens: 64 } })
  })
})

describe('a client that goes', () => {
  it.each([
    ['before a whole answer', false],
    ['in the middle of a stream', true],
  ])('%s ends its work', async (_, stream) => {
    const { url, engine, gate, serving } = await fakeServer()
    engine.msPerToken = 10
    engine.says = Array(100).fill(5)
    const stop = new AbortController()
    const body = JSON.stringify(chat({ stream, n: 2 }))
    const headers = { 'content-type': 'application/json' }
    const { signal } = stop
    const answer = fetch(`${url}/v1/chat/completions`, { method: 'POST', body, headers, signal })
    if (stream) await (await answer).body?.getReader().read()
    await until(() => engine.active === 2)
    stop.abort()
    await answer.catch(() => undefined)
    await until(() => gate.active === 0)
    expect(engine.aborted).toBe(2)
    const metrics = await serving.metrics.registry.metrics()
    expect(metrics).toMatch(/westwind_requests_total\{.*status="499"} 1/)
    expect(metrics).toContain('westwind_aborted_requests_total{reason="client_closed_request"} 1')
  })

  it('while it waits leaves the queue', async () => {
    const { url, engine, gate, client } = await fakeServer({ places: 1 })
    engine.msPerToken = 20
    engine.says = [5, 5, 5, 5, 5, 5]
    const first = post(`${url}/v1/completions`, completion({ max_tokens: 6 }))
    await until(() => gate.active === 1)
    const stop = new AbortController()
    const second = client.completions.create(completion(), { signal: stop.signal })
    await until(() => gate.waiting === 1)
    stop.abort()
    await expect(second).rejects.toThrow(/aborted/)
    await until(() => gate.waiting === 0)
    expect((await first).status).toBe(200)
    expect(engine.requests).toHaveLength(1)
  })

  it('a text that takes too long ends with 408, in a stream with an error event', async () => {
    const { url, engine, client } = await fakeServer({ requestTimeoutMs: 150 })
    engine.msPerToken = 20
    engine.says = Array(100).fill(5)
    const whole = await post(`${url}/v1/completions`, completion({ max_tokens: 50 }))
    expect(whole).toMatchObject({ status: 408, json: failure(null, 'timeout') })
    expect(whole.headers.get('x-should-retry')).toBe('false')
    const stream = await client.completions.create({
      ...completion({ max_tokens: 50 }),
      stream: true,
    })
    const read = async () => {
      for await (const _ of stream);
    }
    await expect(read()).rejects.toMatchObject({ code: 'timeout' })
    expect(engine.active).toBe(0)
  })
})

describe('a failure of the engine', () => {
  it('is a 500 before the first token, an error event after it, and the server goes on', async () => {
    const { url, engine, client } = await fakeServer()
    engine.says = [5, 5, 5, 5]
    const error = new WestwindError('ERR_DEVICE', 'cuda:0: the device failed')
    engine.failure = { before: 0, error }
    for (const stream of [false, true]) {
      const { status, json } = await post(`${url}/v1/completions`, completion({ stream }))
      expect(status).toBe(500)
      expect(json).toEqual({
        error: { message: error.message, type: 'server_error', param: null, code: 'ERR_DEVICE' },
      })
    }
    engine.failure = { before: 2, error }
    const stream = await client.completions.create({ ...completion(), stream: true })
    const texts: string[] = []
    const read = async () => {
      for await (const chunk of stream) texts.push(chunk.choices[0]!.text)
    }
    await expect(read()).rejects.toMatchObject({ code: 'ERR_DEVICE' })
    expect(texts).toHaveLength(2)
    engine.failure = { before: 1, error: new TypeError('secret details') }
    const bug = await post(`${url}/v1/completions`, completion())
    expect(bug.status).toBe(500)
    expect(bug.text).not.toContain('secret')
    engine.failure = undefined
    expect((await post(`${url}/v1/completions`, completion())).status).toBe(200)
  })
})

describe('closing', () => {
  it('finishes what is under way and takes nothing new', async () => {
    const { url, serving, engine } = await fakeServer()
    engine.msPerToken = 20
    engine.says = [5, 5, 5, 5, 5, 5]
    const running = post(`${url}/v1/completions`, completion({ max_tokens: 6 }))
    await until(() => engine.active === 1)
    const drained = serving.drain(5000)
    const late = await post(`${url}/v1/completions`, completion())
    expect(late).toMatchObject({ status: 503, json: { error: { code: 'shutting_down' } } })
    expect((await fetch(`${url}/health`)).status).toBe(503)
    await drained
    expect(await running).toMatchObject({ status: 200, json: { usage: { completion_tokens: 6 } } })
  })

  it('ends what takes too long', async () => {
    const { url, serving, engine } = await fakeServer()
    engine.msPerToken = 20
    engine.says = Array(100).fill(5)
    const running = post(`${url}/v1/completions`, completion({ max_tokens: 100 }))
    await until(() => engine.active === 1)
    await serving.drain(50)
    expect(await running).toMatchObject({ status: 503, json: { error: { code: 'shutting_down' } } })
    expect(engine.active).toBe(0)
  })
})
