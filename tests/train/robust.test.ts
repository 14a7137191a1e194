import { createHash } from 'node:crypto'
import { cp, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openSafetensors } from '../../src/checkpoint/safetensors.js'
import type { PairExample } from '../../src/data/encode.js'
import { device } from '../../src/device/device.js'
import { loadModel } from '../../src/model/model.js'
import { parseRecipe } from '../../src/recipe/recipe.js'
import { dpo } from '../../src/train/dpo.js'
import { checkReference, type ReferenceOptions, referenceLogps } from '../../src/train/reference.js'
import { sft } from '../../src/train/sft.js'
import type { RunOptions, RunResult } from '../../src/train/story.js'
import { fixturePath, jsonLines, readJson } from '../support/fixtures.js'

type Keys = Record<string, unknown>

const weightsOf = fixturePath('golden/models/h64d32_win16_tied/f32')
const threadsBefore = process.env.WESTWIND_THREADS
let root: string
let made = 0

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'westwind-robust-'))
  process.env.WESTWIND_CACHE = join(root, 'cache')
})

afterAll(async () => {
  expect(device('cpu').stats()).toMatchObject({ liveBytes: 0, forgottenTensors: 0 })
  await rm(root, { recursive: true, force: true })
})

/** A short run on the fixtures, in a folder of its own. */
function run(kind: 'sft' | 'dpo', keys: Keys = {}, options: RunOptions = {}): Promise<RunResult> {
  const name = kind === 'sft' ? 'trl_sft/packing_bfd' : 'trl_dpo/sigmoid_beta0.1'
  const all = {
    model_name_or_path: weightsOf,
    tokenizer_name_or_path: fixturePath('golden/tiny_tokenizer'),
    dataset_name: fixturePath(`golden/${name}.dataset.jsonl`),
    dtype: 'float32',
    bf16: false,
    max_steps: 3,
    max_length: 128,
    learning_rate: 1e-3,
    logging_steps: 1,
    save_strategy: 'no',
    report_to: 'none',
    per_device_train_batch_size: 2,
    output_dir: join(root, `run-${made++}`),
    ...keys,
  }
  if (kind === 'sft') return sft(parseRecipe('sft', all), options)
  return dpo(parseRecipe('dpo', all), options)
}

async function sha(path: string): Promise<string> {
  const bytes = await readFile(path)
  return createHash('sha256').update(bytes).digest('hex')
}

/** A data set of the first `count` rows of a fixture. */
async function firstRows(name: string, count: number): Promise<string> {
  const path = join(root, `rows-${made++}.jsonl`)
  const rows = jsonLines<Keys>(fixturePath(`golden/${name}.dataset.jsonl`)).slice(0, count)
  await writeFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  return path
}

/** The golden model with one number of a tensor replaced. */
async function damagedModel(tensor: string, value: number): Promise<string> {
  const dir = join(root, `model-${made++}`)
  await cp(weightsOf, dir, { recursive: true })
  const file = join(dir, 'model.safetensors')
  const { begin } = (await openSafetensors(file)).tensors.get(tensor)!
  const handle = await open(file, 'r+')
  await handle.write(new Uint8Array(Float32Array.of(value).buffer), 0, 4, begin)
  await handle.close()
  return dir
}

describe('how long a run is and what it does on the way', () => {
  it('a fractional epoch with a short last window: exact steps, evaluation and checkpoints by epoch', async () => {
    // 10 conversations in 5 micro-batches: 3 steps an epoch, the last of a single micro-batch.
    const result = await run('sft', {
      dataset_name: await firstRows('trl_sft/packing_bfd', 10),
      max_steps: -1,
      num_train_epochs: 1.5,
      gradient_accumulation_steps: 2,
      eval_strategy: 'epoch',
      save_strategy: 'epoch',
      dataset_test_split: 'train',
      logging_steps: 2,
      logging_first_step: true,
    })
    expect(result.steps).toBe(5)
    const steps = (name: string) =>
      result.history.filter((record) => name in record).map(({ step }) => step)
    expect(steps('loss')).toEqual([1, 2, 4])
    expect(steps('eval_loss')).toEqual([3, 5])
    const names = await readdir(result.outputDir)
    expect(names.filter((name) => name.startsWith('checkpoint')).sort()).toEqual([
      'checkpoint-3',
      'checkpoint-5',
    ])
    expect(names).not.toContain('runs')
    const state = readJson<Keys>(join(result.outputDir, 'checkpoint-5/trainer_state.json'))
    expect(state.epoch).toBeCloseTo(5 / 3, 12)
    expect(result.metrics.train_loss).toBeGreaterThan(0)
  })

  it('the mean training loss is over all steps, logged or not, also after a resume', async () => {
    const keys = { max_steps: 5, save_strategy: 'steps', save_steps: 3 }
    const each = await run('sft', keys)
    const losses = each.history.map(({ loss }) => loss!)
    const mean = losses.reduce((a, b) => a + b, 0) / 5
    expect(each.metrics.train_loss).toBeCloseTo(mean, 12)
    const rarely = await run('sft', { ...keys, logging_steps: 4 })
    expect(rarely.metrics.train_loss).toBeCloseTo(mean, 12)
    const { outputDir: output_dir } = rarely
    const at3 = join(output_dir, 'checkpoint-3')
    const resumed = await run('sft', {
      ...keys,
      logging_steps: 4,
      output_dir,
      resume_from_checkpoint: at3,
    })
    expect(resumed.metrics.train_loss).toBe(rarely.metrics.train_loss)
  })

  it.each(['sft', 'dpo'] as const)('%s: the bits do not depend on the threads', async (kind) => {
    const hashes = new Set<string>()
    for (const threads of ['1', '2']) {
      device('cpu').dispose()
      process.env.WESTWIND_THREADS = threads
      const keys = { max_steps: 4, bf16: true, dtype: 'bfloat16' }
      const { outputDir } = await run(kind, keys)
      expect(device('cpu').units).toBe(Number(threads))
      hashes.add(await sha(join(outputDir, 'model.safetensors')))
    }
    device('cpu').dispose()
    if (threadsBefore === undefined) delete process.env.WESTWIND_THREADS
    else process.env.WESTWIND_THREADS = threadsBefore
    expect(hashes.size).toBe(1)
  })
})

describe('resume', () => {
  it('dDPO with RMSprop in f32, in the middle of a log window: bit for bit', async () => {
    const keys = {
      optim: 'rmsprop',
      learning_rate: 1e-4,
      max_steps: 7,
      logging_steps: 5,
      gradient_accumulation_steps: 2,
      save_strategy: 'steps',
      save_steps: 3,
    }
    const whole = await run('dpo', keys)
    const output_dir = join(root, `copy-${made++}`)
    await cp(join(whole.outputDir, 'checkpoint-3'), join(output_dir, 'checkpoint-3'), {
      recursive: true,
    })
    const resumed = await run('dpo', { ...keys, output_dir, resume_from_checkpoint: true })
    for (const file of ['model.safetensors', 'checkpoint-6/optimizer.safetensors']) {
      expect(await sha(join(output_dir, file))).toBe(await sha(join(whole.outputDir, file)))
    }
    const timeless = ({ history }: RunResult) =>
      history.map(({ step, loss, grad_norm, num_tokens, ...rest }) => {
        return [step, loss, grad_norm, num_tokens, rest['rewards/margins']]
      })
    expect(timeless(resumed)).toEqual(timeless(whole))
  })

  it('of a finished run does no step and leaves the same model', async () => {
    const keys = { save_strategy: 'steps', save_steps: 3 }
    const { outputDir: output_dir } = await run('sft', keys)
    const before = await sha(join(output_dir, 'model.safetensors'))
    const again = await run('sft', { ...keys, output_dir, resume_from_checkpoint: true })
    expect(again.steps).toBe(3)
    expect(await sha(join(output_dir, 'model.safetensors'))).toBe(before)
  })

  it.each([
    ['sft', { max_tokens_per_micro_batch: 64 }, /max_tokens_per_micro_batch was null, is 64/],
    ['sft', { optim: 'rmsprop' }, /optim was adamw, is rmsprop/],
    ['sft', { packing: true }, /packing was false, is bfd/],
    ['dpo', { prefix_sharing: false }, /prefix_sharing was true, is false/],
    ['dpo', { beta: 0.2, loss_type: 'ipo' }, /beta was 0.1, is 0.2; loss_type was sigmoid, is ipo/],
  ] as const)('%s with other settings is refused by name: %o', async (kind, change, message) => {
    const keys = { save_strategy: 'steps', save_steps: 2, max_steps: 2 }
    const { outputDir: output_dir } = await run(kind, keys)
    const again = run(kind, { ...keys, output_dir, resume_from_checkpoint: true, ...change })
    await expect(again).rejects.toThrow(message)
  })

  it('of a run of the other stage is refused', async () => {
    const keys = { save_strategy: 'steps', save_steps: 2, max_steps: 2 }
    const { outputDir } = await run('sft', keys)
    const resume_from_checkpoint = join(outputDir, 'checkpoint-2')
    await expect(run('dpo', { ...keys, resume_from_checkpoint })).rejects.toThrow(
      /is of a run of sft, this is dpo/,
    )
  })
})

describe('what stops a run', () => {
  it.each([
    ['sft', 'model.layers.1.mlp.down_proj.weight', 'layers.1.down'],
    ['dpo', 'model.norm.weight', 'norm'],
  ] as const)('%s: a weight %s that is not a number is named', async (kind, tensor, parameter) => {
    const model_name_or_path = await damagedModel(tensor, Number.NaN)
    const error = run(kind, { model_name_or_path })
    if (kind === 'dpo') await expect(error).rejects.toMatchObject({ code: 'ERR_REFERENCE' })
    else {
      const message = `step 1, micro-batch 1: loss NaN, gradient norm NaN is not finite; first bad tensor: weight ${parameter}.`
      await expect(error).rejects.toMatchObject({
        code: 'ERR_NON_FINITE',
        message: expect.stringContaining(message),
      })
    }
  })

  it('a gradient that overflows under a finite loss is named, with its micro-batch', async () => {
    const broken = run('dpo', { beta: 3e38, gradient_accumulation_steps: 2 })
    await expect(broken).rejects.toMatchObject({
      code: 'ERR_NON_FINITE',
      message: expect.stringMatching(/step 1, micro-batch 1: .*first bad tensor: gradient of \S+/),
    })
  })

  it('an output_dir that is a file is refused before anything is computed', async () => {
    const output_dir = join(root, 'file')
    await writeFile(output_dir, '')
    await expect(run('sft', { output_dir })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining(
        `output_dir: ${output_dir} is not a folder that can be written`,
      ),
    })
  })

  it('the signal: the step under way is finished and saved, nothing is finished that was not', async () => {
    const controller = new AbortController()
    const onLog = ({ step }: Record<string, number>) => {
      if (step === 2) controller.abort()
    }
    const result = await run('sft', {}, { signal: controller.signal, onLog })
    expect(result).toMatchObject({ stopped: true, steps: 2 })
    const names = await readdir(result.outputDir)
    expect(names.sort()).toEqual(['checkpoint-2', 'metrics.jsonl', 'run.json'])
  })
})

describe('reference log-probs', () => {
  interface Row {
    prompt_ids: number[]
    chosen_ids: number[]
    rejected_ids: number[]
  }
  const pairs = jsonLines<Row>(fixturePath('golden/trl_dpo/sigmoid_beta0.1.dataset.jsonl'))
    .slice(0, 6)
    .map(
      (row): PairExample => ({
        promptIds: Int32Array.from(row.prompt_ids),
        chosenIds: Int32Array.from(row.chosen_ids),
        rejectedIds: Int32Array.from(row.rejected_ids),
      }),
    )
  const options: ReferenceOptions = { dataHash: 'six', batchSize: 4, prefixSharing: true }

  it('a damaged cache file is computed again, a sound one is read', async () => {
    using model = await loadModel(weightsOf, { device: device('cpu') })
    const cacheDir = join(root, 'reference')
    const first = await referenceLogps(model, pairs, { ...options, cacheDir })
    expect(first.fromCache).toBe(false)
    const [file] = await readdir(cacheDir)
    const path = join(cacheDir, file!)
    const bytes = await readFile(path)
    expect(await referenceLogps(model, pairs, { ...options, cacheDir })).toEqual({
      ...first,
      fromCache: true,
    })
    const flipped = Uint8Array.from(bytes, (x, i) => (i === bytes.length - 3 ? x ^ 1 : x))
    for (const damaged of [flipped, bytes.subarray(0, 40), Uint8Array.of()]) {
      await writeFile(path, damaged)
      expect(await referenceLogps(model, pairs, { ...options, cacheDir })).toEqual(first)
      expect(Buffer.compare(await readFile(path), bytes)).toBe(0)
    }
  })

  it('other weights have another cache file, and a reference of other weights is caught', async () => {
    const cacheDir = join(root, 'reference-2')
    using model = await loadModel(weightsOf, { device: device('cpu') })
    const reference = await referenceLogps(model, pairs, { ...options, cacheDir })
    const indices = [0, 1]
    const check = { indices, prefixSharing: true }
    expect(await checkReference(model, pairs, reference, check)).toBe(0)

    using changed = await loadModel(await damagedModel('model.norm.weight', 1.1), {
      device: device('cpu'),
    })
    const own = await referenceLogps(changed, pairs, { ...options, cacheDir })
    expect(own.fromCache).toBe(false)
    expect(await checkReference(changed, pairs, own, check)).toBe(0)
    await expect(checkReference(changed, pairs, reference, check)).rejects.toMatchObject({
      code: 'ERR_REFERENCE',
      message: expect.stringContaining('changed since the reference log-probs were cached'),
    })
  })
})
