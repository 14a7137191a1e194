// Builds the addon with the address and undefined-behaviour sanitizers into build-sanitize/ and runs tests on it:
//   node scripts/sanitize.mjs [vitest filter ...]      without a filter: tests/ops
// Each tensor then has memory of its own, so that one element too far is seen.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const node = (script, args, env = {}) =>
  spawnSync(process.execPath, [join(root, script), ...args], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  }).status

function stop(message) {
  console.error(`sanitize: ${message}`)
  process.exit(1)
}

// The runtime must be there before Node starts. GCC has it as a library of that name; a Clang build would need its own.
const compiler = process.env.CXX ?? 'c++'
const { stdout } = spawnSync(compiler, ['-print-file-name=libasan.so'], { encoding: 'utf8' })
const library = (stdout ?? '').trim()
if (!existsSync(library)) stop(`${compiler} has no libasan.so; set CXX to a GCC that has it`)

const options = ['--out', 'build-sanitize', '--CDWESTWIND_SANITIZE=ON', '--log-level', 'warn']
const parallel = ['--parallel', String(availableParallelism())]
if (node('node_modules/cmake-js/bin/cmake-js', ['build', ...options, ...parallel]) !== 0)
  stop('the build failed')

const given = process.argv.slice(2)
const filters = given.length > 0 ? given : ['tests/ops']
const status = node('node_modules/vitest/vitest.mjs', ['run', ...filters], {
  LD_PRELOAD: library,
  ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=1', // leaks: Node keeps memory until it exits
  UBSAN_OPTIONS: 'print_stacktrace=1',
  WESTWIND_ADDON: join(root, 'build-sanitize/Release/westwind.node'),
})
if (status !== 0)
  stop(`${filters.join(' ')} failed under the address and undefined-behaviour sanitizers`)
console.log(
  `sanitize: ${filters.join(' ')} passed under the address and undefined-behaviour sanitizers`,
)
