// Times an SFT step of bench-S in PyTorch and in westwind, in turns, on the very same token batches, each run in a process of
// its own, and writes the ratios to benchmarks/results/. Needs a Python with torch, and the peer program `bench_peer.py`.
//
//   node benchmarks/peers.mjs --python VENV/bin/python --peer DIR/bench_peer.py [--rounds 3] [--steps 3] [--precision fp32,bf16]
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
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

const lastJson = (text) => JSON.parse(text.trim().split('\n').at(-1))
const run = (command, args) =>
  execFileSync(command, args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })

function peer(impl, precision) {
  const shape = ['--model', model, '--seq', '2048', '--micro-batch', '1', '--docs', 'packed']
  const amount = ['--steps', steps, '--warmup', '1', '--wait', '0']
  const rest = ['--threads', String(cpus().length), '--dump', batches]
  const args = [flags.peer, 'sft', ...shape, ...amount, ...rest]
  return lastJson(run(flags.python, [...args, '--impl', impl, '--precision', precision]))
}

function westwind(precision) {
  const dtype = precision === 'fp32' ? 'f32' : 'bf16'
  const args = ['bin/westwind.js', 'bench', 'sft', '--json', '--model', model, '--dtype', dtype]
  return lastJson(run(process.execPath, [...args, '--repetitions', steps, '--batches', batches]))
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]
const lines = []
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
    const cells = [
      precision,
      label,
      (ours / median(rates[name])).toFixed(2),
      (median(memory.westwind) / median(memory[name])).toFixed(2),
      rates.westwind.map((x) => x.toFixed(0)).join(', '),
      rates[name].map((x) => x.toFixed(0)).join(', '),
    ]
    lines.push(`| ${cells.join(' | ')} |`)
  }
}
rmSync(folder, { recursive: true })

const git = run('git', ['rev-parse', '--short', 'HEAD']).trim()
const torch = run(flags.python, ['-c', 'import torch; print(torch.__version__)']).trim()
const cpu = cpus()[0].model.trim()
const date = new Date().toISOString().slice(0, 10)
const report = `# SFT step of ${model}, beside PyTorch: ${date}, ${cpu}, ${cpus().length} threads

\`node benchmarks/peers.mjs\`: packed documents, rows of 2,048 tokens, one row per step, the same token batches, ${flags.rounds} rounds in
turns, ${steps} timed steps each, a process per run. With bf16 westwind keeps f32 master weights, the PyTorch programs do not.
Only the ratios mean anything; load average at the end ${loadavg()[0].toFixed(1)}. westwind ${git}, PyTorch ${torch}, Node ${process.version}.

| precision | peer | tokens/s, westwind ÷ peer | peak RSS, westwind ÷ peer | westwind, tokens/s per round | peer, tokens/s per round |
| --- | --- | --- | --- | --- | --- |
${lines.join('\n')}
`
mkdirSync(join(root, 'benchmarks/results'), { recursive: true })
const slug = cpu.toLowerCase().replace(/[^a-z0-9]+/g, '-')
writeFileSync(join(root, `benchmarks/results/${date}-${slug}-sft.md`), report)
console.log(report)
