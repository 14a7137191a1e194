// Times an SFT step of bench-S in PyTorch and in westwind, in turns, on the very same token batches, each run in a process of
// its own, and writes the ratios to benchmarks/results/. Needs a Python with torch, and the peer program `bench_peer.py`.
//
//   node benchmarks/peers.mjs --python VENV/bin/python --peer DIR/bench_peer.py [--rounds 3] [--steps 3] [--precision fp32,bf16]
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { markdownTable } from '../dist/bench/compare.js'
import { quantile } from '../dist/bench/harness.js'
import { bench, jsonLines, report, run, threads } from './support.mjs'

const { values: flags } = parseArgs({
  options: {
    python: { type: 'string' },
    peer: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    steps: { type: 'string', default: '3' },
    precision: { type: 'string', default: 'fp32,bf16' },
    model: { type: 'string', default: 'bench-S' },
  },
})
if (!flags.python || !flags.peer) {
  console.error('peers: give --python and --peer; see the head of this file')
  process.exit(1)
}
const { steps, model } = flags
const folder = mkdtempSync(join(tmpdir(), 'westwind-peers-'))
const batches = join(folder, 'batches.safetensors')

function peer(impl, precision) {
  const shape = ['--model', model, '--seq', '2048', '--micro-batch', '1', '--docs', 'packed']
  const amount = ['--steps', steps, '--warmup', '1', '--wait', '0']
  const rest = ['--threads', String(threads), '--dump', batches]
  const args = [flags.peer, 'sft', ...shape, ...amount, ...rest]
  return jsonLines(run(flags.python, [...args, '--impl', impl, '--precision', precision])).at(-1)
}

function westwind(precision) {
  const dtype = precision === 'fp32' ? 'f32' : 'bf16'
  const amount = ['--repetitions', steps, '--batches', batches]
  return bench('sft', '--model', model, '--dtype', dtype, ...amount).at(-1)
}

const median = (values) => quantile(values, 0.5)
const rows = []
for (const precision of flags.precision.split(',')) {
  const rates = { loop: [], trl: [], westwind: [] }
  const memory = { loop: [], trl: [], westwind: [] }
  for (let round = 0; round < Number(flags.rounds); round++) {
    for (const name of Object.keys(rates)) {
      const result = name === 'westwind' ? westwind(precision) : peer(name, precision)
      rates[name].push(result.tokens_per_s)
      memory[name].push(result.peak_rss_mb)
      console.log(
        `${precision} round ${round + 1}: ${name} ${result.tokens_per_s.toFixed(0)} tokens/s`,
      )
    }
  }
  const ours = median(rates.westwind)
  for (const [name, label] of [
    ['loop', 'hand-written PyTorch loop'],
    ['trl', 'TRL SFTTrainer'],
  ]) {
    rows.push([
      precision,
      label,
      (ours / median(rates[name])).toFixed(2),
      (median(memory.westwind) / median(memory[name])).toFixed(2),
      rates.westwind.map((x) => x.toFixed(0)).join(', '),
      rates[name].map((x) => x.toFixed(0)).join(', '),
    ])
  }
}
rmSync(folder, { recursive: true })

const head = ['precision', 'peer', 'tokens/s, westwind ÷ peer', 'peak RSS, westwind ÷ peer']
head.push('westwind, tokens/s per round', 'peer, tokens/s per round')
report('sft', flags.python, ({ date, machine, versions }) => {
  return `# SFT step of ${model}, beside PyTorch: ${date}, ${machine}

\`node benchmarks/peers.mjs\`: packed documents, rows of 2,048 tokens, one row per step, the same token batches, ${flags.rounds} rounds in
turns, ${steps} timed steps each, a process per run. With bf16 westwind keeps f32 master weights, the PyTorch programs do not.
${versions}

${markdownTable(head, rows)}
`
})
