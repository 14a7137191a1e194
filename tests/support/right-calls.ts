import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as westwind from '../../src/index.js'
import { Scope } from '../../src/tensor/scope.js'
import { Tensor } from '../../src/tensor/tensor.js'
import { fixturePath } from './fixtures.js'
import { randomModel, tinyTokenizer } from './small-models.js'

// A right call of every function that users can reach. tests/misuse.test.ts makes wrong ones of them.

/** Where the calls read and write. */
export const folder = mkdtempSync(join(tmpdir(), 'westwind-calls-'))

/** A call that is right. */
export interface Case {
  call: (...args: unknown[]) => unknown
  /** Names of the arguments, as patterns for messages that say one of several, and right values. */
  args: Record<string, unknown>
}

const { ops } = westwind
export const cpu = westwind.openCpu()
const f32 = (...shape: number[]) => filled('f32', shape, 0.5)
const i32 = (...shape: number[]) => filled('i32', shape, 0)
function filled(dtype: westwind.DType, shape: number[], value: number): westwind.Tensor {
  const size = shape.reduce((product, n) => product * n, 1)
  return westwind.fromArray(new Array<number>(size).fill(value), shape, dtype, cpu)
}

const tokenizer = tinyTokenizer()
const template = westwind.compileTemplate(westwind.zephyrTemplate)
const model = randomModel(cpu, { window: 16 })
const messages = [
  { role: 'user', content: 'hi' },
  { role: 'assistant', content: 'ho' },
]
const choiceRow = { question: 'Why?', choices: ['so', 'no'], gold: 0 }
const rows = [{ messages }, { text: 'words' }]
const sampling = { maxNewTokens: 1, temperature: 1, topK: 5, topP: 0.9, seed: 1, stopIds: [2] }
const { signal } = new AbortController()
const generation = {
  model,
  'prompts?': [[1, 5], messages],
  options: { ...sampling, raw: false, template, batchSize: 2, signal },
}
const stream = { write: () => true, on: () => undefined, columns: 80 }
const run = {
  device: 'cpu',
  signal,
  stream,
  onLog: () => undefined,
  profile: join(folder, 'trace.json'),
}
const keys = {
  model_name_or_path: fixturePath('golden/models/h64d32_win16_tied/f32'),
  tokenizer_name_or_path: fixturePath('golden/tiny_tokenizer'),
  bf16: false,
  max_steps: 1,
  max_length: 16,
  per_device_train_batch_size: 1,
  save_strategy: 'no',
  report_to: 'none',
}
const sftKeys = {
  ...keys,
  dataset_name: join(folder, 'sft.jsonl'),
  output_dir: join(folder, 'sft'),
}
const dpoKeys = {
  ...keys,
  dataset_name: join(folder, 'dpo.jsonl'),
  output_dir: join(folder, 'dpo'),
}
writeFileSync(join(folder, 'sft.jsonl'), `${JSON.stringify({ messages })}\n`)
writeFileSync(join(folder, 'dpo.jsonl'), '{"prompt":"a","chosen":"b","rejected":"c"}\n')
writeFileSync(join(folder, 'sft.yaml'), JSON.stringify(sftKeys))
const { output_dir: _, ...stageKeys } = sftKeys
const pipeline = { output_dir: join(folder, 'zephyr'), sft: stageKeys }
writeFileSync(join(folder, 'zephyr.yaml'), JSON.stringify(pipeline))

const evaluation = {
  maxNewTokens: 4,
  batchSize: 2,
  device: 'cpu',
  dtype: 'f32',
  concurrency: 2,
  signal,
  stream,
}
const question = { question_id: 1, category: 'math', turns: ['Why?'] }
const choices = [{ index: 0, turns: ['So.'] }]
const answer = { question_id: 1, answer_id: 'a', model_id: 'm', choices, tstamp: 1 }
const output = { instruction: 'Say.', output: 'Said.', generator: 'm' }
writeFileSync(join(folder, 'questions.jsonl'), JSON.stringify(question))
writeFileSync(join(folder, 'answers.jsonl'), JSON.stringify(answer))
writeFileSync(join(folder, 'outputs.json'), JSON.stringify([output]))

await westwind.saveModel(join(folder, 'served'), model, tokenizer.files)
async function serveAndClose(...args: Parameters<typeof westwind.serve>): Promise<void> {
  const server = await westwind.serve(...args)
  await server.close()
}
const answers = ['b', 'c'].map((response, i) => ({ model: 'm', response, overall_score: 5 - i }))
writeFileSync(
  join(folder, 'ratings.jsonl'),
  JSON.stringify({ instruction: 'a', completions: answers }),
)

const heads = { heads: 2, kvHeads: 1 }
const attention = { ...heads, window: 3, scale: 1 }
const segments = {
  start: westwind.fromArray([0, 4], [2], 'i32', cpu),
  prefix: westwind.fromArray([-1], [1], 'i32', cpu),
  positions: i32(4),
}
const cache = { k: f32(1, 8, 1, 2), v: f32(1, 8, 1, 2) }
const places = { slot: i32(4), position: i32(4) }
const trained = { param: f32(3), master: f32(3), grad: f32(3), first: f32(3), second: f32(3) }
const steps = { lr: 0.1, eps: 1e-8, gradScale: 1 }

export const functions: Record<string, Case> = {
  compileTemplate: of(westwind.compileTemplate, { source: westwind.zephyrTemplate }),
  encodeConversation: of(westwind.encodeConversation, {
    tokenizer,
    template,
    messages,
    options: { addBos: true },
  }),
  readRows: of(westwind.readRows, {
    file: join(folder, 'sft.jsonl'),
    options: { columns: ['messages'], signal },
  }),
  binarize: of(westwind.binarize, {
    options: {
      input: join(folder, 'ratings.jsonl'),
      out: join(folder, 'pairs'),
      chosen: 'overall',
      rejected: 'random',
      seed: 1,
      ties: 'keep',
      minMargin: 0,
      minSpread: 0,
      maxDisagreement: 1,
      decontaminate: [join(folder, 'sft.jsonl')],
      ngram: 13,
      testSize: 0,
      tokenizer: fixturePath('golden/tiny_tokenizer'),
      signal,
    },
  }),
  loadTokenizer: of(westwind.loadTokenizer, { dir: fixturePath('golden/tiny_tokenizer') }),
  tokenizerFromFiles: of(westwind.tokenizerFromFiles, { 'files|token': tokenizer.files }),
  cpuIsas: of(westwind.cpuIsas, {}),
  cudaDevices: of(westwind.cudaDevices, {}),
  device: of((...args) => String(Reflect.apply(westwind.device, undefined, args)), { name: 'cpu' }),
  openCpu: of(westwind.openCpu, { 'options|isa|instruction set': { isa: cpu.isa, threads: 1 } }),
  WestwindError: made(westwind.WestwindError, {
    code: 'ERR_DATA',
    message: 'what happened',
    options: Object.create(null, { cause: { value: 'why' } }), // a cause is anything
  }),
  logprobs: of(westwind.logprobs, {
    model,
    'rows?': rows,
    options: { template, batchTokens: 64, signal },
  }),
  evaluateChoices: of(westwind.evaluateChoices, {
    model,
    task: 'arc',
    'rows?': [choiceRow],
    options: {
      fewshot: 1,
      fewshotRows: [choiceRow],
      limit: 1,
      onProgress: () => undefined,
      signal,
    },
  }),
  evaluatePreferences: of(westwind.evaluatePreferences, {
    policy: model,
    reference: model,
    'rows?': [{ prompt: 'a', chosen: 'b', rejected: 'c' }],
    options: {
      ...{ beta: 0.1, template, maxLength: 16, limit: 1, klSamples: 1, maxNewTokens: 1, seed: 1 },
      ...{ onProgress: () => undefined, signal },
    },
  }),
  mtBench: of(westwind.mtBench, {
    options: {
      answers: join(folder, 'answers.jsonl'),
      modelId: 'tiny',
      questions: join(folder, 'questions.jsonl'),
      out: join(folder, 'mt-bench'),
      ...evaluation,
    },
  }),
  alpacaEval: of(westwind.alpacaEval, {
    options: {
      outputs: join(folder, 'outputs.json'),
      out: join(folder, 'alpaca-eval'),
      seed: 1,
      system: 'Be kind.',
      judgeMethod: 'rank',
      ...evaluation,
    },
  }),
  ChatSession: made(westwind.ChatSession, {
    model,
    options: { ...sampling, raw: false, template },
  }),
  parseModelConfig: of(westwind.parseModelConfig, {
    'json|config': model.config.raw,
    where: 'config',
  }),
  generate: of(westwind.generate, generation),
  generateStream: of(westwind.generateStream, generation),
  createModel: of(westwind.createModel, {
    config: model.config,
    options: { seed: 1, dtype: 'f32', device: cpu, tokenizer },
  }),
  loadModel: of(westwind.loadModel, {
    'pathOrId|model': fixturePath('golden/models/h64d16_full_untied/f32'),
    options: { device: cpu, dtype: 'f32', revision: 'main' },
  }),
  Model: made(westwind.Model, { init: { ...randomModel(cpu, { window: null }) } }),
  loadRecipe: of(westwind.loadRecipe, {
    kind: 'sft',
    file: join(folder, 'sft.yaml'),
    'overrides|--': ['--seed=1'],
  }),
  parseRecipe: of(westwind.parseRecipe, {
    kind: 'sft',
    recipe: sftKeys,
    where: 'recipe',
    'overrides|--': ['--seed=1'],
  }),
  isolated: of(westwind.isolated, { task: async () => 1 }),
  keep: of(westwind.keep, { tensor: f32(1) }),
  own: of(westwind.own, { tensor: f32(1) }),
  scope: of(westwind.scope, {}),
  empty: of(westwind.empty, { 'shape|elements': [2, 3], dtype: 'f32', on: cpu, tag: 'weights' }),
  fromArray: of(westwind.fromArray, {
    values: [1, 2],
    'shape|elements': [2],
    dtype: 'f32',
    on: cpu,
    tag: 'weights',
  }),
  dpo: of(westwind.dpo, { recipe: westwind.parseRecipe('dpo', dpoKeys), 'options|device': run }),
  report: of(westwind.report, {
    options: { runs: [folder], eval: [folder], out: join(folder, 'report.html') },
  }),
  saveModel: of(westwind.saveModel, {
    dir: join(folder, 'saved'),
    model,
    tokenizerFiles: { 'tokenizer.json': '{}' },
  }),
  serve: of(serveAndClose, {
    'options|model': {
      models: [join(folder, 'served')],
      port: 0,
      host: '127.0.0.1',
      apiKey: 'key',
      device: 'cpu',
      dtype: 'f32',
      maxBatch: 1,
      maxQueue: 1,
      maxLength: 16,
      requestTimeout: 10,
      shutdownTimeout: 1,
      logLevel: 'silent',
    },
  }),
  sft: of(westwind.sft, { recipe: westwind.parseRecipe('sft', sftKeys), 'options|device': run }),
  zephyr: of(westwind.zephyr, {
    'options|zephyr.yaml|pipeline|stage|device': {
      ...{ pipeline: join(folder, 'zephyr.yaml'), from: 'sft', until: 'sft', dryRun: true },
      ...{ device: 'cpu', signal, stream, onLog: () => undefined },
    },
  }),
}

export const opCases: Record<string, Case> = {
  attention: of(ops.attention, { qkv: f32(4, 4, 2), segments, options: attention }),
  attentionBackward: of(ops.attentionBackward, {
    dout: f32(4, 2, 2),
    qkv: f32(4, 4, 2),
    out: f32(4, 2, 2),
    lse: f32(2, 4),
    segments,
    options: attention,
  }),
  kvAppend: of(ops.kvAppend, { qkv: f32(4, 4, 2), cache, rows: places, options: heads }),
  kvGather: of(ops.kvGather, { qkv: f32(4, 4, 2), cache, rows: places, options: heads }),
  decodeAttention: of(ops.decodeAttention, {
    qkv: f32(4, 4, 2),
    cache,
    rows: places,
    options: attention,
  }),
  sample: of(ops.sample, {
    logits: f32(2, 3),
    uniform: f32(2),
    options: { temperature: 1, topK: 2, topP: 0.5 },
  }),
  fill: of(ops.fill, { x: f32(3), value: 1 }),
  scale: of(ops.scale, { x: f32(3), factor: 1 }),
  add: of(ops.add, { a: f32(3), b: f32(3) }),
  cast: of(ops.cast, { x: f32(3), dtype: 'f32', out: f32(3) }),
  embedding: of(ops.embedding, { table: f32(5, 2), ids: i32(4) }),
  embeddingBackward: of(ops.embeddingBackward, {
    dout: f32(4, 2),
    ids: i32(4),
    dtable: f32(5, 2),
  }),
  scatterAddRows: of(ops.scatterAddRows, { x: f32(4, 2), index: i32(4), rows: 5 }),
  gemm: of(ops.gemm, {
    a: f32(2, 3),
    b: f32(3, 2),
    options: { transA: false, transB: false, alpha: 1, beta: 1, out: f32(2, 2), dtype: 'f32' },
  }),
  linearLogps: of(ops.linearLogps, {
    hidden: f32(4, 2),
    weight: f32(5, 2),
    target: i32(4),
    'options|dlogps': { statistics: true, dlogps: f32(4), dweight: f32(5, 2) },
  }),
  linearLogpsBackward: of(ops.linearLogpsBackward, {
    hidden: f32(4, 2),
    weight: f32(5, 2),
    target: i32(4),
    lse: f32(4),
    dlogps: f32(4),
    dweight: f32(5, 2),
  }),
  adamw: of(ops.adamw, {
    tensors: [{ ...trained, weightDecay: 0 }],
    options: { ...steps, beta1: 0.9, beta2: 0.99, step: 1 },
  }),
  rmsprop: of(ops.rmsprop, {
    tensors: [{ ...trained, weightDecay: 0 }],
    options: { ...steps, alpha: 0.9 },
  }),
  sumSquares: of(ops.sumSquares, { tensors: [f32(2), f32(3)] }),
  rmsNorm: of(ops.rmsNorm, { x: f32(4, 2), weight: f32(2), eps: 1e-5, residual: f32(4, 2) }),
  rmsNormBackward: of(ops.rmsNormBackward, {
    dy: f32(4, 2),
    sum: f32(4, 2),
    weight: f32(2),
    rstd: f32(4),
    dweight: f32(2),
    dresidual: f32(4, 2),
  }),
  rope: of(ops.rope, { x: f32(4, 2, 2), positions: i32(4), heads: 1, theta: 1e4, inverse: true }),
  swiglu: of(ops.swiglu, { gateUp: f32(4, 4) }),
  swigluBackward: of(ops.swigluBackward, { dout: f32(4, 2), gateUp: f32(4, 4) }),
  tokenLogps: of(ops.tokenLogps, { logits: f32(4, 5), target: i32(4) }),
  tokenLogpsBackward: of(ops.tokenLogpsBackward, {
    logits: f32(4, 5),
    target: i32(4),
    lse: f32(4),
    dlogps: f32(4),
  }),
}

const session = new westwind.ChatSession(model, sampling)
function say(...args: [string, AbortSignal]) {
  session.reset()
  return session.say(...args)
}
const x = f32(2, 3)
export const methods: Record<string, [object, Record<string, Case>]> = {
  ChatTemplate: [
    template,
    {
      render: of(template.render, {
        messages,
        options: { addGenerationPrompt: true, bosToken: '', eosToken: '' },
      }),
      renderSpans: of(template.renderSpans, { messages, options: { bosToken: '', eosToken: '' } }),
    },
  ],
  Tokenizer: [
    tokenizer,
    {
      encode: of(tokenizer.encode, { text: 'hi', options: { addSpecialTokens: true } }),
      encodeMasked: of(tokenizer.encodeMasked, {
        text: 'hi there',
        spans: [{ start: 0, end: 2 }],
        options: { addSpecialTokens: true },
      }),
      decode: of(tokenizer.decode, { ids: [5, 6], options: { skipSpecialTokens: true } }),
      tokenToId: of(tokenizer.tokenToId, { token: '</s>' }),
      idToToken: of(tokenizer.idToToken, { id: 2 }),
      specialTokenAt: of(tokenizer.specialTokenAt, { text: '</s>', position: 0 }),
    },
  ],
  Tensor: [
    Tensor.prototype,
    {
      write: of(x.write.bind(x), { values: [1, 2, 3, 4, 5, 6] }),
      load: of(x.load.bind(x), { file: join(folder, 'sft.jsonl'), byteOffset: 0, fileType: 'f32' }),
      reshape: of(x.reshape.bind(x), { shape: [3, 2] }),
      rows: of(x.rows.bind(x), { start: 0, count: 1 }),
    },
  ],
  Device: [Object.getPrototypeOf(cpu), { time: of(cpu.time.bind(cpu), { work: () => {} }) }],
  Scope: [Scope.prototype, {}],
  Model: [westwind.Model.prototype, {}],
  ChatSession: [westwind.ChatSession.prototype, { say: of(say, { 'text|prompt': 'hi', signal }) }],
}

/** Methods that are marked @internal: no user calls them. */
export const internal = [
  'Device.allocate',
  'Device.record',
  'Scope.add',
  'Scope.has',
  'Scope.remove',
]

function of(call: (...args: never[]) => unknown, args: Record<string, unknown>): Case {
  return { call: (...given) => Reflect.apply(call, undefined, given), args }
}

function made(type: new (...args: never[]) => unknown, args: Record<string, unknown>): Case {
  return { call: (...given) => Reflect.construct(type, given), args }
}
