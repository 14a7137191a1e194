// The kernel report as Markdown.
import { occupancy, table } from './model.mjs'

// Which files of native/cuda/kernels are an op's, where they do not start with its name alone.
const filesOf = { embedding: /^(embedding|sort_rows)/, decode: /^(decode|kv_|sample)/ }

const most = { issued: 1.1, wavefronts: 1.05, sectors: 1.05 } // the aims

function time(seconds) {
  const [value, unit] = seconds < 1e-3 ? [seconds * 1e6, 'µs'] : [seconds * 1e3, 'ms']
  return `${value.toPrecision(3)} ${unit}`
}

const percent = (x) => `${Math.round(x * 100)} %`
const ratio = (x) => x.toFixed(x < 1.995 ? 3 : 2)
const number = (x) => (x >= 100 ? Math.round(x).toLocaleString('en-US') : x.toPrecision(3))

const wavefronts = (counts) => (counts.requests ? 1 + counts.extra / counts.requests : undefined)
const sectors = (counts) => (counts.leastSectors ? counts.sectors / counts.leastSectors : undefined)
const issued = ({ useful, counts }) => (useful ? counts.flops / useful : undefined)

/** Of the tensor cores' peak where a case is FLOPs, else of the memory's. */
export function ofPeak({ useful, bytes, seconds, gpu }) {
  return useful
    ? useful / seconds / (gpu.tensor * gpu.sms * gpu.clock)
    : bytes / seconds / gpu.memory
}

function kernelTable(op, results, assembled) {
  const mine = filesOf[op] ?? new RegExp(`^${op}`)
  const every = [80, 90].flatMap((arch) => assembled[arch]).filter(({ file }) => mine.test(file))
  const shown = new Map()
  for (const { gpu, launched } of results) {
    for (const launch of launched) {
      const one = every.find(({ kernel, arch }) => kernel === launch.kernel && arch === gpu.arch)
      if (one) shown.set(`${launch.kernel} ${gpu.arch}`, { gpu, launch, one })
    }
  }
  const rows = [...shown.values()].map(({ gpu, launch, one }) => {
    const threads = launch.block.reduce((product, n) => product * n, 1)
    const memory = one.shared + launch.smem_dynamic
    const { blocks, limit } = occupancy(gpu, { ...one, threads, shared: memory })
    const size = memory < 1024 ? `${memory} B` : `${number(memory / 1024)} KiB`
    const cells = [`\`${launch.kernel}\``, gpu.arch, threads, one.registers, one.stores + one.loads]
    return [...cells, size, `${blocks}, ${limit.join(' and ')}`]
  })
  const head = ['kernel', 'for', 'threads', 'registers', 'spilled bytes', 'shared memory']
  const names = new Set(every.map(({ kernel }) => kernel))
  const list = (some) => some.map(({ kernel, arch }) => `\`${kernel}\` (${arch})`).join(', ')
  const bad = every.filter(({ stores, loads }) => stores + loads > 0)
  const late = every.filter(({ serialised }) => serialised)
  const verdict =
    bad.length > 0 ? `registers are spilled by ${list(bad)}` : 'none spills a register'
  const more = late.length > 0 ? `, and wgmma is serialised in ${list(late)}` : ''
  return [
    table([...head, 'blocks a multiprocessor, limit'], rows),
    `Of all ${names.size} kernels of this op, those that were not run too, ${verdict}${more}.`,
  ]
}

function countTable(results) {
  const rows = results.map((one) => {
    const flops = one.useful !== undefined
    const each = one.counts.warps / (flops ? one.useful / 1e6 : one.bytes / 1e3)
    return [
      ...[one.title, one.gpu.name, flops ? ratio(issued(one)) : '–'],
      wavefronts(one.counts) === undefined ? '–' : ratio(wavefronts(one.counts)),
      ...[ratio(sectors(one.counts)), `${number(each)} ${flops ? 'a MFLOP' : 'a kB'}`],
    ]
  })
  const head = ['counted', 'GPU', 'FLOPs issued ÷ useful', 'shared wavefronts ÷ least']
  return table([...head, 'sectors ÷ least', 'warp instructions'], rows)
}

function timeTable(results) {
  const rows = results.map((one) => {
    const [[bound], ...rest] = one.busy
    const next = rest
      .filter(([, share]) => share >= 0.2)
      .map(([u, share]) => `${u} ${percent(share)}`)
    const peak = one.useful
      ? `${Math.round((one.gpu.tensor * one.gpu.sms * one.gpu.clock) / 1e12)} TFLOP/s`
      : `${Math.round(one.gpu.memory / 1e9)} GB/s`
    return [
      ...[one.title, one.gpu.name, time(one.seconds), `${percent(ofPeak(one))} of ${peak}`],
      ...[`${bound} ${percent(one.busy[0][1])}`, next.slice(0, 4).join(', ') || '–'],
    ]
  })
  const head = ['predicted', 'GPU', 'at least', 'at most', 'bound, busy']
  return table([...head, 'the next units, busy'], rows)
}

/** Sentences about what is outside the aims. */
function misses(results) {
  const found = results.flatMap((one) => {
    const name = `${one.title} on ${one.gpu.name}`
    const out = []
    const check = (what, value, limit) => {
      if (value !== undefined && value > limit) out.push(`${name}: ${what} ${ratio(value)}`)
    }
    check('FLOPs issued ÷ useful', issued(one), most.issued)
    check('shared wavefronts ÷ least', wavefronts(one.counts), most.wavefronts)
    check('sectors ÷ least', sectors(one.counts), most.sectors)
    const [[bound]] = one.busy
    const wanted = one.useful ? 'tensor' : 'HBM'
    if (bound !== wanted) out.push(`${name}: bound by ${bound}, not ${wanted}`)
    return out
  })
  if (found.length === 0) return 'Every aim is met.'
  return `Outside the aims:\n\n${found.map((line) => `- ${line}`).join('\n')}`
}

function peerTable(comparisons) {
  const above = []
  const rows = comparisons.map((one) => {
    const per = one.useful ? one.useful / 1e6 : one.elements / 1e3
    const unit = one.useful ? 'MFLOP' : '1000 elements'
    const cell = (what, of) => {
      const [ours, theirs] = [of(one.ours) / per, of(one.theirs) / per]
      if (ours > 1.005 * theirs) {
        const more = theirs > 0 ? `${ratio(ours / theirs)} of Triton's` : 'none in Triton'
        above.push(`${one.title} on ${one.gpu.name}: ${what}, ${more}`)
      }
      return `${number(ours)} / ${number(theirs)}`
    }
    return [
      ...[one.title, one.gpu.name, unit],
      cell('warp instructions', (counts) => counts.warps),
      cell('shared wavefronts', (counts) => counts.requests + counts.extra),
      cell('sectors', (counts) => counts.sectors),
    ]
  })
  const head = ['ours / Triton 3.6', 'GPU', 'for each', 'warp instructions', 'shared wavefronts']
  return [
    table([...head, 'global sectors'], rows),
    above.length === 0
      ? 'Ours is above in nothing.'
      : `Ours is above in:\n\n${above.map((line) => `- ${line}`).join('\n')}`,
  ]
}

/** What goes between the markers of an op's page. */
export function pageOf(op, results, comparisons, assembled) {
  const mine = results.filter((one) => one.op === op)
  const theirs = comparisons.filter((one) => one.op === op)
  return [
    '## Counted and predicted',
    'No GPU was at hand. Registers are those of ptxas, counts those of a PTX simulator, times predictions from both, not\n' +
      'measurements: [how, and with which constants](prediction.md). Written by `node scripts/kernel-report.mjs --write`.',
    ...kernelTable(op, mine, assembled),
    countTable(mine),
    timeTable(mine),
    misses(mine),
    ...(theirs.length > 0 ? peerTable(theirs) : []),
  ].join('\n\n')
}

/** What goes between the markers of prediction.md. */
export function summary(results, gpus) {
  const all = Object.values(gpus)
  const constants = [
    ['multiprocessors', ({ sms }) => sms],
    ['clock, GHz', ({ clock }) => clock / 1e9],
    ['tensor: FLOP, bf16', ({ tensor }) => tensor],
    ['HBM: GB/s, whole GPU', ({ memory }) => memory / 1e9],
    ['L2: bytes a clock, whole GPU', ({ l2 }) => l2],
    ['shared memory: wavefronts of 128 bytes', () => 1],
    ['issue: warp instructions', ({ issue }) => issue],
    ['fp32: results', ({ fp32 }) => fp32],
    ['int: results', ({ int }) => int],
    ['exp (and other special functions): results', ({ sfu }) => sfu],
    ['fp64: results', ({ fp64 }) => fp64],
  ].map(([name, value]) => [name, ...all.map(value)])
  const titles = [...new Set(results.map(({ op, title }) => `${op}: ${title}`))]
  const rows = titles.map((name) => [
    name,
    ...all.map((gpu) => {
      const one = results.find((r) => `${r.op}: ${r.title}` === name && r.gpu === gpu)
      const what = one.useful ? 'tensor' : 'HBM'
      return `${time(one.seconds)}, ${percent(ofPeak(one))} of ${what}, bound by ${one.busy[0][0]}`
    }),
  ])
  return [
    '## Constants and results',
    'Rates are per clock and multiprocessor unless said.',
    table(['constant', ...all.map(({ name }) => name)], constants),
    table(['predicted, at least', ...all.map(({ name }) => name)], rows),
  ].join('\n\n')
}
