// How near the CPU backend comes to the machine: gemm in f32 on each instruction set against a loop of multiply-adds that
// stay in registers, and a decoding step against one reading of the weights. Writes benchmarks/results/. The limits are
// measured before and after each contender, by limits.cc, which is built here with `c++`.
//
//   node benchmarks/limits.mjs [--models bench-S,bench-M] [--rounds 3]
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { markdownTable } from '../dist/bench/compare.js'
import { quantile } from '../dist/bench/harness.js'
import { cpuIsas } from '../dist/device/device.js'
import { jsonLines, report, root, run, threads } from './support.mjs'

const { values: flags } = parseArgs({
  options: {
    models: { type: 'string', default: 'bench-S,bench-M' },
    rounds: { type: 'string', default: '3' },
  },
})
const rounds = Number(flags.rounds)
const models = flags.models.split(',')

const folder = mkdtempSync(join(tmpdir(), 'westwind-limits-'))
const program = join(folder, 'limits')
const how = ['-std=c++20', '-O3', '-march=native', '-fopenmp', '-Wno-psabi']
run('c++', [...how, join(root, 'benchmarks/limits.cc'), '-o', program])
const limits = () => jsonLines(run(program, [String(threads)]))[0]

function bench(isa, ...args) {
  const command = ['bin/westwind.js', 'bench', ...args, '--device', 'cpu', '--json']
  return jsonLines(run(process.execPath, command, { env: { WESTWIND_ISA: isa } }))
}

/** Runs both in turns; of the limits the better one beside a run counts. */
function besideLimits(make, key) {
  const made = []
  let before = limits()
  for (let round = 0; round < rounds; round++) {
    const values = make()
    const after = limits()
    made.push({ values, limit: Math.max(before[key], after[key]) })
    before = after
  }
  return made
}

const median = (values) => quantile(values, 0.5)
const percent = (x) => `${(100 * x).toFixed(0)} %`
const products = []
for (const model of models) {
  for (const isa of cpuIsas()) {
    const args = ['gemm', '--dtype', 'f32', '--model', model, '--repetitions', '5']
    const made = besideLimits(() => bench(isa, ...args), 'gflops')
    made[0].values.forEach(({ mode, shape }, i) => {
      const rates = made.map(({ values }) => values[i].gflops)
      const shares = made.map(({ values, limit }) => values[i].gflops / limit)
      const limit = median(made.map((each) => each.limit)).toFixed(0)
      products.push([
        model,
        isa,
        mode,
        shape,
        median(rates).toFixed(1),
        limit,
        percent(median(shares)),
      ])
    })
  }
}

const steps = []
for (const model of models) {
  const args = ['train', '--task', 'generate', '--model', model, '--batch', '1', '--steps', '1']
  const made = besideLimits(() => bench(cpuIsas().at(-1), ...args)[0], 'read_gbs')
  const ms = median(made.map(({ values }) => values.ms_per_decode_step))
  const rate = median(made.map(({ values }) => values.weight_GBps))
  const times = median(made.map(({ values, limit }) => limit / values.weight_GBps))
  const limit = median(made.map((each) => each.limit)).toFixed(1)
  steps.push([model, ms.toFixed(2), rate.toFixed(1), limit, times.toFixed(2)])
}
rmSync(folder, { recursive: true })

report('limits', undefined, ({ date, machine, versions }) => {
  const gemmHead = ['model', 'instruction set', 'product', 'shape', 'GFLOP/s', 'limit', 'share']
  const stepHead = ['model', 'ms', 'GB/s of weights', 'memory, GB/s', 'step ÷ reading the weights']
  return `# The CPU backend beside the machine's limits: ${date}, ${machine}

\`node benchmarks/limits.mjs\`, ${rounds} rounds, medians. The limits are measured before and after each contender by
\`benchmarks/limits.cc\`: f32 multiply-adds in registers, and reading 1 GiB.
${versions}

## gemm, f32

${markdownTable(gemmHead, products)}

## A decoding step, bf16, batch 1

${markdownTable(stepHead, steps)}
`
})
