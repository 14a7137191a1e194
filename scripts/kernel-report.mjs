// What can be said of the CUDA kernels' speed without a GPU, written into docs/kernels/: registers and occupancy by ptxas,
// counts by a PTX simulator, times predicted from both (docs/kernels/prediction.md), Triton's kernels beside ours.
//   node scripts/kernel-report.mjs [--simulator DIR] [--peers DIR] [--cuda DIR] [--runs FILE] [--write]
// DIR of --simulator has a libcuda.so.1, or the sources of one, which are built into build/simulator. That of --peers has
// Triton's PTX and a driver in Python (benchmarks/simulated_peers.py), that of --cuda the PTX of our kernels. FILE keeps what the
// simulator counted; where it exists it is read instead. Without --write the pages go to the terminal.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { casesOf } from './kernel-report/cases.mjs'
import {
  countsOf,
  gpus,
  parsePtxas,
  place,
  predictCase,
  sum,
  wgmmaBytesPerFlop,
} from './kernel-report/model.mjs'
import { pageOf, summary } from './kernel-report/pages.mjs'
import { peerCases } from './kernel-report/peers.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const given = process.argv.slice(2)
const shared = process.env.WESTWIND_SHARED ?? join(root, '../shared')
const addon = process.env.WESTWIND_ADDON ?? join(root, 'build/Release/westwind.node')

function take(name, fallback) {
  const at = given.indexOf(name)
  return at < 0 ? fallback : given.splice(at, 2)[1]
}

function stop(message) {
  console.error(`kernel-report: ${message}`)
  process.exit(1)
}

const simulator = resolve(take('--simulator', join(shared, 'tools/ptxsim')))
const peers = resolve(take('--peers', join(shared, 'tools/ptxsim/validate')))
const cuda = resolve(take('--cuda', join(dirname(addon), '../cuda')))
const kept = take('--runs', undefined)
const write = given.includes('--write')
const other = given.find((word) => word !== '--write')
if (other) stop(`unknown argument ${other}`)

/** What a command prints; stdin is `input`. */
function output(command, args, { env = {}, input = '' } = {}) {
  return new Promise((done, failed) => {
    const child = spawn(command, args, { cwd: root, env: { ...process.env, ...env } })
    const out = []
    const err = []
    child.stdout.on('data', (data) => out.push(data))
    child.stderr.on('data', (data) => err.push(data))
    child.on('error', failed)
    child.on('close', (status) => {
      const [text, errors] = [out, err].map((parts) => Buffer.concat(parts).toString())
      if (status === 0) done({ text, errors })
      else failed(new Error(`${command} ${args.slice(0, 3).join(' ')} failed:\n${errors}`))
    })
    child.stdin.end(input)
  })
}

const lines = (text) => text.split('\n').filter(Boolean)
const json = (text) => lines(text).map((line) => JSON.parse(line))

function simulatorFolder() {
  if (existsSync(join(simulator, 'libcuda.so.1'))) return simulator
  if (!existsSync(join(simulator, 'Makefile')))
    stop(`no simulator in ${simulator}; name one with --simulator`)
  const out = join(root, 'build/simulator')
  const args = ['-s', '-C', simulator, `-j${availableParallelism()}`, `BUILD=${out}`]
  if (spawnSync('make', args, { stdio: 'inherit' }).status !== 0)
    stop(`${simulator} does not build`)
  return out
}

/** All that ptxas says of the kernels of every file of native/cuda/kernels, by architecture. */
async function assemble() {
  const names = readdirSync(join(root, 'native/cuda/kernels'))
    .filter((name) => name.endsWith('.cu'))
    .map((name) => name.slice(0, -3))
  const jobs = names.flatMap((name) =>
    (name.endsWith('_sm90') ? [90] : [80, 90]).map((arch) => ({ name, arch })),
  )
  const found = { 80: [], 90: [] }
  const work = async () => {
    for (let job = jobs.pop(); job; job = jobs.pop()) {
      const file = join(cuda, `${job.name}.ptx`)
      if (!existsSync(file))
        stop(`${file} is missing; build the addon with CUDA, or name its folder with --cuda`)
      const args = ['-v', `-arch=${gpus[job.arch].arch}`, file, '-o', '/dev/null']
      const { text, errors } = await output('ptxas', args)
      for (const one of parsePtxas(text + errors)) found[job.arch].push({ ...one, file: job.name })
    }
  }
  await Promise.all([work(), work()])
  return found
}

/** Text of each kernel's PTX. */
function entries() {
  const text = {}
  for (const name of readdirSync(cuda).filter((file) => file.endsWith('_sm90.ptx'))) {
    const [, ...parts] = readFileSync(join(cuda, name), 'utf8').split('.entry ')
    for (const part of parts) text[/^\w+/.exec(part)[0]] = part
  }
  return text
}

/** Runs our cases and the peers' on one architecture. */
async function simulate(arch, folder) {
  const scratch = mkdtempSync(join(tmpdir(), 'westwind-report-'))
  try {
    const [ours, theirs] = ['ours', 'theirs'].map((name) => join(scratch, name))
    const env = (stats) => ({
      LD_LIBRARY_PATH: [folder, process.env.LD_LIBRARY_PATH].filter(Boolean).join(':'),
      PTXSIM_LIBCUDA: join(folder, 'libcuda.so.1'),
      PTXSIM_ARCH: String(arch),
      PTXSIM_STATS: stats,
    })
    const script = join(root, 'scripts/kernel-report/simulate.mjs')
    const runs = json(
      (await output(process.execPath, [script, arch, ours], { env: env(ours) })).text,
    )
    if (!existsSync(join(peers, 'ptx/index.json'))) {
      console.log(`kernel-report: skipped Triton's kernels: there are none in ${peers}`)
      return { runs, peers: null }
    }
    const launches = peerCases(arch).flatMap(({ triton }) => triton)
    const python = join(root, 'benchmarks/simulated_peers.py')
    await output('python3', [python, peers, arch], {
      env: env(theirs),
      input: JSON.stringify(launches),
    })
    return { runs, peers: json(readFileSync(theirs, 'utf8')) }
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

/** The launches of a run as counts by kernel. */
function byKernel(launches) {
  const found = new Map()
  for (const launch of launches) {
    found.set(launch.kernel, [
      ...(found.get(launch.kernel) ?? []),
      { ...countsOf(launch), launches: 1 },
    ])
  }
  return new Map([...found].map(([kernel, counts]) => [kernel, sum(counts)]))
}

async function load(folder) {
  if (kept && existsSync(kept)) return JSON.parse(readFileSync(kept, 'utf8'))
  const simulated = { 80: await simulate(80, folder), 90: await simulate(90, folder) }
  if (kept) writeFileSync(kept, JSON.stringify(simulated))
  return simulated
}

if (!existsSync(join(root, 'dist/index.js')))
  stop('dist/ is missing: npx tsc -p tsconfig.build.json')
const started = Date.now()
const { createRequire } = await import('node:module')
const { gemmConfig } = createRequire(import.meta.url)(addon)
if (!gemmConfig) stop(`${addon} has no CUDA kernels`)
const simulated = await load(simulatorFolder())
const assembled = await assemble()
const ptx = entries()

const results = []
const comparisons = []
for (const arch of [80, 90]) {
  const gpu = gpus[arch]
  const choose = (shape) => gemmConfig(shape, arch, gpu.sms, gpu.sharedBytes - 1024)
  const { runs, peers: theirs } = simulated[arch]
  const runsOf = ({ title }, part) => runs.filter((run) => run.title === title && run.part === part)
  for (const one of casesOf(arch, choose)) {
    const parts = one.parts.map((part, at) => {
      const launches = runsOf(one, at).map((run) => run.launches)
      for (const { kernel } of launches.flat()) {
        if (part.kernel && kernel !== part.kernel)
          stop(`${one.title}: ran ${kernel}, not ${part.kernel}`)
      }
      return { part, samples: launches.map(byKernel), blocks: launches.flat() }
    })
    const wgmma = (kernel) => (ptx[kernel] ? wgmmaBytesPerFlop(ptx[kernel]) : 0)
    const launched = parts.flatMap(({ blocks }) => blocks)
    results.push({ ...one, gpu, launched, ...predictCase(gpu, parts, wgmma) })
  }
  const lines = [...(theirs ?? [])]
  for (const one of theirs ? peerCases(arch) : []) {
    const ours = runsOf(one, 0).flatMap(({ launches }) => launches.map(countsOf))
    const counts = one.triton.map(() => countsOf(lines.shift()))
    comparisons.push({ ...one, gpu, ours: sum(ours), theirs: sum(counts) })
  }
}

const ops = [...new Set(results.map(({ op }) => op))]
const pages = ops.map((op) => [op, pageOf(op, results, comparisons, assembled)])
for (const [name, text] of [...pages, ['prediction', summary(results, gpus)]]) {
  const file = join(root, `docs/kernels/${name}.md`)
  if (write) writeFileSync(file, place(readFileSync(file, 'utf8'), text))
  else console.log(`\n# ${name}\n\n${text}`)
}
console.log(
  `kernel-report: ${results.length} cases, ${Math.round((Date.now() - started) / 1000)} s`,
)
