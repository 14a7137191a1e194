// Installs what package-lock.json asks for, builds the addon with CMake, compiles TypeScript to dist/.
// Each part is skipped when it is up to date, so calling it before every command costs little.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const windows = process.platform === 'win32'

function run(what, command, args) {
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: 'inherit',
    shell: windows,
  })
  if (status === 0) return
  console.error(`build: ${what} failed${error ? `: ${error.message}` : ` (exit ${status})`}`)
  process.exit(1)
}

// node_modules is what the lock file asks for when the hash beside it is the lock file's.
const lock = createHash('sha256')
  .update(readFileSync(join(root, 'package-lock.json')))
  .digest('hex')
const installed = join(root, 'node_modules/.westwind-lock')
if (!existsSync(installed) || readFileSync(installed, 'utf8') !== lock) {
  run('npm ci', 'npm', ['ci', '--no-audit', '--no-fund'])
  writeFileSync(installed, lock)
}
const parallel = String(availableParallelism())
const cuda = (process.env.WESTWIND_CUDA ?? 'auto').toUpperCase() // see native/cuda/kernels.cmake
run('the native addon (needs CMake and a C++20 compiler)', process.execPath, [
  join(root, 'node_modules/cmake-js/bin/cmake-js'),
  'build',
  '--parallel',
  parallel,
  `--CDWESTWIND_CUDA=${cuda}`,
  '--log-level',
  'warn',
])
run('TypeScript', process.execPath, [
  join(root, 'node_modules/typescript/bin/tsc'),
  '-p',
  'tsconfig.build.json',
])
