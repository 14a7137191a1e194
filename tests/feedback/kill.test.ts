import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { cliBuilt, westwind } from '../support/cli.js'
import { FeedbackFolder } from './feedback-folder.js'
import { honest } from './judge.js'

const program = join(import.meta.dirname, '../../bin/westwind.js')
const secret = 'sk-this-must-be-nowhere'
const env = { FEEDBACK_TEST_KEY: secret }
const concurrency = 5

let at: FeedbackFolder
beforeEach(async () => {
  at = await new FeedbackFolder().open()
  at.script = (request) => {
    const answer = honest(request)
    return 'text' in answer ? { ...answer, afterMs: 5 } : answer
  }
})
afterEach(() => at.close())

function configFile(out: string): string {
  const file = at.path(`${out}.yaml`)
  const yaml = at
    .yaml(`generate: { concurrency: ${concurrency} }\nrate: { concurrency: ${concurrency} }`)
    .replace(/output_dir: .*/, `output_dir: ${at.path(out)}`)
    .replaceAll('max_retries: 2', 'max_retries: 2, api_key_env: FEEDBACK_TEST_KEY')
    .replace('teacher:\n', 'teacher:\n  api_key_env: FEEDBACK_TEST_KEY\n')
    .replace(
      '  max_retries: 2, api_key_env: FEEDBACK_TEST_KEY\n  timeout',
      '  max_retries: 2\n  timeout',
    )
  writeFileSync(file, yaml)
  return file
}

/** Runs a step, killed each time the teacher has answered so many requests more, until it ends by itself. */
async function withKills(step: string, file: string, kills: number[]): Promise<string> {
  let output = ''
  for (const after of [...kills, undefined]) {
    const enough = at.server.log.length + (after ?? 0)
    const child: ChildProcess = spawn(process.execPath, [program, 'feedback', step, file], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text
      })
    }
    const timer = setInterval(() => {
      if (after !== undefined && at.server.log.length >= enough) child.kill('SIGKILL')
    }, 1)
    const [code, signal] = await once(child, 'close')
    clearInterval(timer)
    expect({ code, signal }).toEqual(
      after === undefined ? { code: 0, signal: null } : { code: null, signal: 'SIGKILL' },
    )
  }
  return output
}

describe.skipIf(!cliBuilt)('kill -9', () => {
  it('during generate and rate: the same files, and no request is paid for twice but those in flight', {
    timeout: 180_000,
  }, async () => {
    at.prompts(12)
    const calm = configFile('calm')
    for (const step of ['generate', 'rate']) {
      const { code } = await westwind(['feedback', step, calm], { env })
      expect(code).toBe(0)
    }
    at.server.log.length = 0
    const killed = configFile('out')
    let output = await withKills('generate', killed, [1, 17, 15])
    expect(at.paidTwice()).toBeLessThanOrEqual(3 * concurrency)
    expect(at.server.log.length).toBeLessThanOrEqual(48 + 3 * concurrency)
    at.server.log.length = 0
    output += await withKills('rate', killed, [17, 20])
    expect(at.paidTwice()).toBeLessThanOrEqual(2 * concurrency)
    expect(at.server.log.length).toBeLessThanOrEqual(60 + 2 * concurrency)
    for (const name of [
      'completions.jsonl',
      'completions.quarantine.jsonl',
      'ratings.jsonl',
      'quarantine.jsonl',
    ]) {
      expect(at.text(name), name).toBe(at.text(`../calm/${name}`))
    }
    expect(output).toContain('12 prompts, 12 completed, 0 quarantined, 0 pending')
    expect(output).toContain('12 prompts, 12 rated, 0 quarantined, 0 pending')
    const left = readdirSync(at.path('out')).filter((name) => name.startsWith('.'))
    expect(left).toEqual([])
    expect(at.server.log[0]!.authorization).toBe(`Bearer ${secret}`)
    expect(output + at.everything()).not.toContain(secret)
  })
})

describe.skipIf(!cliBuilt)('westwind feedback', () => {
  it('a budget that is used up is exit code 3 and says how to go on', async () => {
    at.prompts(5)
    const file = configFile('out')
    const budget = '--generate.budget.max_cost=0.0025' // an answer is at most 0.0021, and 0.00006 in truth
    const { code, stderr } = await westwind(['feedback', 'generate', file, budget], { env })
    expect(code).toBe(3)
    expect(stderr).toMatch(
      /error: the budget is used up: the next request could pass max_cost.*Raise it to go on/,
    )
    expect(at.manifest().generate.counts).toMatchObject({ prompts: 5 })
  })

  it('--dry-run tells requests, tokens and cost, and sends nothing, without a key too', async () => {
    at.prompts(5)
    const { code, stdout } = await westwind([
      'feedback',
      'generate',
      configFile('out'),
      '--dry-run',
    ])
    expect(code).toBe(0)
    expect(stdout).toMatch(
      /^5 prompts; nothing was sent\n20 requests to endpoints\nabout \d+ prompt tokens/,
    )
    expect(stdout).toMatch(/at most 20480 completion tokens .*\nat most \$0\.04/)
    expect(at.server.log).toHaveLength(0)
  })

  it('run does all three steps, and says so as JSON', async () => {
    at.prompts(6)
    const args = ['feedback', 'run', configFile('out'), '--binarize.test_size=2', '--json']
    const { code, stdout } = await westwind(args, { env })
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({
      generate: { prompts: 6, completed: 6 },
      rate: { prompts: 6, rated: 6 },
      pairs: { source: { rows: 6 } },
    })
    expect(existsSync(at.path('out/pairs/train_prefs.parquet'))).toBe(true)
  })

  it('a second run on the same folder is refused while the first one works', async () => {
    at.prompts(3)
    let release = () => {}
    const released = new Promise<void>((resolve) => {
      release = resolve
    })
    at.script = async (request) => {
      await released
      return honest(request)
    }
    const file = configFile('out')
    const first = westwind(['feedback', 'generate', file], { env })
    while (at.server.log.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    const second = await westwind(['feedback', 'generate', file], { env })
    expect(second.code).toBe(1)
    expect(second.stderr).toMatch(/generate.journal.jsonl is in use by process \d+/)
    release()
    expect((await first).code).toBe(0)
    expect(at.server.log).toHaveLength(12)
  })

  it('wrong keys are named with their line and the nearest right one', async () => {
    const file = at.path('wrong.yaml')
    writeFileSync(
      file,
      'output_dir: out\nrate:\n  shufles: 3\nteacher: { base_url: ftp://x, model: m }\n',
    )
    const { code, stderr } = await westwind(['feedback', 'rate', file, '--generate.concurency=2'])
    expect(code).toBe(1)
    expect(stderr).toContain('wrong.yaml:3: rate.shufles: unknown key; did you mean shuffles?')
    expect(stderr).toContain('wrong.yaml:4: teacher.base_url must be an http or https address')
    expect(stderr).toContain(
      '--generate.concurency: generate.concurency: unknown key; did you mean concurrency?',
    )
  })
})
