// The parts below training: ops on tensors, log-probs of rows, and text as it is generated, stopped half-way.
//   node examples/score-and-generate.mjs [folder]        a second; a model with random weights unless there is folder/sft
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import * as westwind from 'westwind'
import { question, smallModel, writeTokenizer } from './small.mjs'

const { device, fromArray, generateStream, logprobs, ops, scope } = westwind
const folder = process.argv[2] ?? 'runs/examples'
const cpu = device('cpu')
console.log(`${cpu.name} with ${cpu.isa}, ${cpu.threads} threads`)

// An op returns at once; read() waits. The scope disposes what is made until it is closed.
const open = scope()
const a = fromArray([1, 2, 3, 4, 5, 6], [2, 3], 'f32', cpu)
const product = ops.gemm(a, a, { transB: true })
console.log('a · aᵀ =', Array.from(await product.read()).join(' '))
try {
  ops.gemm(a, a)
} catch (error) {
  console.log(`${error.code}: ${error.message}`)
}
open.dispose()

const model = await openModel()
const { prompt, answer } = question(10, 3)
const rows = [answer, 'q q q'].map((completion) => ({ prompt, completion }))
for await (const { sum, tokens } of logprobs(model, rows)) {
  console.log(`log-prob ${sum.toFixed(2)} of ${tokens} tokens`)
}

// Tokens come as they are made; leaving the loop, or aborting, gives all memory back.
const stop = new AbortController()
let text = ''
try {
  const options = { maxNewTokens: 40, temperature: 1, seed: 3, stopIds: [], signal: stop.signal }
  for await (const event of generateStream(model, [prompt], options)) {
    text += event.text
    if (text.length >= 10) stop.abort()
  }
} catch (error) {
  console.log(`${prompt} ${text} (${error.code})`)
}
model.dispose()
console.log(`${cpu.stats().liveBytes} bytes left`)

async function openModel() {
  const trained = join(folder, 'sft')
  if (existsSync(trained)) return westwind.loadModel(trained, { device: cpu })
  await writeTokenizer(join(folder, 'tokenizer'))
  const tokenizer = await westwind.loadTokenizer(join(folder, 'tokenizer'))
  const config = westwind.parseModelConfig(smallModel, 'smallModel')
  return westwind.createModel(config, { seed: 1, dtype: 'f32', device: cpu, tokenizer })
}
