// Times whole steps in PyTorch and in westwind, in turns, each run in a process of its own, and writes the ratios to
// benchmarks/results/. dSFT and dDPO take the very same token batches. Needs a Python with torch, transformers and TRL, and the
// peer program `bench_peer.py`.
//
//   node benchmarks/peers.mjs --python VENV/bin/python --peer DIR/bench_peer.py [--only sft,dpo] [--model bench-S]
//     [--rounds 3] [--steps 3] [--precision bf16] [--pairs FILE]
// Peak memory with f32 master weights: --only sft --precision amp (bf16 products, f32 weights; the peer's own name for it).
// FILE has rows of prompt_ids, chosen_ids, rejected_ids; `real` is the peer's own, without it pairs are synthetic.
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
    only: { type: 'string', default: 'sft,dpo,score,generate' },
    model: { type: 'string', default: 'bench-S' },
    rounds: { type: 'string', default: '3' },
    steps: { type: 'string', default: '3' },
    precision: { type: 'string', default: 'bf16' },
    pairs: { type: 'string' },
  },
})
if (!flags.python || !flags.peer) {
  console.error('peers: give --python and --peer; see the head of this file')
  process.exit(1)
}
const { steps, model } = flags
const folder = mkdtempSync(join(tmpdir(), 'westwind-peers-'))
const batches = join(folder, 'batches.safetensors')

/** What is timed: options of both programs, those of the peer alone, what counts, and who stands beside westwind. */
const rows = ['--seq', '2048', '--micro-batch', '1', '--docs', 'packed']
const pairs = ['--pairs', '2', '--max-length', '1024', '--precompute-ref']
const works = [
  { task: 'sft', shape: rows, rate: 'tokens_per_s', peers: ['loop', 'trl'], dumps: true },
  {
    ...{ task: 'dpo', shape: pairs, rate: 'pairs_per_s', peers: ['loop', 'trl'], dumps: true },
    peerOnly: flags.pairs ? ['--data', flags.pairs] : [],
  },
  { task: 'score', shape: rows, rate: 'tokens_per_s', peers: ['loop', 'hf'] },
  { task: 'generate', shape: ['--batch', '1'], rate: 'tokens_per_s', peers: ['loop', 'hf'] },
  { task: 'generate', shape: ['--batch', '8'], rate: 'tokens_per_s', peers: ['loop', 'hf'] },
].filter(({ task }) => flags.only.split(',').includes(task))

const titles = {
  loop: 'hand-written PyTorch loop',
  trl: 'TRL 1.x trainer',
  hf: 'transformers',
}

const amount = ['--model', model, '--steps', steps, '--warmup', '1', '--threads', String(threads)]

function peer(work, impl, precision) {
  const { task, shape, peerOnly = [], dumps } = work
  const dump = dumps ? ['--dump', batches] : []
  const how = ['--impl', impl, '--precision', precision, '--wait', '0', ...dump]
  const args = [flags.peer, task, ...amount, ...shape, ...peerOnly, ...how]
  return jsonLines(run(flags.python, args)).at(-1)
}

function westwind({ task, shape, dumps }, precision) {
  const same = dumps ? ['--batches', batches] : []
  return bench('train', '--task', task, '--precision', precision, ...amount, ...shape, ...same).at(
    -1,
  )
}

const median = (values) => quantile(values, 0.5)
const table = []
for (const work of works) {
  for (const precision of flags.precision.split(',')) {
    const names = [...work.peers, 'westwind']
    const results = Object.fromEntries(names.map((name) => [name, []]))
    for (let round = 0; round < Number(flags.rounds); round++) {
      for (const name of names) {
        const made = name === 'westwind' ? westwind(work, precision) : peer(work, name, precision)
        results[name].push(made)
        const rate = made[work.rate].toFixed(2)
        console.log(`${work.task} ${precision} round ${round + 1}: ${name} ${rate} ${work.rate}`)
      }
    }
    const each = (name, key) => results[name].map((result) => result[key])
    for (const name of work.peers) {
      const ratio = (key) => median(each('westwind', key)) / median(each(name, key))
      const list = (who) =>
        each(who, work.rate)
          .map((x) => x.toFixed(2))
          .join(', ')
      table.push([
        `${work.task} ${work.task === 'generate' ? work.shape.join(' ') : ''}`.trim(),
        ...[precision, titles[name], ratio(work.rate).toFixed(2), ratio('peak_rss_mb').toFixed(2)],
        ...[work.rate, list('westwind'), list(name)],
      ])
    }
  }
}
rmSync(folder, { recursive: true })

const head = ['work', 'precision', 'peer', 'rate, westwind ÷ peer', 'peak RSS, westwind ÷ peer']
head.push('rate', 'westwind, per round', 'peer, per round')
report(`steps-${model}`, flags.python, ({ date, machine, versions }) => {
  return `# Steps of ${model}, beside PyTorch: ${date}, ${machine}

\`node benchmarks/peers.mjs\`: packed documents in rows of 2,048 tokens; two ${flags.pairs ? 'given' : 'synthetic'} pairs of at most 1,024 tokens a
sequence, the reference's log-probs known beforehand; ${flags.rounds} rounds in turns, ${steps} timed steps each, a process per run. The optimizer's
state of westwind is f32 in every precision, that of the peers in bf16 is bf16.
${versions}

${markdownTable(head, table)}
`
})
