// Runs the tests of the CUDA backend: on the machine's GPU, or on a PTX simulator where there is none.
//   node scripts/test-cuda.mjs [--simulator DIR] [--arch 80,90] [vitest arguments ...]
// DIR has the sources of a libcuda.so.1 that executes PTX on the CPU, with checks of memory, initialisation and races; it is
// built into build/simulator. Without arguments for vitest: every op, the driver layer, runs beside the CPU's, golden models, the engine,
// and golden runs, of which a simulator does the first steps.
// Ends with the counts of all passes.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { buildSimulator, root, simulated, simulatorIn, take } from './simulator.mjs'
import { runTests } from './tests.mjs'

const given = process.argv.slice(2)
const simulator = simulatorIn(given)
const archs = take(given, '--arch', '80,90').split(',')
const all = [
  'tests/ops',
  'tests/cuda',
  'tests/native/recording',
  'tests/model/golden',
  'tests/model/engine',
]
const runs = ['tests/train/golden-runs']

function stop(message) {
  console.error(`test-cuda: ${message}`)
  process.exit(1)
}

function onSimulator() {
  const library = buildSimulator(simulator)
  if (!library) stop(`${simulator} does not build`)
  return archs.flatMap((arch) => {
    const name = `simulated sm_${arch}`
    const env = simulated(library, arch)
    if (given.length > 0) return { name, env }
    // The ops of the runs have been looked at for races by then; looking takes more than half of the time.
    const runEnv = { ...env, PTXSIM_RACECHECK: '0' }
    return [
      { name, env, filters: all },
      { name: `${name}, races unchecked`, env: runEnv, filters: runs },
    ]
  })
}

const facts = spawnSync(process.execPath, ['bin/westwind.js', 'inspect', 'device', '--json'], {
  cwd: root,
  encoding: 'utf8',
})
if (facts.status !== 0) stop(`westwind inspect device failed: ${facts.stderr}`)
const gpus = JSON.parse(facts.stdout).cuda
if (gpus.length === 0 && !existsSync(join(simulator, 'Makefile'))) {
  console.log(`test-cuda: skipped: no GPU here, and no simulator in ${simulator}`)
  process.exit(0)
}
const gpu = gpus[0] && { name: gpus[0].name, env: {}, filters: [...all, ...runs] }
const passes = gpu ? [gpu] : onSimulator()

const total = { passed: 0, failed: 0, skipped: 0 }
let good = true
for (const pass of passes) {
  const { name, env } = pass
  const filters = given.length > 0 ? given : pass.filters
  console.log(`test-cuda: ${filters.join(' ')} on ${name}`)
  const args = [...filters, '--testTimeout=900000'] // simulated minutes are long
  const report = runTests(args, { ...env, WESTWIND_TEST_DEVICES: 'cuda' }, 'dot')
  good &&= report?.good === true
  for (const key of Object.keys(total)) total[key] += report?.[key] ?? 0
}
console.log(`test-cuda: ${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
process.exit(good && total.failed === 0 && total.passed > 0 ? 0 : 1)
