import OpenAI from 'openai'
import { onTestFinished } from 'vitest'
import { openCpu } from '../../src/device/device.js'
import { type AppOptions, createApp } from '../../src/serve/app.js'
import { Gate } from '../../src/serve/gate.js'
import { servedModel } from '../../src/serve/models.js'
import { Serving } from '../../src/serve/serving.js'
import { randomModel } from '../support/small-models.js'
import { FakeEngine } from './fake-engine.js'

const model = randomModel(openCpu(), { window: null })

/** A server whose engine says what a test tells it to; it is closed with the test. */
export async function fakeServer(
  options: Partial<AppOptions> & {
    places?: number
    maxQueue?: number
    requestTimeoutMs?: number
    ids?: string[]
    loading?: true
  } = {},
) {
  const { places = 4, maxQueue = 4, requestTimeoutMs = 60_000, ids = ['tiny'] } = options
  const serving = new Serving(requestTimeoutMs)
  const app = createApp(serving, { apiKey: undefined, logLevel: 'silent', ...options })
  const engine = new FakeEngine()
  const gate = new Gate(places, maxQueue)
  serving.models = await Promise.all(
    ids.map((id) => {
      return servedModel({ id, aliases: ['runs/tiny'], model, context: 128, engine, gate })
    }),
  )
  if (!options.loading) serving.state = 'ready'
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  onTestFinished(async () => {
    await serving.drain(0)
    await app.close()
  })
  const tokenizer = model.tokenizer!
  /** The engine says this text. */
  const say = (text: string, ...more: number[]) => {
    engine.says = [...tokenizer.encode(text), ...more]
  }
  return { app, serving, engine, gate, url, tokenizer, say, client: openai(url) }
}

export function openai(url: string, apiKey = 'none'): OpenAI {
  return new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 })
}

/** A request as it goes over the wire, for those that no client would send. */
export async function post(url: string, body: unknown, init: RequestInit = {}) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...init,
  })
  const text = await response.text()
  return { status: response.status, headers: response.headers, text, json: parsed(text) }
}

/** All that a stream gives. */
export async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const one of stream) all.push(one)
  return all
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Waits until something holds. */
export async function until(holds: () => boolean, ms = 5000): Promise<void> {
  const end = Date.now() + ms
  while (!holds()) {
    if (Date.now() > end) throw new Error(`it does not hold after ${ms} ms: ${holds}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
