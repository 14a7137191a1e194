import { spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const root = resolve(import.meta.dirname, '../..')
const copied = [
  ...['scripts/new-op.mjs', 'native', 'src', 'tests/support', 'package.json'],
  ...['tsconfig.json', '.clang-format'],
]
const written = [
  ...['native/include/ops/leaky_relu.h', 'native/cpu/ops/leaky_relu.cc', 'src/ops/leaky-relu.ts'],
  ...['native/cuda/kernels/leaky_relu.cu', 'native/cuda/launch/leaky_relu.cc'],
  ...['tests/reference/leaky-relu.ts', 'tests/ops/leaky-relu.test.ts'],
  'docs/kernels/leaky_relu.md',
]
const lists = [
  ...['native/include/backend.h', 'native/binding/ops.cc'],
  ...['src/native/addon-types.ts', 'src/ops/index.ts', 'tests/support/right-calls.ts'],
]

let copy: string
const read = (file: string) => readFileSync(join(copy, file), 'utf8')
const run = (command: string, ...args: string[]) => {
  const done = spawnSync(command, args, { cwd: copy, encoding: 'utf8' })
  return { status: done.status, output: `${done.stdout}${done.stderr}` }
}
const newOp = (...args: string[]) => run(process.execPath, 'scripts/new-op.mjs', ...args)

beforeAll(() => {
  copy = mkdtempSync(join(tmpdir(), 'westwind-new-op-'))
  for (const path of copied) cpSync(join(root, path), join(copy, path), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
})
afterAll(() => rmSync(copy, { recursive: true, force: true }))

describe('new-op', () => {
  it('refuses a name that is no snake_case word, and touches nothing', () => {
    for (const names of [[], ['LeakyRelu'], ['leaky-relu'], ['../x'], ['a', 'b']]) {
      const { status, output } = newOp(...names)
      expect(status).toBe(1)
      expect(output).toContain('snake_case')
    }
    for (const file of lists) expect(read(file)).toBe(readFileSync(join(root, file), 'utf8'))
  })

  it('writes the files of an op, names it in every list, and says what to fill in', () => {
    const { status, output } = newOp('leaky_relu')
    expect(output).toContain('npx vitest run tests/ops/leaky-relu.test.ts')
    expect(status).toBe(0)
    for (const file of written) expect(read(file)).toMatch(/leaky.?relu/i)
    for (const file of lists) expect(read(file)).toMatch(/leaky.?relu/i)
    for (const file of [...written, ...lists]) expect(output).toContain(file)
  })

  it('refuses an op that is there already', () => {
    const before = read('native/include/backend.h')
    expect(newOp('leaky_relu').output).toContain('there already')
    expect(read('native/include/backend.h')).toBe(before)
  })

  it('leaves TypeScript that type-checks', { timeout: 180_000 }, () => {
    const tsc = join(root, 'node_modules/typescript/bin/tsc')
    expect(run(process.execPath, tsc, '--noEmit', '-p', 'tsconfig.json')).toEqual({
      status: 0,
      output: '',
    })
  })

  it('leaves C++ that compiles', { timeout: 180_000 }, () => {
    const folders = ['include', 'cpu', 'cuda', 'runtime', 'binding']
    const include = folders.map((folder) => `-Inative/${folder}`)
    const napi = ['node-api-headers/include', 'node-addon-api'].map((path) => {
      return `-Inode_modules/${path}`
    })
    const defines = ['-DWESTWIND_ISA=portable', '-DWESTWIND_ISA_portable', '-DNAPI_VERSION=8']
    const flags = ['-std=c++20', '-fsyntax-only', '-DNODE_ADDON_API_CPP_EXCEPTIONS_ALL', ...defines]
    for (const file of ['native/cpu/ops/leaky_relu.cc', 'native/binding/ops.cc']) {
      const { status, output } = run(process.env.CXX ?? 'c++', ...flags, ...include, ...napi, file)
      expect(output).not.toContain('error')
      expect(status).toBe(0)
    }
  })

  const nvcc = spawnSync('nvcc', ['--version']).status === 0
  it.skipIf(!nvcc)('leaves a kernel that nvcc compiles', { timeout: 180_000 }, () => {
    const flags = ['-ptx', '-arch=compute_80', '-std=c++20', '-Inative/include', '-Inative/cuda']
    const { status, output } = run(
      'nvcc',
      ...[...flags, 'native/cuda/kernels/leaky_relu.cu', '-o', 'leaky_relu.ptx'],
    )
    expect(output).toBe('')
    expect(status).toBe(0)
  })
})
