import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openCpu } from '../../src/device/device.js'
import { saveModel } from '../../src/train/run.js'
import { cliBuilt, westwind } from '../support/cli.js'
import { randomModel } from '../support/small-models.js'
import { startServer } from './process.js'
import { collect, openai, post, until } from './support.js'

const dir = mkdtempSync(join(tmpdir(), 'westwind-serve-cli-'))
const paths = [join(dir, 'sft', 'model'), join(dir, 'dpo', 'model')]

beforeAll(async () => {
  using fresh = randomModel(openCpu(), { window: null })
  for (const path of paths) await saveModel(path, fresh, fresh.tokenizer!.files)
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

describe.skipIf(!cliBuilt)('westwind serve', () => {
  it('says when it is ready, serves several models, logs JSON without keys, ends with the signal', async () => {
    const key = 'a-key-that-nobody-logs'
    const { child, url, log, ended } = await startServer(paths, { WESTWIND_API_KEY: key })
    const client = openai(url, key)
    const models = await client.models.list()
    expect(models.data.map(({ id }) => id)).toEqual(['model', 'model-2'])
    await client.completions.create({ model: 'model-2', prompt: 'secret words', max_tokens: 2 })
    expect((await post(`${url}/v1/completions`, {})).status).toBe(401)

    const messages = [{ role: 'user' as const, content: 'Hi' }]
    const asked = { model: 'model', messages, max_tokens: 100, seed: 1, temperature: 2 }
    const stream = await client.chat.completions.create({ ...asked, stream: true })
    child.kill('SIGTERM')
    const chunks = await collect(stream)
    expect(chunks.at(-1)!.choices[0]!.finish_reason).toMatch(/stop|length/)
    expect(await ended).toBe(143)

    const lines = log().trim().split('\n')
    const logged = lines.map((line): Record<string, unknown> => JSON.parse(line))
    const ours = { url: '/v1/completions', status: 200, model: 'model-2', completion_tokens: 2 }
    expect(logged).toContainEqual(expect.objectContaining(ours))
    expect(logged).toContainEqual(
      expect.objectContaining({ status: 401, error: 'invalid_api_key' }),
    )
    expect(log()).not.toContain(key)
    expect(log()).not.toContain('secret words')
  })

  it('a second signal ends it at once', async () => {
    const { child, url, ended } = await startServer([paths[0]!, '--log-level', 'info'])
    const body = { prompt: Array(200).fill('a'), max_tokens: 100, temperature: 2, n: 16 }
    const answer = post(`${url}/v1/completions`, body).catch(() => undefined)
    await until(() => child.exitCode === null)
    await new Promise((resolve) => setTimeout(resolve, 200))
    child.kill('SIGINT')
    await new Promise((resolve) => setTimeout(resolve, 100))
    child.kill('SIGINT')
    expect(await ended).toBe(130)
    expect(await answer).toBe(undefined)
  })

  it.each<[string, string[], RegExp]>([
    ['an open host without a key', ['--host', '0.0.0.0'], /WESTWIND_API_KEY/],
    ['no such host', ['--host', '127.0.0.999'], /options\.host 127\.0\.0\.999, port 8000/],
    ['a port that is none', ['--port', '70000'], /from 0|65535/],
    ['no slots', ['--max-batch', '0'], /Expected an integer of at least 1/],
    ['a level that is none', ['--log-level', 'loud'], /Allowed choices are/],
  ])('%s is one clear error', async (_, args, message) => {
    const { code, stderr } = await westwind(['serve', paths[0]!, ...args], {
      env: { WESTWIND_API_KEY: '' },
    })
    expect(stderr).toMatch(message)
    expect(stderr).toMatch(/^error: /)
    expect(code).toBe(1)
  })
})
