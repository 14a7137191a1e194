// Times the cases of `westwind bench gemm|attention|linear_logps` and PyTorch's counterparts at the very same shapes, run by
// run in turns, and writes the ratios to benchmarks/results/. Needs a Python with torch; PyTorch's side is peer_kernels.py.
//
//   node benchmarks/kernel-peers.mjs --python VENV/bin/python [--runs f32:2048,bf16:256] [--seconds 150]
import { cpus } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { benchCases } from '../dist/bench/cases.js'
import { compare, markdownTable, quietPairs } from '../dist/bench/compare.js'
import { check } from '../dist/bench/harness.js'
import { benchModels } from '../dist/bench/models.js'
import { openCpu } from '../dist/device/device.js'
import { scope } from '../dist/tensor/scope.js'
import { report, talk, threads } from './support.mjs'

const { values: flags } = parseArgs({
  options: {
    python: { type: 'string' },
    runs: { type: 'string', default: 'f32:2048,bf16:256' }, // dtype:tokens
    seconds: { type: 'string', default: '150' }, // for each op and dtype, waiting for other programs included
    model: { type: 'string', default: 'bench-S' },
  },
})
if (!flags.python) {
  console.error('kernel-peers: give --python; see the head of this file')
  process.exit(1)
}
const device = openCpu()
/** Those that peer_kernels.py has, too. */
const kernels = ['gemm', 'attention', 'linear_logps']

/** Milliseconds that a short case is repeated for, so that processor time, counted in ticks of 10 ms, can be told. */
const leastMs = 100
const leastRounds = 4

/** PyTorch in a process of its own. */
function startTorch() {
  return talk(flags.python, ['benchmarks/peer_kernels.py', '--threads', String(threads)], {
    OMP_NUM_THREADS: String(threads),
    GOMP_SPINCOUNT: '1000', // as westwind's threads: longer spinning loses where other programs want the cores
    // A heap that keeps its pages, as westwind's allocator does; by default large buffers fault in again each time.
    MALLOC_MMAP_MAX_: '0',
    MALLOC_TRIM_THRESHOLD_: '17179869184',
    MALLOC_TOP_PAD_: '268435456',
    GLIBC_TUNABLES: 'glibc.malloc.hugetlb=1',
  })
}

/** Seconds that all processors were busy since the machine started. */
function busySeconds() {
  const busy = cpus().map(({ times }) => times.user + times.nice + times.sys)
  return busy.reduce((sum, ms) => sum + ms, 0) / 1000
}

/** Waits until other programs leave the processors alone, while patience lasts. */
async function idle(patience) {
  while (patience.ms > 0) {
    const [before, begin] = [busySeconds(), performance.now()]
    await sleep(100)
    const ms = performance.now() - begin
    if ((busySeconds() - before) * 1000 < 0.2 * ms) return
    patience.ms -= ms
  }
}

/** How long one run takes by the clock on the wall, which PyTorch's side looks at, too. */
async function milliseconds(run) {
  await device.synchronize()
  const begin = performance.now()
  run(0)
  await device.synchronize()
  return performance.now() - begin
}

async function westwind({ run }, count) {
  const before = process.cpuUsage()
  let sum = 0
  for (let i = 0; i < count; i++) sum += await milliseconds(run)
  const { user, system } = process.cpuUsage(before)
  return { ms: sum / count, cpu: (user + system) / 1e6 }
}

/** Both programs once, the first of them changing from round to round. */
async function pair({ at, benchCase, forms, count }, round, torch) {
  const [before, begin] = [busySeconds(), performance.now()]
  const peer = {}
  let ours
  let cpu = 0
  const turns = [
    async () => {
      ours = await westwind(benchCase, count)
      cpu += ours.cpu
    },
    async () => {
      for (const form of forms) {
        const answer = await torch.ask({ time: [at, form, count] })
        peer[form] = answer.ms
        cpu += answer.cpu
      }
    },
  ]
  for (const turn of round % 2 === 0 ? turns : turns.reverse()) await turn()
  const elapsed = (performance.now() - begin) / 1000
  return { ours: ours.ms, peer, others: Math.max(0, (busySeconds() - before - cpu) / elapsed) }
}

/** Rows of the table, and for each pair that counts how many processors other programs used. */
async function compareOp(kernel, dtype, tokens) {
  const opened = scope()
  const torch = startTorch()
  const prepared = []
  const cases = benchCases[kernel](benchModels[flags.model], tokens, device, dtype)
  for (const [at, benchCase] of cases.entries()) {
    const { mode, shape, lengths } = benchCase
    await check(benchCase)
    const { forms } = await torch.ask({ kernel, mode, shape, lengths, dtype })
    const ms = await milliseconds(benchCase.run)
    const count = Math.min(20, Math.ceil(leastMs / ms))
    prepared.push({ at, benchCase, forms, count, pairs: [] })
  }
  const budget = Number(flags.seconds) * 1000
  const patience = { ms: budget / 2 }
  const end = performance.now() + budget
  for (let round = 0; round < leastRounds || performance.now() < end; round++) {
    for (const each of prepared) {
      await idle(patience)
      each.pairs.push(await pair(each, round, torch))
    }
  }
  torch.end()
  opened.dispose()
  const loads = prepared.flatMap(({ pairs }) => quietPairs(pairs).map(({ others }) => others))
  const rows = prepared.map(({ benchCase: { mode, shape }, pairs }) => {
    const { form, ratio, low, high, ours, peer } = compare(pairs)
    const numbers = [ratio.toFixed(2), `${low.toFixed(2)} to ${high.toFixed(2)}`]
    const times = [ours.toFixed(1), peer.toFixed(1), form]
    return [kernel, mode, shape, ...numbers, String(pairs.length), ...times]
  })
  for (const row of rows) console.log(row.join('  '))
  return { rows, loads }
}

const tables = []
for (const [dtype, tokens] of flags.runs.split(',').map((each) => each.split(':'))) {
  const rows = []
  const loads = []
  for (const kernel of kernels) {
    const result = await compareOp(kernel, dtype, Number(tokens))
    rows.push(...result.rows)
    loads.push(...result.loads)
  }
  const head = ['op', 'mode', 'shape', 'speed, westwind ÷ PyTorch', '20 to 80 %', 'pairs']
  head.push('westwind, ms', 'PyTorch, ms', "PyTorch's fastest form")
  const quiet = loads.filter((load) => load < 0.3).length
  tables.push(`## ${dtype}, ${Number(tokens).toLocaleString('en')} tokens

Other programs used less than 0.3 of the ${threads} processors in ${quiet} of the ${loads.length} pairs that count.

${markdownTable(head, rows)}
`)
}

report('kernels', flags.python, ({ date, machine, versions }) => {
  return `# gemm, attention and linear_logps of ${flags.model}, beside PyTorch: ${date}, ${machine}

\`node benchmarks/kernel-peers.mjs\`: the cases of \`westwind bench\`, each checked against float64 in both programs, then timed in
pairs, one program right after the other, the first of them changing. A ratio is taken within a pair, above 1 where westwind is
the faster. The median of the half of all pairs counts that other programs disturbed least. PyTorch's fastest form counts; a
form whose first run took three times that of the fastest was not timed further. ${versions}

${tables.join('\n')}`
})
