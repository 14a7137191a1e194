// Plants faults into copies of the CUDA kernels and expects the tests to see each one, on the PTX simulator:
//   node scripts/plant-faults.mjs [--simulator DIR] [part of a fault's name ...]
// A test build in build-faults/ takes its kernels from build-faults/kernels; its ops are those of build/, which must be
// built before. The same tests must pass without the fault. Ends with a table of what was planted and how it was seen.
import { spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { faults, illegalAccess } from './planted-faults.mjs'
import { buildSimulator, root, simulated, simulatorIn } from './simulator.mjs'

const given = process.argv.slice(2)
const simulator = simulatorIn(given)
const chosen = faults.filter(
  ({ name }) => given.length === 0 || given.some((g) => name.includes(g)),
)

function stop(message) {
  console.error(`plant-faults: ${message}`)
  process.exit(1)
}

if (!existsSync(join(simulator, 'Makefile'))) {
  console.log(`plant-faults: skipped: no simulator in ${simulator}`)
  process.exit(0)
}
const library = buildSimulator(simulator) ?? stop(`${simulator} does not build`)
const kernels = join(root, 'native/cuda/kernels')
const copy = join(root, 'build-faults/kernels')
const addon = join(root, 'build-faults/Release/westwind.node')

// Writes only what differs, so that only that is compiled again.
function copyKernels() {
  mkdirSync(join(copy, 'common'), { recursive: true })
  for (const name of readdirSync(kernels, { recursive: true })) {
    if (!/\.cuh?$/.test(name)) continue
    const text = readFileSync(join(kernels, name), 'utf8')
    const to = join(copy, name)
    if (!existsSync(to) || readFileSync(to, 'utf8') !== text) writeFileSync(to, text)
  }
}

function build() {
  const { status } = spawnSync(
    process.execPath,
    [
      join(root, 'node_modules/cmake-js/bin/cmake-js'),
      ...['build', '--out', 'build-faults', '--log-level', 'error'],
      ...['--parallel', String(availableParallelism())],
      ...['--CDWESTWIND_CUDA=PTX', `--CDWESTWIND_KERNELS=${copy}`],
    ],
    { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] },
  )
  if (status !== 0) stop('the test build failed')
}

function replaced(text, from, to, file) {
  const parts = text.split(from)
  if (parts.length !== 2)
    stop(
      `${file} has ${parts.length - 1} times, not once:\n${from}\nSee scripts/planted-faults.mjs.`,
    )
  return parts.join(to)
}

// The kernel file alone gets the fault: a header is copied under another name, not .cuh on which every kernel depends in
// the build, that only this file includes.
function plant({ name, kernel, header, from, to }) {
  const source = readFileSync(join(kernels, kernel), 'utf8')
  let text
  if (header) {
    const faulty = header.replace('.cuh', `_${basename(kernel, '.cu')}.inc`)
    const original = readFileSync(join(kernels, header), 'utf8')
    writeFileSync(join(copy, faulty), replaced(original, from, to, header))
    text = replaced(source, `#include "${header}"`, `#include "${faulty}"`, kernel)
  } else {
    text = replaced(source, from, to, kernel)
  }
  writeFileSync(join(copy, kernel), `// ${name}\n${text}`)
}

const environment = (arch) => ({
  ...process.env,
  ...simulated(library, arch),
  WESTWIND_ADDON: addon,
  WESTWIND_TEST_DEVICES: 'cuda',
})

const folder = mkdtempSync(join(tmpdir(), 'westwind-faults-'))

// The first line, without error numbers, addresses, and what stands in which line.
const brief = (message) =>
  message
    .split('\n')[0]
    .replace(/^(error: CUDA_ERROR_\w+|AssertionError): /, '')
    .replace(' // Object.is equality', '')
    .replace(/(: \d+ bytes)? at (shared address )?0x.*$|(;|, PTX line).*$/, '')
    .replace(/ 0x[0-9a-f]+/, '')

// Runs the tests of a fault; `failed` and `how`: the simulator's first words, or what the test said.
function test({ arch, test, title }) {
  const file = join(folder, 'report.json')
  rmSync(file, { force: true })
  const vitest = join(root, 'node_modules/vitest/vitest.mjs')
  const pattern = title.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
  const { stdout, stderr } = spawnSync(
    process.execPath,
    [vitest, 'run', test, '-t', pattern, '--reporter=json', `--outputFile=${file}`],
    { cwd: root, encoding: 'utf8', env: environment(arch) },
  )
  if (!existsSync(file)) return { failed: true, how: 'the test process ended' }
  const report = JSON.parse(readFileSync(file, 'utf8'))
  const failures = report.testResults.flatMap(({ assertionResults }) =>
    assertionResults.flatMap(({ failureMessages }) => failureMessages ?? []),
  )
  const said = /^ptxsim: (.*)$/m.exec(`${stdout}\n${stderr}`)?.[1]
  return {
    ran: report.numPassedTests + report.numFailedTests > 0,
    failed: failures.length > 0,
    how: said ? `simulator: ${brief(said)}` : `test: ${brief(failures[0] ?? '')}`,
  }
}

const started = Date.now()
const elapsed = () => `${Math.round((Date.now() - started) / 1000)} s`

copyKernels()
build()
console.log(`plant-faults: test build without faults after ${elapsed()}`)
for (const fault of chosen) {
  const { ran, failed, how } = test(fault)
  if (failed || !ran)
    stop(`${fault.test} "${fault.title}" without a fault: ${ran ? how : 'no test'}`)
}
console.log(`plant-faults: their tests pass after ${elapsed()}`)

const rows = []
let missed = 0
let badlyTold = 0
for (const round of [...new Set(chosen.map((fault) => fault.round))].sort()) {
  copyKernels()
  const now = chosen.filter((fault) => fault.round === round)
  for (const fault of now) plant(fault)
  build()
  console.log(`plant-faults: build with ${now.length} faults after ${elapsed()}`)
  for (const fault of now) {
    const { failed, how } = test(fault)
    if (!failed) missed++
    rows.push([fault.name, fault.header ?? fault.kernel, fault, failed ? how : 'NOT SEEN'])
    console.log(`plant-faults: ${fault.name}: ${failed ? how : 'NOT SEEN'}`)
    if (fault.name === illegalAccess) tell(fault)
  }
}
rmSync(folder, { recursive: true })

// How an illegal access is told: late, by the names of the ops before it, and by WESTWIND_SYNC=1 at once; the process
// goes on in both.
function tell({ arch }) {
  const program = `
    import { device, fromArray, ops } from '${join(root, 'dist/index.js')}'
    const on = device('cuda')
    const x = fromArray(new Float32Array(33), [33], 'f32', on)
    const y = fromArray(new Float32Array(32), [32], 'f32', on)
    ops.fill(x, 1)
    for (const tensor of [x, y]) await tensor.read().catch((error) => console.log(error.message))
    const cpu = fromArray([1, 2], [2], 'f32', device('cpu'))
    console.log('alive', ...(await cpu.read()))`
  for (const [sync, expected] of [
    [
      '0',
      /illegal memory access.*, seen at read after .*fill \[n=33\]\. WESTWIND_SYNC=1 shows which/,
    ],
    ['1', /^cuda:0: fill \[n=33\]: .*illegal memory access/],
  ]) {
    const { stdout, stderr, status } = spawnSync(
      process.execPath,
      ['--input-type=module', '-e', program],
      {
        cwd: root,
        encoding: 'utf8',
        env: { ...environment(arch), PTXSIM_ASYNC_ERRORS: '1', WESTWIND_SYNC: sync },
      },
    )
    const told = stdout.trim().split('\n')
    console.log(`plant-faults: WESTWIND_SYNC=${sync}: ${told.join(' | ')}`)
    if (status === 0 && expected.test(told[0]) && told.at(-1) === 'alive 1 2') continue
    badlyTold++
    console.error(`plant-faults: expected ${expected}, then life; got exit ${status}, ${stderr}`)
  }
}

console.log(`\n| fault | in | seen by | how |\n| --- | --- | --- | --- |`)
for (const [name, file, { test, title, arch }, how] of rows)
  console.log(`| ${name} | \`${file}\` | ${basename(test)}, “${title}”, sm_${arch} | ${how} |`)
console.log(`\nplant-faults: ${rows.length - missed} of ${rows.length} seen, ${elapsed()}`)
process.exit(missed + badlyTold > 0 ? 1 : 0)
