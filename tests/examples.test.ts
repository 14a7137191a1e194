import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { cliBuilt } from './support/cli.js'

const root = resolve(import.meta.dirname, '..')
const folder = mkdtempSync(join(tmpdir(), 'westwind-examples-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function example(name: string): string {
  const env = { ...process.env, WESTWIND_CACHE: join(folder, 'cache') }
  const args = [join('examples', name), folder]
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: root,
    env,
    encoding: 'utf8',
  })
  expect(stderr).toBe('')
  expect(status).toBe(0)
  return stdout
}

// In this order: each goes on from what the one before left.
describe.skipIf(!cliBuilt)('examples', { timeout: 120_000 }, () => {
  it('score-and-generate explains a wrong shape, stops a text, and leaves no memory behind', () => {
    const output = example('score-and-generate.mjs')
    expect(output).toContain('14 32 32 77')
    expect(output).toContain('ERR_INVALID_ARG: gemm: b must be [K=3, N], got [2, 3]')
    expect(output).toContain('(ERR_ABORTED)')
    expect(output).toMatch(/\n0 bytes left\n$/)
  })

  it('train-sft learns to name the letters that follow', () => {
    const output = example('train-sft.mjs')
    expect(Number(/step 120: loss ([\d.]+)/.exec(output)?.[1])).toBeLessThan(0.5)
    expect(output).toMatch(/after k\? l( m)?( n)?\n/)
  })

  it('align-dpo makes the preferred answer far likelier, on prompts it was not trained on', () => {
    const output = example('align-dpo.mjs')
    const count = (stage: string) => Number(new RegExp(`${stage}: (\\d+) of 60`).exec(output)?.[1])
    expect(count('sft')).toBeLessThan(35)
    expect(count('dpo')).toBeGreaterThan(45)
  })
})
