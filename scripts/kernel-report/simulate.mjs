// One process of the kernel report: runs every part of every case at its small shapes on the simulator that LD_LIBRARY_PATH
// names, and prints a line of JSON for each run. node simulate.mjs ARCH STATS_FILE [TITLE ...]
import { existsSync, readFileSync } from 'node:fs'
import { device, fromArray, ops, scope } from '../../dist/index.js'
import { native } from '../../dist/native/addon.js'
import { casesOf } from './cases.mjs'
import { gpus } from './model.mjs'
import { peerCases } from './peers.mjs'

const [archText, stats, ...only] = process.argv.slice(2)
const arch = Number(archText)
const gpu = gpus[arch]
const cuda = device('cuda:0')
if (cuda.isa !== `sm_${arch}`) throw new Error(`cuda:0 is ${cuda.isa}, not sm_${arch}`)

const sizeOf = (shape) => shape.reduce((product, n) => product * n, 1)
const filled = (n, value) => new Float32Array(n).fill(value)

/** Numbers in −1 to 1 that are the same every time. */
function noise(n) {
  const values = new Float32Array(n)
  let state = 1
  for (let i = 0; i < n; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    values[i] = state / 2 ** 31 - 1
  }
  return values
}

const list = (values) => fromArray(Int32Array.from(values), [values.length], 'i32', cuda)
const bench = {
  ops,
  tensor: (shape, dtype = 'bf16') => fromArray(noise(sizeOf(shape)), shape, dtype, cuda),
  zeros: (shape, dtype = 'bf16') => fromArray(filled(sizeOf(shape), 0), shape, dtype, cuda),
  constant: (shape, value) => fromArray(filled(sizeOf(shape), value), shape, 'f32', cuda),
  ints: (n, below) => list(Array.from(noise(n), (x) => Math.floor(((x + 1) / 2) * below))),
  steps: (n) => list(Array.from({ length: n }, (_, i) => i)),
  same: (n, value) => list(Array.from({ length: n }, () => value)),
  segments: (T) => ({ start: list([0, T]), prefix: list([-1]), positions: bench.steps(T) }),
}

let seen = 0
/** The launches since the last call. */
function launches() {
  const lines = existsSync(stats) ? readFileSync(stats, 'utf8').trim().split('\n') : []
  const fresh = lines.slice(seen).map((line) => JSON.parse(line))
  seen = lines.length
  return fresh
}

async function run(part, shape) {
  const live = scope()
  part.run(bench, shape)
  await cuda.synchronize()
  live.dispose()
  const all = launches()
  const skipped = part.skip ? all.findLastIndex(({ kernel }) => part.skip.test(kernel)) + 1 : 0
  return all.slice(skipped).filter(({ kernel }) => part.only?.test(kernel) ?? true)
}

const choose = (shape) => native().gemmConfig(shape, arch, gpu.sms, (gpu.sharedBytes - 1024) | 0)
const all = [...casesOf(arch, choose), ...peerCases(arch)]
for (const { title, parts } of all) {
  if (only.length > 0 && !only.some((word) => title.includes(word))) continue
  for (const [at, part] of parts.entries()) {
    for (const [sample, shape] of part.samples.entries()) {
      const line = { title, part: at, sample, launches: await run(part, shape) }
      process.stdout.write(`${JSON.stringify(line)}\n`)
    }
  }
}
