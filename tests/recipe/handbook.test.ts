import { describe, expect, it } from 'vitest'
import type { DpoConfig, MixerData, SftConfig } from '../../src/recipe/config.js'
import { deviations } from '../../src/recipe/deviations.js'
import { loadRecipe } from '../../src/recipe/recipe.js'

const fixture = (name: string) =>
  new URL(`../fixtures/recipes/${name}.yaml`, import.meta.url).pathname

const mixer = (id: string, ...splits: string[]): MixerData => ({
  kind: 'mixer',
  sources: [{ id, fraction: 1, config: null }],
  splits,
})
const ultrachat = mixer('HuggingFaceH4/ultrachat_200k', 'train_sft', 'test_sft')
const ultrafeedback = mixer('HuggingFaceH4/ultrafeedback_binarized', 'train_prefs', 'test_prefs')
const part = (id: string, split: string, columns: string[]) => ({
  id,
  config: 'default',
  revision: null,
  split,
  columns,
  weight: 1,
})

const sftCommon: Partial<SftConfig> = {
  modelNameOrPath: 'mistralai/Mistral-7B-v0.1',
  modelRevision: 'main',
  dtype: 'bf16',
  maxLength: 2048,
  learningRate: 2e-5,
  lrSchedulerType: 'cosine',
  numTrainEpochs: 1,
  maxSteps: -1,
  evalStrategy: 'epoch',
  doEval: true,
  gradientCheckpointing: true,
  loggingSteps: 5,
  loggingStrategy: 'steps',
  outputDir: 'data/zephyr-7b-sft-full',
  seed: 42,
  optim: 'adamw',
  weightDecay: 0,
  maxGradNorm: 1,
}
const sftCases: Record<string, Partial<SftConfig>> = {
  'v0.2-sft-full': {
    ...sftCommon,
    data: ultrachat,
    chatTemplate: null,
    perDeviceTrainBatchSize: 32,
    perDeviceEvalBatchSize: 16,
    gradientAccumulationSteps: 2,
    warmupRatio: 0,
    saveStrategy: 'no',
    saveTotalLimit: null,
    reportTo: ['tensorboard'],
  },
  'v0.3-sft-full': {
    ...sftCommon,
    data: ultrachat,
    perDeviceTrainBatchSize: 16,
    perDeviceEvalBatchSize: 8,
    gradientAccumulationSteps: 1,
    warmupRatio: 0.1,
    saveStrategy: 'steps',
    saveSteps: 100,
    saveTotalLimit: 1,
    reportTo: ['tensorboard'],
  },
  'head-sft-full': {
    ...sftCommon,
    data: {
      kind: 'mixture',
      datasets: ['train_sft', 'test_sft'].map((split) =>
        part('HuggingFaceH4/ultrachat_200k', split, ['messages']),
      ),
      testSplitSize: 1000,
      seed: 0,
    },
    perDeviceTrainBatchSize: 16,
    warmupRatio: 0.1,
    saveSteps: 100,
    reportTo: [],
  },
}

const dpoCommon: Partial<DpoConfig> = {
  modelNameOrPath: 'alignment-handbook/zephyr-7b-sft-full',
  dtype: 'bf16',
  lossType: 'sigmoid',
  learningRate: 5e-7,
  warmupRatio: 0.1,
  maxLength: 1024,
  maxPromptLength: 512,
  evalStrategy: 'steps',
  evalSteps: 100,
  doEval: true,
  perDeviceTrainBatchSize: 8,
  gradientCheckpointing: true,
  loggingSteps: 10,
  outputDir: 'data/zephyr-7b-dpo-full',
  seed: 42,
}
const dpoCases: Record<string, Partial<DpoConfig>> = {
  'v0.2-dpo-full': {
    ...dpoCommon,
    data: ultrafeedback,
    beta: 0.1,
    optim: 'rmsprop',
    rmspropAlpha: 0.99,
    rmspropEpsilon: 1e-8,
    lrSchedulerType: 'linear',
    numTrainEpochs: 3,
    perDeviceEvalBatchSize: 4,
    gradientAccumulationSteps: 1,
    saveStrategy: 'no',
  },
  'v0.3-dpo-full': {
    ...dpoCommon,
    data: ultrafeedback,
    beta: 0.01,
    optim: 'adamw',
    lrSchedulerType: 'cosine',
    numTrainEpochs: 1,
    perDeviceEvalBatchSize: 8,
    gradientAccumulationSteps: 2,
    saveStrategy: 'steps',
    saveSteps: 100,
    saveTotalLimit: 1,
  },
  'head-dpo-full': {
    ...dpoCommon,
    data: {
      kind: 'mixture',
      datasets: ['train_prefs', 'test_prefs'].map((split) =>
        part('HuggingFaceH4/ultrafeedback_binarized', split, ['chosen', 'rejected']),
      ),
      testSplitSize: 2000,
      seed: 0,
    },
    beta: 0.01,
    optim: 'adamw',
    lrSchedulerType: 'cosine',
    numTrainEpochs: 1,
  },
}

describe('alignment-handbook recipes of every generation', () => {
  it.each(Object.entries(sftCases))('%s loads unchanged', async (name, expected) => {
    const { config, notes } = await loadRecipe('sft', fixture(name))
    expect(config).toMatchObject(expected)
    expect(notes).toContain(
      'push_to_hub: not supported: nothing is uploaded, the model stays in output_dir',
    )
  })

  it.each(Object.entries(dpoCases))('%s loads unchanged', async (name, expected) => {
    expect((await loadRecipe('dpo', fixture(name))).config).toMatchObject(expected)
  })

  it('keys without meaning here are noted, each with its reason', async () => {
    const { notes } = await loadRecipe('sft', fixture('head-sft-full'))
    const noted = notes.map((note) => note.slice(0, note.indexOf(':')))
    expect(noted.sort()).toEqual([
      'attn_implementation',
      'dataset_num_proc',
      'gradient_checkpointing_kwargs',
      'hub_model_id',
      'hub_strategy',
      'log_level',
      'overwrite_output_dir',
      'push_to_hub',
      'remove_unused_columns',
      'report_to',
    ])
    expect(notes).toContain(
      'report_to: wandb: no effect: metrics go to metrics.jsonl and TensorBoard files',
    )
  })

  it('a chat template in double quotes arrives with real line feeds', async () => {
    const { config } = await loadRecipe('sft', fixture('v0.3-sft-full'))
    expect(config.chatTemplate?.split('\n').slice(0, 4)).toEqual([
      '{% for message in messages %}',
      "{% if message['role'] == 'user' %}",
      "{{ '<|user|>",
      "' + message['content'] + eos_token }}",
    ])
    expect(config.chatTemplate).not.toContain('\\n')
  })

  it.each([
    ['sft', 'v0.2-sft-lora', ['use_peft']],
    ['dpo', 'v0.2-dpo-lora', ['use_peft']],
    ['sft', 'v0.3-sft-qlora', ['use_peft', 'load_in_4bit']],
    ['dpo', 'v0.3-dpo-qlora', ['use_peft', 'load_in_4bit']],
    ['sft', 'head-sft-qlora', ['use_peft', 'load_in_4bit']],
    ['dpo', 'head-dpo-qlora', ['use_peft', 'load_in_4bit']],
  ] as const)('%s recipe %s is refused, naming what is not supported', async (kind, name, keys) => {
    const error: unknown = await loadRecipe(kind, fixture(name)).catch((e: unknown) => e)
    expect(error).toMatchObject({ code: 'ERR_UNSUPPORTED' })
    const lines = String(error).split('\n')
    for (const key of keys) {
      expect(lines.filter((line) => line.includes(`${key}: true is refused: `))).toHaveLength(1)
    }
    expect(lines.filter((line) => line.includes(' is refused: '))).toHaveLength(keys.length)
  })

  it('a LoRA recipe trains all weights once its two switches are off', async () => {
    const { config, notes } = await loadRecipe('dpo', fixture('head-dpo-qlora'), [
      '--use_peft=false',
      '--load_in_4bit=False',
    ])
    expect(config).toMatchObject({ optim: 'adamw', learningRate: 5e-6 })
    expect(notes).toContain('lora_r: no effect: LoRA is off')
    expect(notes).toContain(
      'optim: paged_adamw_32bit is computed as AdamW with float32 states, which do not page',
    )
  })

  it('the deviations of the handbook from the paper are named', async () => {
    const { config } = await loadRecipe('dpo', fixture('head-dpo-full'))
    expect(deviations(config, { worldSize: 8 })).toEqual([
      'global batch: 128 = 8 per device x 2 accumulation x 8 devices (paper: 32)',
      'schedule: cosine (paper: linear)',
      'length of the run: 1 epoch (paper: 3 epochs)',
      'beta: 0.01 (paper: 0.1)',
    ])
  })
})
