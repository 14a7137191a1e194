// Runs the op tests and the golden models with the set `amx`:
//   node scripts/test-amx.mjs [vitest filter ...]
// The build in build/software-tiles has tiles in C++ and the registers of AVX2, with the results that the processor's tiles
// give (native/cpu/tiles.h); so every machine with AVX2 can tell whether the code that uses them is right, not how fast it is.
import { existsSync, readFileSync } from 'node:fs'
import { buildAddon, runTests } from './tests.mjs'

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

const defines = ['WESTWIND_SOFTWARE_TILES=ON', 'WESTWIND_CUDA=OFF']
const addon = buildAddon('build/software-tiles', ...defines) ?? stop('the build failed')

const given = process.argv.slice(2)
const filters = given.length > 0 ? given : ['tests/ops', 'tests/model/golden']
const env = { WESTWIND_ADDON: addon, WESTWIND_ISA: 'amx', WESTWIND_TEST_DEVICES: 'cpu' }
const { good, passed, failed, skipped } =
  runTests(filters, env) ?? stop(`${filters.join(' ')} ended without a report`)
console.log(`test-amx: ${passed} passed, ${failed} failed, ${skipped} skipped`)
process.exit(good && failed === 0 && passed > 0 ? 0 : 1)
