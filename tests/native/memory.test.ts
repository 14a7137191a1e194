import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = resolve(import.meta.dirname, '../..')
const dist = join(root, 'dist/index.js')
const canLimit = spawnSync('prlimit', ['--version']).status === 0

/** Runs a program that has only `megabytes` more of memory from the call of `limit()` on. */
function limited(megabytes: number, program: string): string {
  const code = `
    import { execFileSync } from 'node:child_process'
    import { readFileSync } from 'node:fs'
    import { empty, fromArray, openCpu, ops } from ${JSON.stringify(dist)}
    function limit() {
      const used = Number(/VmSize:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1])
      const bytes = used * 1024 + ${megabytes} * 2 ** 20
      execFileSync('prlimit', ['--pid', String(process.pid), '--as=' + bytes])
    }
    const failure = (error) => console.log(error.code, error.message)
    ${program}`
  const { stdout, stderr, signal } = spawnSync(
    process.execPath,
    ['--input-type=module', '--eval', code],
    { encoding: 'utf8', env: { ...process.env, WESTWIND_THREADS: '2' } },
  )
  expect(stderr).toBe('')
  expect(signal).toBeNull()
  return stdout
}

describe.skipIf(!canLimit || !existsSync(dist))('where the system has no memory', () => {
  it('an op that gets no working buffer is an error with its size, and the device goes on', () => {
    const output = limited(
      160,
      `const cpu = openCpu()
      const x = fromArray([3], [1, 1], 'bf16', cpu)
      const index = fromArray([1], [1], 'i32', cpu)
      await cpu.synchronize()
      limit()
      const rows = 40_000_000 // 80 MB of output, 320 MB to sort the rows in
      const out = ops.scatterAddRows(x, index, rows)
      await cpu.synchronize().catch(failure)
      console.log((await ops.scatterAddRows(x, index, 2).read()).join())`,
    )
    expect(output).toMatch(
      /^ERR_DEVICE cpu: scatter_add_rows \[N=1, R=40000000, C=1\]: no memory for a working buffer of 320\d{6} bytes\n0,3\n$/,
    )
  })

  it('so it is where its threads get none', () => {
    const output = limited(
      100,
      `const cpu = openCpu()
      const logits = empty([2, 20_000_000], 'bf16', cpu)
      ops.fill(logits, 0)
      const uniform = fromArray([0.5, 0.5], [2], 'f32', cpu)
      await cpu.synchronize()
      limit()
      ops.sample(logits, uniform, { temperature: 1, topK: 0, topP: 1 })
      await cpu.synchronize().catch(failure)
      console.log((await ops.sample(logits, uniform, { temperature: 0, topK: 0, topP: 1 }).read()).join())`,
    )
    expect(output).toMatch(
      /^ERR_DEVICE cpu: sample \[.*\]: no memory for a working buffer of 240\d{6} bytes\n0,0\n$/,
    )
  })

  it.each(['write', 'read'])('%s without room for its copy is an error with its size', (method) => {
    const output = limited(
      100,
      `const cpu = openCpu()
      const values = new Float32Array(50_000_000)
      const x = empty([values.length], 'f32', cpu)
      ops.fill(x, 1)
      await cpu.synchronize()
      limit()
      try {
        await x.${method}(values)
      } catch (error) {
        failure(error)
      }
      console.log((await x.rows(0, 2).read()).join())`,
    )
    expect(output).toMatch(
      /^ERR_OUT_OF_MEMORY .*cpu: no memory for a copy of 200000000 bytes\n1,1\n$/,
    )
  })
})
