import { createHash } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openSafetensors, readTensor } from '../../src/checkpoint/safetensors.js'
import { device } from '../../src/device/device.js'
import { parseRecipe } from '../../src/recipe/recipe.js'
import { dpo } from '../../src/train/dpo.js'
import { sft } from '../../src/train/sft.js'
import type { RunOptions, RunResult } from '../../src/train/story.js'
import { fixturePath } from '../support/fixtures.js'

let root: string
let made = 0

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'westwind-story-'))
  process.env.WESTWIND_CACHE = join(root, 'cache')
})

afterAll(async () => {
  expect(device('cpu').stats()).toMatchObject({ liveBytes: 0, forgottenTensors: 0 })
  await rm(root, { recursive: true, force: true })
})

type Keys = Record<string, unknown>

const shared: Keys = {
  model_name_or_path: fixturePath('golden/models/h64d32_win16_tied/f32'),
  tokenizer_name_or_path: fixturePath('golden/tiny_tokenizer'),
  bf16: false,
  dtype: 'float32',
  max_steps: 6,
  logging_steps: 1,
  save_strategy: 'no',
  report_to: 'none',
  lr_scheduler_type: 'linear',
  warmup_ratio: 0.1,
}

/** A run of dSFT or dDPO in a folder of its own. */
async function run(
  kind: 'sft' | 'dpo',
  keys: Keys = {},
  options: RunOptions = {},
): Promise<RunResult> {
  const output_dir = join(root, `run-${made++}`)
  if (kind === 'sft') {
    const dataset_name = fixturePath('golden/trl_sft/packing_bfd.dataset.jsonl')
    const all = {
      ...shared,
      dataset_name,
      learning_rate: 2e-3,
      max_length: 128,
      output_dir,
      ...keys,
    }
    return sft(parseRecipe('sft', { per_device_train_batch_size: 2, ...all }), options)
  }
  const dataset_name = fixturePath('golden/trl_dpo/sigmoid_beta0.1.dataset.jsonl')
  const all = { ...shared, dataset_name, learning_rate: 5e-4, output_dir, ...keys }
  return dpo(parseRecipe('dpo', { per_device_train_batch_size: 2, ...all }), options)
}

async function sha(path: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex')
}

/** Hash of the final weights. */
const weights = (result: RunResult) => sha(join(result.outputDir, 'model.safetensors'))

/** metrics.jsonl without what depends on the clock. */
async function metrics(result: RunResult): Promise<Record<string, number>[]> {
  const text = await readFile(join(result.outputDir, 'metrics.jsonl'), 'utf8')
  const clock = ['tokens_per_second', 'pairs_per_second', 'seconds_per_step', 'mfu']
  return text
    .trim()
    .split('\n')
    .map((line) => {
      const record = JSON.parse(line) as Record<string, number>
      for (const name of [...clock, 'peak_memory_bytes', 'eval_runtime']) delete record[name]
      return record
    })
}

/** Largest difference between the final weights of two runs. */
async function weightDifference(a: RunResult, b: RunResult): Promise<number> {
  const [x, y] = await Promise.all(
    [a, b].map(({ outputDir }) => openSafetensors(join(outputDir, 'model.safetensors'))),
  )
  let difference = 0
  for (const [name, entry] of x!.tensors) {
    const left = await readTensor(x!.file, entry)
    const right = await readTensor(y!.file, y!.tensors.get(name)!)
    for (let i = 0; i < left.length; i++) {
      difference = Math.max(difference, Math.abs(Number(left[i]) - Number(right[i])))
    }
  }
  return difference
}

describe('what must hold of every run', () => {
  it('dSFT: the loss falls, and the output folder has everything', async () => {
    const result = await run('sft', {
      max_steps: 20,
      packing: true,
      report_to: 'tensorboard',
      save_strategy: 'steps',
      save_steps: 8,
      save_total_limit: 1,
    })
    const log = await metrics(result)
    expect(log).toHaveLength(20)
    expect(log.at(-1)!.loss!).toBeLessThan(0.75 * log[0]!.loss!)
    const files = await readdir(result.outputDir)
    for (const file of [
      ...['config.json', 'generation_config.json', 'model.safetensors', 'tokenizer.json'],
      ...['tokenizer_config.json', 'chat_template.jinja', 'trainer_state.json', 'README.md'],
      ...['all_results.json', 'train_results.json', 'metrics.jsonl', 'runs', 'checkpoint-16'],
    ]) {
      expect(files).toContain(file)
    }
    expect(files).not.toContain('checkpoint-8')
    expect(await readdir(join(result.outputDir, 'runs'))).toHaveLength(1)
  })

  it('dDPO: the loss of the first step is exactly ln 2, rewards grow apart', async () => {
    const result = await run('dpo', { max_steps: 24, learning_rate: 1e-3 })
    const log = await metrics(result)
    expect(log[0]!.loss).toBe(Math.LN2)
    expect(log[0]!['rewards/margins']).toBe(0)
    const late = log.slice(-6).map((record) => record['rewards/margins']!)
    expect(late.reduce((a, b) => a + b, 0)).toBeGreaterThan(0)
  })

  it.each(['sft', 'dpo'] as const)('%s: two runs give the same bits', async (kind) => {
    const keys = { dtype: 'bfloat16', bf16: true, max_steps: 4 }
    const [a, b] = [await run(kind, keys), await run(kind, keys)]
    expect(await weights(a)).toBe(await weights(b))
    expect(await metrics(a)).toEqual(await metrics(b))
  })

  it('SFT: accumulated micro-batches equal one big batch', async () => {
    const one = await run('sft', { per_device_train_batch_size: 6, max_grad_norm: 0 })
    const three = await run('sft', {
      per_device_train_batch_size: 2,
      gradient_accumulation_steps: 3,
      max_grad_norm: 0,
    })
    expect(await weightDifference(one, three)).toBeLessThan(2e-5)
    const [x, y] = [await metrics(one), await metrics(three)]
    for (const [i, record] of x.entries())
      expect(Math.abs(record.loss! - y[i]!.loss!)).toBeLessThan(1e-5)
  })

  it('SFT: packed rows equal the same conversations one by one', async () => {
    const common = { max_steps: 1, learning_rate: 1e-2, warmup_ratio: 0, max_grad_norm: 0 }
    const size = { per_device_train_batch_size: 1000 } // all of the data in one step
    const packed = await run('sft', { ...common, ...size, packing: true })
    const plain = await run('sft', { ...common, ...size, packing: false })
    const [x, y] = [await metrics(packed), await metrics(plain)]
    expect(Math.abs(x[0]!.loss! - y[0]!.loss!)).toBeLessThan(1e-5)
    expect(x[0]!.num_tokens).toBe(y[0]!.num_tokens)
    expect(Math.abs(x[0]!.grad_norm! / y[0]!.grad_norm! - 1)).toBeLessThan(1e-4)
  })

  it('DPO: shared prompts equal plain pairs', async () => {
    const shared = await run('dpo', { prefix_sharing: true })
    const plain = await run('dpo', { prefix_sharing: false })
    const [x, y] = [await metrics(shared), await metrics(plain)]
    for (const [i, record] of x.entries()) {
      expect(Math.abs(record.loss! - y[i]!.loss!)).toBeLessThan(1e-5)
      expect(record.num_tokens).toBe(y[i]!.num_tokens)
    }
    expect(await weightDifference(shared, plain)).toBeLessThan(5e-5)
  })

  it.each(['sft', 'dpo'] as const)(
    '%s: a token budget changes memory, not the result',
    async (kind) => {
      const keys = { per_device_train_batch_size: 4, max_steps: 3 }
      const whole = await run(kind, keys)
      const split = await run(kind, { ...keys, max_tokens_per_micro_batch: 200 })
      const [x, y] = [await metrics(whole), await metrics(split)]
      for (const [i, record] of x.entries())
        expect(Math.abs(record.loss! - y[i]!.loss!)).toBeLessThan(1e-5)
      expect(await weightDifference(whole, split)).toBeLessThan(5e-5)
    },
  )

  it.each(['sft', 'dpo'] as const)(
    '%s: recomputing activations gives the same bits',
    async (kind) => {
      const keys = { max_steps: 3, dtype: 'bfloat16', bf16: true }
      const kept = await run(kind, keys)
      const again = await run(kind, { ...keys, gradient_checkpointing: true })
      expect(await weights(again)).toBe(await weights(kept))
    },
  )
})

describe('resume', () => {
  it.each([
    { kind: 'sft', optim: 'adamw_torch', bf16: true, loggingSteps: 1 },
    { kind: 'sft', optim: 'rmsprop', bf16: false, loggingSteps: 4 },
    { kind: 'dpo', optim: 'adamw_torch', bf16: true, loggingSteps: 3 },
  ] as const)(
    '$kind with $optim, bf16 $bf16: bit for bit what never stopping gives',
    async (variant) => {
      const keys: Keys = {
        optim: variant.optim,
        bf16: variant.bf16,
        dtype: variant.bf16 ? 'bfloat16' : 'float32',
        logging_steps: variant.loggingSteps,
        gradient_accumulation_steps: 2,
        max_steps: 10,
        save_strategy: 'steps',
        save_steps: 5,
      }
      const whole = await run(variant.kind, keys)
      const controller = new AbortController()
      const output_dir = join(root, `resumed-${made++}`)
      const stopAt = 5
      const stopped = await run(
        variant.kind,
        { ...keys, output_dir },
        {
          signal: controller.signal,
          stream: {
            write: () => true,
            on: () => undefined,
          },
          onLog: ({ step }) => {
            if (step! >= stopAt - 1) controller.abort()
          },
        },
      )
      expect(stopped.stopped).toBe(true)
      expect(stopped.steps).toBeLessThan(10)
      const resumed = await run(variant.kind, { ...keys, output_dir, resume_from_checkpoint: true })
      expect(resumed.steps).toBe(10)
      expect(await weights(resumed)).toBe(await weights(whole))
      const last = (result: RunResult) =>
        sha(join(result.outputDir, 'checkpoint-10/optimizer.safetensors'))
      expect(await last(resumed)).toBe(await last(whole))
      expect(await metrics(resumed)).toEqual(await metrics(whole))
    },
  )

  it('other settings than those of the checkpoint are refused by name', async () => {
    const keys = { save_strategy: 'steps', save_steps: 3, max_steps: 3 }
    const { outputDir } = await run('sft', keys)
    const again = run('sft', {
      ...keys,
      output_dir: outputDir,
      resume_from_checkpoint: true,
      learning_rate: 1,
    })
    await expect(again).rejects.toThrow(/learning_rate was 0.002, is 1/)
  })

  it('without a checkpoint yet, the run starts from the beginning', async () => {
    const result = await run('sft', { max_steps: 2, resume_from_checkpoint: true })
    expect(result.steps).toBe(2)
  })
})

describe('evaluation', () => {
  it.each(['sft', 'dpo'] as const)(
    '%s: by steps and at the end, logged under eval_',
    async (kind) => {
      const result = await run(kind, {
        max_steps: 4,
        eval_strategy: 'steps',
        eval_steps: 2,
        do_eval: true,
        dataset_test_split: 'train',
      })
      const log = await metrics(result)
      const evaluations = log.filter((record) => 'eval_loss' in record)
      expect(evaluations.map(({ step }) => step)).toEqual([2, 4])
      expect(result.metrics.eval_loss).toBeGreaterThan(0)
      const files = await readdir(result.outputDir)
      expect(files).toContain('eval_results.json')
    },
  )
})

describe('what stops a run', () => {
  it('a loss that is not finite: named with step, micro-batch and tensor', async () => {
    const broken = run('sft', { learning_rate: 1e30, warmup_ratio: 0, max_grad_norm: 0 })
    await expect(broken).rejects.toMatchObject({
      code: 'ERR_NON_FINITE',
      message: expect.stringMatching(/step \d+, micro-batch \d+: .*first bad tensor: \S+/),
    })
  })

  it('data without any row that can be trained on', async () => {
    const empty = join(root, 'empty.jsonl')
    await writeFile(empty, '')
    await expect(run('sft', { dataset_name: empty })).rejects.toMatchObject({ code: 'ERR_DATA' })
  })

  it('a tokenizer with more tokens than the model', async () => {
    const small = {
      architectures: ['MistralForCausalLM'],
      vocab_size: 100,
      hidden_size: 32,
      intermediate_size: 64,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      sliding_window: null,
    }
    const broken = run('sft', { model_name_or_path: null, init_from_config: small })
    await expect(broken).rejects.toThrow(/the tokenizer has 320 tokens, the model only 100/)
  })
})
