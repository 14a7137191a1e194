import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { expect, it, onTestFinished } from 'vitest'
import { openCpu } from '../../src/device/device.js'
import { saveModel } from '../../src/train/run.js'
import { cliBuilt } from '../support/cli.js'
import { uniform } from '../support/random.js'
import { randomModel } from '../support/small-models.js'
import { startServer } from './process.js'
import { post } from './support.js'

const clients = Number(process.env.WESTWIND_CLIENTS ?? 40)
const seconds = clients > 40 ? 60 : 10

const chat = (seed: number) => ({
  path: '/v1/chat/completions',
  body: {
    messages: [{ role: 'user', content: `Question ${seed}` }],
    ...{ max_tokens: 8 + (seed % 9), temperature: 1.3, top_p: 0.95, seed },
  },
})
const complete = (seed: number) => ({
  path: '/v1/completions',
  body: {
    prompt: [`Text ${seed}`, [5, 6 + seed, 7]],
    max_tokens: 10,
    temperature: 0,
    stop: ['ab', 'q'],
  },
})
const score = (seed: number) => {
  const shared = Array.from({ length: 30 }, (_, i) => 5 + i)
  const prompt = [0, 1, 2].map((i) => [...shared, 40 + seed, 50 + i])
  return {
    path: '/v1/completions',
    body: { prompt, max_tokens: 1, temperature: 0, echo: true, logprobs: 1 },
  }
}
/** Requests with one right answer each. */
const good = [0, 1, 2, 3, 4, 5].flatMap((seed) => [chat(seed), complete(seed), score(seed)])

/** Wrong requests and the status each is answered with. */
const bad: [string, unknown, number][] = [
  ['/v1/completions', '{"prompt":', 400],
  ['/v1/completions', { prompt: [[1, 2], [999]] }, 400],
  ['/v1/completions', { prompt: 'x', max_tokens: 5000 }, 400],
  ['/v1/completions', { prompt: 'x', model: 'other' }, 404],
  ['/v1/chat/completions', { messages: [] }, 400],
  ['/v1/chat/completions', { messages: [{ role: 'user', content: 'word '.repeat(500) }] }, 400],
  ['/v1/nothing', {}, 404],
  ['/metrics', {}, 405],
]

/** What of an answer must not depend on the load. */
function essence(answer: unknown): unknown {
  const { choices, usage } = answer as { choices: unknown; usage: unknown }
  return JSON.stringify({ choices, usage })
}

it.skipIf(!cliBuilt)(
  `${clients} clients for ${seconds} s: only documented errors, a quiet server's answers, flat memory`,
  async () => {
    const dir = mkdtempSync(join(tmpdir(), 'westwind-load-'))
    onTestFinished(() => rmSync(dir, { recursive: true, force: true }))
    const model = join(dir, 'tiny')
    using fresh = randomModel(openCpu(), { window: 24 })
    await saveModel(model, fresh, fresh.tokenizer!.files)
    const queue = Math.ceil(clients / 3) // small enough to be full at times
    const args = [model, '--max-batch', '8', '--max-queue', String(queue), '--log-level', 'error']
    // Without a bound the heap grows with garbage before it is collected, and hides what memory is needed.
    const env = { NODE_OPTIONS: '--max-old-space-size=96' }
    const { child, url, log, ended } = await startServer(args, env)
    onTestFinished(() => void child.kill('SIGKILL'))
    const metric = async (name: string) => {
      const text = await (await fetch(`${url}/metrics`)).text()
      return Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'm').exec(text)?.[1])
    }

    const quiet: unknown[] = []
    for (const { path, body } of good) {
      const { status, json } = await post(url + path, body)
      expect(status).toBe(200)
      quiet.push(essence(json))
    }

    const counts = { right: 0, wrong: 0, bad: 0, full: 0, cancelled: 0 }
    const surprises: string[] = []
    const begin = Date.now()
    const end = begin + seconds * 1000
    const client = async (number: number) => {
      const next = uniform(number)
      const below = (n: number) => Math.floor(next() * n)
      while (Date.now() < end) {
        const kind = below(10)
        if (kind === 0) {
          const [path, body, expected] = bad[below(bad.length)]!
          const { status, json } = await post(url + path, body)
          if (status === expected && json) counts.bad++
          else surprises.push(`${path} ${JSON.stringify(body)}: ${status}`)
          continue
        }
        const which = below(good.length)
        const { path, body } = good[which]!
        if (kind < 4) {
          const signal = AbortSignal.timeout(1 + below(60))
          const stream = { ...body, stream: below(2) === 0 }
          await post(url + path, stream, { signal }).then(
            () => 'in time',
            (error: Error) => error.name === 'TimeoutError' || surprises.push(String(error)),
          )
          counts.cancelled++
          continue
        }
        const { status, json, text, headers } = await post(url + path, body)
        if (status === 429 && headers.has('retry-after')) {
          counts.full++
          await setTimeout(50 + below(100))
        } else if (status !== 200) surprises.push(`${status}: ${text.slice(0, 200)}`)
        else if (essence(json) === quiet[which]) counts.right++
        else counts.wrong++
      }
    }
    /** The least heap, and resident memory, in a part of the run: [from, to) of it. */
    const memory: { at: number; heap: number; rss: number }[] = []
    const watch = async () => {
      while (Date.now() < end) {
        const heap = await metric('nodejs_heap_size_used_bytes')
        const rss = await metric('process_resident_memory_bytes')
        memory.push({ at: (Date.now() - begin) / (end - begin), heap, rss })
        await setTimeout(200)
      }
    }
    await Promise.all([watch(), ...Array.from({ length: clients }, (_, i) => client(i))])

    const least = (name: 'heap' | 'rss', from: number) => {
      const part = memory.filter(({ at }) => at >= from && at < from + 0.3)
      return Math.min(...part.map((one) => one[name])) / 2 ** 20
    }
    const mib = {
      heap: [least('heap', 0.3), least('heap', 0.7)],
      rss: [least('rss', 0.3), least('rss', 0.7)],
    }
    console.log(JSON.stringify({ clients, seconds, ...counts, mib }))

    expect(surprises).toEqual([])
    expect(counts.wrong).toBe(0)
    for (const name of ['right', 'bad', 'full', 'cancelled'] as const) {
      expect(counts[name], name).toBeGreaterThan(0)
    }
    expect(mib.heap[1]! - mib.heap[0]!).toBeLessThan(16)
    expect(mib.rss[1]! - mib.rss[0]!).toBeLessThan(48)
    for (const name of ['westwind_active_sequences', 'westwind_queue_length']) {
      await expect.poll(() => metric(name), { timeout: 10_000 }).toBe(0)
    }
    expect(log()).toBe('')
    child.kill('SIGTERM')
    expect(await ended).toBe(143)
  },
  seconds * 1000 + 120_000,
)
