import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { cudaDevices } from '../../src/device/device.js'
import { cliBuilt, westwind } from '../support/cli.js'
import { fixturePath } from '../support/fixtures.js'

const dir = mkdtempSync(join(tmpdir(), 'westwind-bench-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const small = '--device cuda --model tiny --tokens 32 --repetitions 1'.split(' ')
// Peaks of a GPU that no list has, so that none is measured.
const env = { WESTWIND_PEAK_TFLOPS: '1', WESTWIND_PEAK_GBS: '1' }
const hasGpu = cudaDevices().devices.length > 0

/** Whether a library that stands for cuBLASLt lies in `dir` now. */
function buildLibrary(): boolean {
  const out = join(dir, 'libcublasLt.so.12')
  const args = ['-shared', '-fPIC', '-O1', fixturePath('cublaslt.c'), '-o', out, '-ldl']
  return spawnSync('cc', args).status === 0
}

function rows(csv: string): { provider: string; mode: string; metric: string; y: number }[] {
  const [, ...lines] = csv.trimEnd().split('\n')
  return lines.map((line) => {
    const cells = line.split(',')
    return { provider: cells[1]!, mode: cells[2]!, metric: cells[3]!, y: Number(cells[8]) }
  })
}

describe.runIf(hasGpu && cliBuilt)('westwind bench on a GPU', () => {
  it.each(['attention', 'linear_logps', 'rms_norm', 'adamw', 'copy'])(
    '%s: each case is right, with its share of the roofline',
    async (op) => {
      const { code, stdout, stderr } = await westwind(['bench', op, '--json', ...small], { env })
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      for (const line of stdout.trimEnd().split('\n')) {
        const { kernel, ms, gflops, gbs, ofPeak, driver, processor } = JSON.parse(line)
        expect(kernel).toBe(op)
        expect(ms).toBeGreaterThan(0)
        expect(ofPeak).toBeCloseTo(Math.max(gflops / 1000, gbs), 6)
        expect(driver).toMatch(/^CUDA \d+\.\d$/)
        expect(processor).toBe(cudaDevices().devices[0]!.name)
      }
    },
  )

  it('gemm: one line says where there is no cuBLASLt; where there is, it stands beside ours', async () => {
    const { code, stdout, stderr } = await westwind(['bench', 'gemm', '--csv', ...small], { env })
    expect(code).toBe(0)
    const found = rows(stdout).some(({ provider }) => provider === 'cublasLt')
    expect(stderr).toMatch(found ? /^$/ : /^gemm without cuBLASLt beside it: .+\n$/)
    expect(rows(stdout).filter(({ provider }) => provider === 'westwind')).toHaveLength(12 * 4)
  })

  it.skipIf(!hasGpu || !buildLibrary()).each(['f32', 'bf16'])(
    'gemm in %s: cuBLASLt is called so that every product is right, transposed and added',
    async (dtype) => {
      const path = [dir, process.env.LD_LIBRARY_PATH].filter(Boolean).join(':')
      const args = ['bench', 'gemm', '--json', '--dtype', dtype, ...small]
      const result = await westwind(args, { env: { ...env, LD_LIBRARY_PATH: path } })
      expect({ ...result, stdout: '' }).toEqual({ code: 0, stdout: '', stderr: '' })
      const results = result.stdout.trimEnd().split('\n')
      const peer = results.map((line) => JSON.parse(line)).filter((r) => r.provider === 'cublasLt')
      expect(peer).toHaveLength(12)
    },
  )
})
