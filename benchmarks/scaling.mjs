// Measures how time grows with the tokens of a step, with threads and with rows of data, fits the formula that explains it, and
// writes tables and plots into docs/performance.md. Nothing else should run on the machine meanwhile.
//
//   node benchmarks/scaling.mjs [--only steps,threads,rows] [--rounds 3] [--tokens 16384] [--rows 1000000] [--tokenizer DIR]
// --tokens and --rows: the most of each. Without a tokenizer directory the small one of the tests encodes the rows.
import {
  createWriteStream,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { finished } from 'node:stream/promises'
import { parseArgs } from 'node:util'
import { markdownTable } from '../dist/bench/compare.js'
import { fitCosts } from '../dist/bench/fit-costs.js'
import { usefulFlops } from '../dist/bench/train/definitions.js'
import { sftBatches } from '../dist/bench/train/inputs.js'
import { benchTrain } from '../dist/bench/train/tasks.js'
import { openCpu } from '../dist/device/device.js'
import { lineChart } from '../dist/report/svg-chart.js'
import { commit, jsonLines, machine, root, run, threads } from './support.mjs'

const { values: flags } = parseArgs({
  options: {
    only: { type: 'string', default: 'steps,threads,rows' },
    rounds: { type: 'string', default: '3' },
    tokens: { type: 'string', default: '16384' },
    rows: { type: 'string', default: '1000000' },
    tokenizer: { type: 'string', default: 'tests/fixtures/golden/tiny_tokenizer' },
  },
})
const rounds = Number(flags.rounds)
const page = join(root, 'docs/performance.md')

/** Small enough to be measured in minutes at 16,384 tokens, where most of its time is attention. */
const model = {
  ...{ hidden: 256, ffn: 768, layers: 4, heads: 4, kvHeads: 2, headDim: 64, vocabulary: 8000 },
}
const shape =
  'a model of 4 layers, hidden 256, MLP 768, 4 heads (2 for keys and values) of 64, vocabulary 8,000, bf16'

/** 2^low … below or at `most`. */
const doublings = (low, most) => {
  return Array.from({ length: 32 }, (_, i) => low * 2 ** i).filter((n) => n <= most)
}
const percent = (share) => `${(100 * share).toFixed(1)} %`
const thousands = (n) => n.toLocaleString('en')
const digits = (x) => (x === 0 ? '0' : x.toPrecision(3))
const residual = ({ mean, most }) => `off by ${percent(mean)} in the mean, ${percent(most)} at most`

/** A step with so many tokens: seconds, the fastest of all rounds, for others' load can only add; peak memory. */
async function timeStep(best, key, device, seq, docs) {
  const options = {
    ...{
      device,
      model,
      precision: 'bf16',
      steps: 1,
      warmup: seq < 8192 ? 1 : 0,
      seed: 0,
      seq,
      docs,
    },
    ...{ microBatch: 1, gradCkpt: false },
  }
  device.resetPeak()
  const { s_per_step_min: seconds } = await benchTrain('sft', options)
  const mib = device.stats().peakBytes / 2 ** 20
  const timed = (await sftBatches(options)).at(-1)
  const lengths = timed.map(({ ids }) => ids.length)
  const known = best.get(key)
  if (!known || seconds < known.seconds) best.set(key, { seconds, mib, lengths, seq, docs })
}

/** Tokens of a step and Σ n² over its documents. */
function sizeOf({ lengths }) {
  const sum = (of) => lengths.reduce((total, n) => total + of(n), 0)
  return { tokens: sum((n) => n), pairs: sum((n) => n * n) }
}

const kinds = { full: 'one document', packed: 'documents of about 700' }

async function steps() {
  const device = openCpu()
  const best = new Map()
  for (let round = 0; round < rounds; round++) {
    for (const docs of Object.keys(kinds)) {
      for (const seq of doublings(512, Number(flags.tokens))) {
        await timeStep(best, `${docs} ${seq}`, device, seq, docs)
        console.error(`round ${round + 1}: ${docs} ${seq} ${best.get(`${docs} ${seq}`).seconds} s`)
      }
    }
  }
  const points = [...best.values()].map((point) => ({ ...point, ...sizeOf(point) }))
  const time = fitCosts(
    points.map(({ tokens, pairs }) => [1, tokens, pairs]),
    points.map(({ seconds }) => seconds),
  )
  const memory = fitCosts(
    points.map(({ tokens }) => [1, tokens]),
    points.map(({ mib }) => mib),
  )
  const [a, b, c] = time.coefficients
  const perPair = (usefulFlops(model, [2], 0, 3) - 2 * usefulFlops(model, [1], 0, 3)) / 2
  const perToken = usefulFlops(model, [1], 1, 3) - perPair
  const us = (seconds, tokens) => (1e6 * seconds) / tokens
  const rows = points.map(({ docs, tokens, seconds, mib }, i) => [
    ...[kinds[docs], thousands(tokens), (1e3 * seconds).toFixed(1)],
    ...[us(seconds, tokens).toFixed(1), us(time.values[i], tokens).toFixed(1)],
    ...[percent(seconds / time.values[i] - 1), mib.toFixed(0), memory.values[i].toFixed(0)],
  ])
  const series = Object.entries(kinds).flatMap(([docs, name], colour) => {
    const of = (y) =>
      points.flatMap((point, i) => (point.docs === docs ? [[point.tokens, y(point, i)]] : []))
    return [
      { name, colour, dash: 0, points: of(({ seconds, tokens }) => us(seconds, tokens)) },
      {
        ...{ name: `${name}, formula`, colour, dash: 1 },
        points: of(({ tokens }, i) => us(time.values[i], tokens)),
      },
    ]
  })
  const chart = {
    title: 'Time per token of a training step',
    ...{ xLabel: 'tokens of the step', yLabel: 'µs per token', series },
  }
  const head = ['documents', 'tokens T', 'step, ms', 'µs a token', 'formula', 'off']
  head.push('peak memory, MiB', 'formula')
  return {
    charts: { steps: chart },
    text: `dSFT steps of ${shape}; the fastest of ${rounds} steps.

![Time per token against tokens](performance/steps.svg)

${markdownTable(head, rows)}

\`step = a + b · T + c · Σ n²\`, n the tokens of each document: a = ${digits(1e3 * a)} ms, b = ${digits(1e6 * b)} µs, c = ${digits(1e9 * c)} ns; ${residual(time)}.
So a token's linear work, ${(perToken / 1e6).toFixed(1)} MFLOP, ran at ${(perToken / b / 1e9).toFixed(0)} GFLOP/s, and attention, ${thousands(perPair)} FLOP for each of n²
(causal, counted once), ${c > 0 ? `at ${(perPair / c / 1e9).toFixed(0)} GFLOP/s` : 'took no time that shows'}. \`memory = ${digits(memory.coefficients[0])} MiB + ${digits(1024 * memory.coefficients[1])} KiB · T\`: ${residual(memory)}.`,
  }
}

async function threadCounts() {
  const best = new Map()
  const counts = [...new Set([...doublings(1, threads), threads])]
  for (let round = 0; round < rounds; round++) {
    for (const count of counts) {
      await timeStep(best, count, openCpu({ threads: count }), 2048, 'packed')
    }
  }
  const seconds = counts.map((count) => best.get(count).seconds)
  const amdahl = fitCosts(
    counts.map((p) => [1, 1 / p]),
    seconds,
  )
  const [serial, parallel] = amdahl.coefficients
  const rows = counts.map((p, i) => [
    ...[String(p), (1e3 * seconds[i]).toFixed(1), (seconds[0] / seconds[i]).toFixed(2)],
    ...[(1e3 * amdahl.values[i]).toFixed(1), percent(seconds[0] / seconds[i] / p)],
  ])
  const points = (of) => counts.map((p, i) => [p, of(i, p)])
  const chart = {
    title: 'Speed against threads',
    ...{ xLabel: 'threads', yLabel: 'times one thread' },
    series: [
      { name: 'measured', points: points((i) => seconds[0] / seconds[i]) },
      { name: "Amdahl's law", dash: 1, points: points((i) => seconds[0] / amdahl.values[i]) },
      { name: 'ideal', dash: 2, points: points((_, p) => p) },
    ],
  }
  const share = serial / (serial + parallel)
  const exact = amdahl.most < 1e-9 ? ', which two points always fit' : `; ${residual(amdahl)}`
  return {
    charts: { threads: chart },
    text: `A step of 2,048 tokens, documents of about 700, the same model; the fastest of ${rounds} steps.

![Speed against threads](performance/threads.svg)

${markdownTable(['threads', 'step, ms', 'times one thread', 'formula, ms', 'of ideal'], rows)}

Amdahl's law, \`step = s + p / threads\`: s = ${digits(1e3 * serial)} ms, p = ${digits(1e3 * parallel)} ms, so ${percent(share)} of a step of one thread is serial${exact}.`,
  }
}

const vocabulary = 'model learns from data to write what people say about a day in the town'

/** A chat of two turns with 4 to 47 words, on a line of JSON; the same for the same state of `next`. */
function chat(next) {
  const words = vocabulary.split(' ')
  const text = (count) =>
    Array.from({ length: count }, () => words[next() % words.length]).join(' ')
  const [user, assistant] = [text(2 + (next() % 16)), text(2 + (next() % 30))]
  const messages = [
    { role: 'user', content: user },
    { role: 'assistant', content: assistant },
  ]
  return `${JSON.stringify({ messages })}\n`
}

async function writeRows(file, count) {
  let state = 1
  const next = () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return state >>> 16
  }
  const stream = createWriteStream(file)
  for (let done = 0; done < count; ) {
    const some = Array.from({ length: Math.min(10_000, count - done) }, () => chat(next))
    done += some.length
    if (!stream.write(some.join(''))) await new Promise((drained) => stream.once('drain', drained))
  }
  stream.end()
  await finished(stream)
}

async function rowCounts() {
  const folder = mkdtempSync(join(tmpdir(), 'westwind-scaling-'))
  const points = []
  try {
    for (const n of [10_000, 30_000, 100_000, 300_000, 1_000_000]) {
      if (n > Number(flags.rows)) continue
      const data = join(folder, `${n}.jsonl`)
      await writeRows(data, n)
      const keys = {
        ...{ dataset_name: data, output_dir: join(folder, 'out') },
        ...{ tokenizer_name_or_path: resolve(root, flags.tokenizer), packing: true },
        ...{ model_name_or_path: 'none', max_length: 2048 },
      }
      const env = { WESTWIND_CACHE: join(folder, 'cache') }
      const start = () =>
        jsonLines(
          run(process.execPath, ['benchmarks/start.mjs', JSON.stringify(keys)], { env }),
        ).at(-1)
      const cold = start()
      const warm = Array.from({ length: rounds }, start)
      if (cold.fromCache || !warm.every(({ fromCache }) => fromCache)) {
        throw new Error('scaling: a start did not find the cache as it should be')
      }
      points.push({ n, cold, warm: warm.sort((a, b) => a.data - b.data)[0] })
      rmSync(folder, { recursive: true })
      mkdirSync(folder)
      console.error(`${n} rows: cold ${cold.data} ms, warm ${points.at(-1).warm.data} ms`)
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  const line = (of) => {
    return fitCosts(
      points.map(({ n }) => [1, n]),
      points.map(of),
    )
  }
  const cold = line(({ cold }) => cold.data)
  const warm = line(({ warm }) => warm.data)
  const memory = line(({ warm }) => warm.mib)
  const rows = points.map(({ n, cold: first, warm: second }, i) => [
    ...[thousands(n), `${(first.tokens / 1e6).toFixed(1)} M`],
    ...[(first.data / 1e3).toFixed(2), (cold.values[i] / 1e3).toFixed(2), first.mib.toFixed(0)],
    ...[second.data.toFixed(0), warm.values[i].toFixed(0), second.mib.toFixed(0)],
    second.ms.toFixed(0),
  ])
  const chart = (title, yLabel, of, formula) => ({
    ...{ title, xLabel: 'rows', yLabel },
    series: [
      { name: 'measured', points: points.map((point) => [point.n, of(point)]) },
      { name: 'formula', dash: 1, points: points.map(({ n }, i) => [n, formula(i)]) },
    ],
  })
  const charts = {
    'rows-cold': chart(
      ...['Start without a cache', 's', ({ cold: { data } }) => data / 1e3],
      (i) => cold.values[i] / 1e3,
    ),
    'rows-warm': chart(
      ...['Start with the cache', 'ms', ({ warm: { data } }) => data],
      (i) => warm.values[i],
    ),
  }
  const head = ['rows', 'tokens', 'cold, s', 'formula', 'MiB', 'warm, ms', 'formula', 'MiB']
  head.push('warm, whole process, ms')
  const [[coldBase, coldRow], [warmBase, warmRow], [base, row]] = [cold, warm, memory].map(
    ({ coefficients }) => coefficients,
  )
  return {
    charts,
    text: `Chats of two turns and some 23 words as JSON Lines, packed into rows of 2,048 tokens; each start a process of its own, warm the
fastest of ${rounds}. MiB: the most that the process held. The last column has Node's own start, the modules and the tokenizer, too.

![Start without a cache](performance/rows-cold.svg)
![Start with the cache](performance/rows-warm.svg)

${markdownTable(head, rows)}

Cold: \`${digits(coldBase)} ms + ${digits(1e3 * coldRow)} µs · rows\`, ${residual(cold)}. Warm: \`${digits(warmBase)} ms + ${digits(1e6 * warmRow)} ns · rows\`, ${residual(warm)}.
Memory of a warm start: \`${digits(base)} MiB + ${digits(row * 2 ** 20)} bytes · rows\`, ${residual(memory)}.`,
  }
}

const sections = { steps, threads: threadCounts, rows: rowCounts }
for (const name of flags.only.split(',')) {
  const { charts, text } = await sections[name]()
  const [load] = loadavg()
  const busy =
    load > threads + 0.5 ? ', so others had the processor too and times are far too long' : ''
  const measured = `${new Date().toISOString().slice(0, 10)}, ${machine()}, Node ${process.version}, westwind ${commit()};
load average at the end ${load.toFixed(1)}${busy}`
  const [begin, end] = [`<!-- ${name}: begin -->`, `<!-- ${name}: end -->`]
  const old = readFileSync(page, 'utf8')
  const [from, to] = [old.indexOf(begin), old.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`scaling: ${page} lacks ${begin} … ${end}`)
  const command = `node benchmarks/scaling.mjs --only ${name}`
  const body = `\n\`${command}\`: ${measured}.\n${text}\n\n`
  writeFileSync(page, old.slice(0, from + begin.length) + body + old.slice(to))
  mkdirSync(join(root, 'docs/performance'), { recursive: true })
  for (const [file, chart] of Object.entries(charts)) {
    writeFileSync(join(root, `docs/performance/${file}.svg`), `${lineChart(chart)}\n`)
  }
  console.log(text)
}
