// Runs the op tests and the golden models with the set `amx`:
//   node scripts/test-amx.mjs [vitest filter ...]
// The build in build/software-tiles has tiles in C++ and the registers of AVX2, with the results that the processor's tiles
// give (native/cpu/tiles.h); so every machine with AVX2 can tell whether the code that uses them is right, not how fast it is.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const folder = join('build', 'software-tiles')
const node = (script, args, env = {}) =>
  spawnSync(process.execPath, [join(root, script), ...args], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  }).status

function stop(message) {
  console.error(`test-amx: ${message}`)
  process.exit(1)
}

// Where the system does not tell what the processor has, it is not Linux, and the set is not built.
const facts = existsSync('/proc/cpuinfo') ? readFileSync('/proc/cpuinfo', 'utf8') : ''
if (!/^flags\s*:.*\bavx2\b.*\bfma\b|^flags\s*:.*\bfma\b.*\bavx2\b/m.test(facts)) {
  console.log('test-amx: skipped: the software tiles need Linux and a processor with AVX2')
  process.exit(0)
}

const options = ['--out', folder, '--log-level', 'warn']
const defines = ['--CDWESTWIND_SOFTWARE_TILES=ON', '--CDWESTWIND_CUDA=OFF']
const parallel = ['--parallel', String(availableParallelism())]
const built = node('node_modules/cmake-js/bin/cmake-js', [
  'build',
  ...options,
  ...defines,
  ...parallel,
])
if (built !== 0) stop('the build failed')

const given = process.argv.slice(2)
const filters = given.length > 0 ? given : ['tests/ops', 'tests/model/golden']
const temporary = mkdtempSync(join(tmpdir(), 'westwind-amx-'))
const file = join(temporary, 'report.json')
const reporters = ['--reporter=default', '--reporter=json', `--outputFile=${file}`]
const status = node('node_modules/vitest/vitest.mjs', ['run', ...filters, ...reporters], {
  WESTWIND_ADDON: join(root, folder, 'Release/westwind.node'),
  WESTWIND_ISA: 'amx',
  WESTWIND_TEST_DEVICES: 'cpu',
})
const report = existsSync(file) && JSON.parse(readFileSync(file, 'utf8'))
rmSync(temporary, { recursive: true })
if (!report) stop(`${filters.join(' ')} ended without a report`)
const { numPassedTests: passed, numFailedTests: failed } = report
const skipped = report.numPendingTests + report.numTodoTests
console.log(`test-amx: ${passed} passed, ${failed} failed, ${skipped} skipped`)
process.exit(status === 0 && failed === 0 && passed > 0 ? 0 : 1)
