import { existsSync } from 'node:fs'
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { cliBuilt } from '../support/cli.js'
import { Pipeline, runAsProcess, sha, workFolder } from './support.js'

let root: string
beforeAll(async () => {
  root = await workFolder()
})
afterAll(() => rm(root, { recursive: true, force: true }))

it.skipIf(!cliBuilt)(
  'killed in every stage, and once in between, it ends with the weights of a run never stopped',
  { timeout: 120_000 },
  async () => {
    const steps = { max_steps: 40, save_steps: 1 }
    const make = async (name: string) => {
      const p = await Pipeline.create(root, name)
      p.sft = { ...p.sft, ...steps }
      p.dpo = { ...p.dpo, ...steps }
      await p.write()
      return p
    }
    const whole = await make('whole')
    expect((await runAsProcess(whole)).code).toBe(0)

    const killed = await make('killed')
    const moments = [
      killed.has('pipeline.json'),
      killed.has('sft/checkpoint-5'),
      killed.has('sft/checkpoint-20'),
      killed.has('dpo'),
      killed.has('dpo/checkpoint-9'),
    ]
    let hits = 0
    for (const moment of moments) hits += (await runAsProcess(killed, moment)).code === null ? 1 : 0
    const interrupted = await runAsProcess(killed, killed.has('dpo/checkpoint-25'), 'SIGINT')
    expect(interrupted.code).toBe(130)
    expect(interrupted.stderr).toContain('[2/2] dpo: stopped; the same command goes on from there')
    const last = await runAsProcess(killed)
    expect(last.code).toBe(0)
    expect(last.stderr).toContain('[1/2] sft: skipped, ')
    expect(last.stderr).toContain('[2/2] dpo: goes on, it was stopped before its end')
    expect(hits).toBe(moments.length)

    for (const file of ['sft/model.safetensors', 'dpo/model.safetensors']) {
      expect(await sha(killed.out(file))).toBe(await sha(whole.out(file)))
    }
    const state = await readFile(join(killed.out(), 'pipeline.json'), 'utf8')
    expect(state.match(/"status": "done"/g)).toHaveLength(2)
    expect(existsSync(killed.out('previous'))).toBe(false)
  },
)
