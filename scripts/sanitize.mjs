// Builds the addon with the address and undefined-behaviour sanitizers into build-sanitize/ and runs tests on it:
//   node scripts/sanitize.mjs [vitest filter ...]      without a filter: tests/ops
// Each tensor then has memory of its own, so that one element too far is seen.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { buildAddon, runTests } from './tests.mjs'

function stop(message) {
  console.error(`sanitize: ${message}`)
  process.exit(1)
}

// The runtime must be there before Node starts. GCC has it as a library of that name; a Clang build would need its own.
const compiler = process.env.CXX ?? 'c++'
const { stdout } = spawnSync(compiler, ['-print-file-name=libasan.so'], { encoding: 'utf8' })
const library = (stdout ?? '').trim()
if (!existsSync(library)) stop(`${compiler} has no libasan.so; set CXX to a GCC that has it`)

const addon = buildAddon('build-sanitize', 'WESTWIND_SANITIZE=ON') ?? stop('the build failed')

const given = process.argv.slice(2)
const filters = given.length > 0 ? given : ['tests/ops']
const result = runTests(filters, {
  LD_PRELOAD: library,
  ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=1', // leaks: Node keeps memory until it exits
  UBSAN_OPTIONS: 'print_stacktrace=1',
  WESTWIND_ADDON: addon,
})
if (!result?.good)
  stop(`${filters.join(' ')} failed under the address and undefined-behaviour sanitizers`)
console.log(
  `sanitize: ${filters.join(' ')} passed under the address and undefined-behaviour sanitizers`,
)
