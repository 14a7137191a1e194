import { execFile, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, describe, expect, it } from 'vitest'
import { native } from '../../src/native/addon.js'
import { fixturePath } from '../support/fixtures.js'

// Drivers that this machine has not, as libraries of empty functions under the names that the addon looks for.
const root = resolve(import.meta.dirname, '../..')
const addon = process.env.WESTWIND_ADDON ?? join(root, 'build/Release/westwind.node')
const compiler = process.env.CC ?? 'cc'
const able = native().cudaKernels.length > 0 && spawnSync(compiler, ['--version']).status === 0

const folders: string[] = []
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true })
})

/** A folder with a libcuda.so.1 that has the given functions beside ones that do nothing and succeed. */
function driver(functions: Record<string, string>, without: readonly string[] = []): string {
  const folder = mkdtempSync(join(tmpdir(), 'westwind-driver-'))
  folders.push(folder)
  const names = readFileSync(addon, 'latin1').matchAll(/\0(cu[A-Z]\w+)(?=\0)/g)
  const missing = [...new Set([...names].map(([, name]) => name!))].filter((name) => {
    return !without.includes(name) && !(name in functions)
  })
  const code = [
    ...missing.map((name) => `int ${name}(void) { return 0; }`),
    ...Object.entries(functions).map(([name, body]) => `int ${name}${body}`),
  ]
  writeFileSync(join(folder, 'driver.c'), code.join('\n'))
  const flags = ['-shared', '-fPIC', '-w', 'driver.c', '-o', 'libcuda.so.1']
  const { status, stderr } = spawnSync(compiler, flags, { cwd: folder, encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
  return folder
}

const version = (value: number) => ({ cuDriverGetVersion: `(int* v) { *v = ${value}; return 0; }` })

/** What `--device cuda` says with that driver. */
async function refusal(folder: string): Promise<string> {
  const args = [join(root, 'bin/westwind.js'), 'inspect', 'device', '--device', 'cuda']
  const env = { ...process.env, LD_LIBRARY_PATH: folder }
  const failed = await promisify(execFile)(process.execPath, args, { env }).then(
    ({ stdout }) => ({ stderr: `no refusal: ${stdout}` }),
    (error: { stderr: string }) => error,
  )
  return failed.stderr.trim()
}

/** A GPU of which the driver gives memory twice, for the addon's own use and for tensors; then `result`. */
function givingTwice(result: number, name: string, text: string) {
  return driver({
    ...version(13000),
    cuDeviceGetCount: '(int* n) { *n = 1; return 0; }',
    cuDeviceGetAttribute: '(int* v, int which, int d) { *v = which == 75 ? 8 : 1; return 0; }',
    cuDeviceTotalMem_v2: '(unsigned long* n, int d) { *n = 1ul << 30; return 0; }',
    cuMemAllocHost_v2:
      '(void** p, unsigned long n) { *p = __builtin_calloc(1, n); return *p ? 0 : 2; }',
    cuMemAlloc_v2: `(void** p, unsigned long n) {
      static int given;
      if (given++ >= 2) return ${result};
      *p = __builtin_malloc(n);
      return 0;
    }`,
    cuGetErrorName: `(int e, char** p) { *p = "${name}"; return 0; }`,
    cuGetErrorString: `(int e, char** p) { *p = "${text}"; return 0; }`,
  })
}

/** What a program is told that asks for more, first with ops behind it, then with none since the last wait. */
async function told(folder: string, settings: Record<string, string> = {}): Promise<string[]> {
  const file = fixturePath('cuda-broken.mjs')
  const env = { ...process.env, WESTWIND_MEMCHECK: '0', LD_LIBRARY_PATH: folder, ...settings }
  const args = [file, join(root, 'dist/index.js')]
  const { stdout } = await promisify(execFile)(process.execPath, args, { env })
  return stdout.trim().split('\n')
}

describe.runIf(able)('memory that the driver does not give:', () => {
  const asked = 'seen at allocation [bytes=134217728]'
  const broken = 'the device cannot be used any more in this process.'

  it('for want of room, is told as that', async () => {
    const [first, second] = await told(givingTwice(2, 'CUDA_ERROR_OUT_OF_MEMORY', 'out of memory'))
    expect(first).toMatch(/^ERR_OUT_OF_MEMORY cuda:0: .*: no room for 128 MiB of activations: /)
    expect(second).toBe(first)
  })

  it.each([
    [700, 'CUDA_ERROR_ILLEGAL_ADDRESS', 'illegal memory access'],
    [719, 'CUDA_ERROR_LAUNCH_FAILED', 'unspecified launch failure'],
    [214, 'CUDA_ERROR_ECC_UNCORRECTABLE', "the GPU's memory is damaged, see nvidia-smi -q -d ECC"],
  ])(
    'after a fault (%i, %s), names the fault, the ops before it, and that it is over',
    async (code, name, words) => {
      const [first, second] = await told(givingTwice(code, name, words))
      const fault = `ERR_DEVICE cuda:0: memory of the GPU: ${words} (${name}), ${asked}`
      expect(first).toBe(
        `${fault} after fill [n=4], scale [n=4]. WESTWIND_SYNC=1 shows which; ${broken}`,
      )
      expect(second).toBe(`${fault}; ${broken}`)
    },
  )

  it('for another reason, names it and leaves the device', async () => {
    const [first, second] = await told(
      givingTwice(801, 'CUDA_ERROR_NOT_SUPPORTED', 'not supported'),
    )
    expect(first).toBe(
      'ERR_DEVICE cuda:0: allocation [bytes=134217728]: memory of the GPU: not supported (CUDA_ERROR_NOT_SUPPORTED)',
    )
    expect(second).toBe(first)
  })
})

describe.runIf(able)('a driver that cannot be used is refused in one sentence:', () => {
  it('one of an older CUDA, with both versions', async () => {
    expect(await refusal(driver(version(12040)))).toBe(
      'error: device cuda:0: the NVIDIA driver is too old: it has CUDA 12.4, the kernels need 13.0. ' +
        'Install a newer driver, or use --device cpu.',
    )
  })

  it('one that lacks a function, by its name', async () => {
    expect(await refusal(driver(version(13000), ['cuLaunchKernelEx']))).toMatch(
      /^error: device cuda:0: the NVIDIA driver is too old: it has no cuLaunchKernelEx\. Install a driver for CUDA 13\.0 or later/,
    )
  })

  it('one that does not start, with its reason', async () => {
    const names = {
      cuInit: '(unsigned f) { return 999; }',
      cuGetErrorName: '(int e, char** p) { *p = "CUDA_ERROR_UNKNOWN"; return 0; }',
      cuGetErrorString: '(int e, char** p) { *p = "unknown error"; return 0; }',
    }
    expect(await refusal(driver({ ...version(13000), ...names }))).toBe(
      'error: device cuda:0: the NVIDIA driver does not start: unknown error (CUDA_ERROR_UNKNOWN). ' +
        'See whether nvidia-smi works, or use --device cpu.',
    )
  })

  it('one that sees no GPU', async () => {
    expect(await refusal(driver(version(13000)))).toBe(
      'error: device cuda:0: the NVIDIA driver sees no GPU. See nvidia-smi and CUDA_VISIBLE_DEVICES, ' +
        'or use --device cpu.',
    )
  })

  it('a GPU that the kernels do not run on, by name and architecture', async () => {
    const turing = {
      cuDeviceGetCount: '(int* n) { *n = 1; return 0; }',
      cuDeviceGetName: '(char* s, int n, int d) { __builtin_strcpy(s, "Old GPU"); return 0; }',
      cuDeviceGetAttribute: '(int* v, int which, int d) { *v = which == 75 ? 7 : 5; return 0; }',
    }
    expect(await refusal(driver({ ...version(13000), ...turing }))).toBe(
      'error: device cuda:0: no kernels for Old GPU (sm_75): westwind needs compute capability 8.0 or later. ' +
        'Use --device cpu.',
    )
  })
})
