import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { parseModelConfig } from '../../src/model/config.js'
import { zephyr } from '../../src/pipeline/zephyr.js'
import { deviations, globalBatch } from '../../src/recipe/deviations.js'
import { loadRecipe, parseRecipe } from '../../src/recipe/recipe.js'

const preset = (name: string) => new URL(`../../recipes/${name}`, import.meta.url).pathname

describe('recipes/zephyr-7b-beta', () => {
  it('sft.yaml is the run of the paper, with the data treatment of 2023', async () => {
    const { config, notes } = await loadRecipe('sft', preset('zephyr-7b-beta/sft.yaml'))
    expect(deviations(config, { examples: 207_865 })).toEqual([])
    expect(notes).toEqual([])
    expect(config).toMatchObject({ packing: 'wrapped', eosBetween: true, addBos: true })
  })

  it('dpo.yaml is the run of the paper, with the data treatment of 2023', async () => {
    const { config, notes } = await loadRecipe('dpo', preset('zephyr-7b-beta/dpo.yaml'))
    expect(deviations(config, { examples: 61_966 })).toEqual([])
    expect(notes).toEqual([])
    expect(config).toMatchObject({ scoreHeader: true, secondEos: true, insertEmptySystem: true })
  })
})

describe('recipes/zephyr-7b-beta and the preset', () => {
  it.each(['sft', 'dpo'] as const)(
    '%s.yaml says what the preset of the paper says',
    async (kind) => {
      const file = preset(`zephyr-7b-beta/${kind}.yaml`)
      const { preset: applied } = await loadRecipe(kind, file, ['--preset=paper'])
      expect(applied!.pins.filter(({ beatenBy }) => beatenBy !== undefined)).toEqual([])
    },
  )

  it('pipeline.yaml is valid, and its dry run names what would be downloaded, offline', async () => {
    let said = ''
    const write = (text: string) => {
      said += text
      return true
    }
    const stream = { write, on: () => undefined }
    process.env.HF_HUB_CACHE = '/nowhere'
    const pipeline = preset('zephyr-7b-beta/pipeline.yaml')
    const { stages } = await zephyr({ pipeline, dryRun: true, stream })
    delete process.env.HF_HUB_CACHE
    expect(stages.map(({ stage }) => stage).slice(0, 4)).toEqual([
      ...['sft', 'dpo', 'mt-bench/sft', 'mt-bench/dpo'],
    ])
    for (const id of [
      'mistralai/Mistral-7B-v0.1',
      'HuggingFaceH4/ultrachat_200k',
      'HuggingFaceH4/ultrafeedback_binarized',
    ]) {
      expect(said).toContain(`${id}, to be downloaded from the Hub`)
    }
    expect(said).not.toContain('not used')
  })
})

describe.each([
  ['bench-S', { hiddenSize: 512, layers: 8, heads: 8, kvHeads: 2, intermediateSize: 1536 }],
  ['bench-M', { hiddenSize: 1024, layers: 12, heads: 16, kvHeads: 4, intermediateSize: 2816 }],
])('recipes/%s', (name, sizes) => {
  it('sft.yaml starts from random weights of the benchmark size', async () => {
    const { config } = await loadRecipe('sft', preset(`${name}/sft.yaml`))
    expect(parseModelConfig(config.initFromConfig, name)).toMatchObject({
      architecture: 'MistralForCausalLM',
      vocabSize: 32000,
      slidingWindow: null,
      tieWordEmbeddings: false,
      ...sizes,
    })
    expect(config).toMatchObject({ packing: 'bfd', maxLength: 2048, maxSteps: 30, dtype: 'bf16' })
  })

  it('dpo.yaml goes on from there, and data is one override', async () => {
    const sft = await loadRecipe('sft', preset(`${name}/sft.yaml`))
    const { config } = await loadRecipe('dpo', preset(`${name}/dpo.yaml`), ['--dataset_name=prefs'])
    expect(config.modelNameOrPath).toBe(sft.config.outputDir)
    expect(config.data).toEqual({
      kind: 'name',
      name: 'prefs',
      config: null,
      trainSplit: 'train_prefs',
      testSplit: 'test_prefs',
    })
  })
})

describe('deviations', () => {
  const text = readFileSync(preset('zephyr-7b-beta/dpo.yaml'), 'utf8')
  const lines = (...overrides: string[]) =>
    deviations(parseRecipe('dpo', text, 'dpo', overrides).config)

  it.each([
    ['--learning_rate=5.0e-6', 'learning rate: 0.000005 (paper: 5e-7)'],
    ['--lr_scheduler_type=cosine', 'schedule: cosine (paper: linear)'],
    ['--warmup_ratio=0', 'warm-up: 0 % (paper: 10 %)'],
    ['--warmup_steps=7', 'warm-up: 7 steps (paper: 10 %)'],
    ['--num_train_epochs=1', 'length of the run: 1 epoch (paper: 3 epochs)'],
    ['--max_steps=5', 'length of the run: 5 steps (paper: 3 epochs)'],
    ['--optim=rmsprop', 'optimizer: rmsprop (paper: adamw)'],
    ['--beta=0.01', 'beta: 0.01 (paper: 0.1)'],
    ['--loss_type=ipo', 'loss: ipo (paper: sigmoid)'],
    ['--rpo_alpha=1', 'added SFT term: 1 (paper: none)'],
    ['--max_prompt_length=null', 'max_prompt_length: none (paper: 512)'],
    ['--bf16=false', 'precision: f32 (paper: bf16)'],
    ['--weight_decay=0.1', 'weight decay: 0.1 (paper: 0)'],
    ['--adam_beta2=0.95', 'AdamW betas and epsilon: 0.9, 0.95, 1e-8 (paper: 0.9, 0.999, 1e-8)'],
    ['--dataset_name=argilla/x', 'data: argilla/x (paper: ultrafeedback_binarized)'],
  ])('%s is reported as one line', (override, line) => {
    expect(lines(override)).toEqual([line])
  })

  it('what cannot change the result is not reported', () => {
    expect(
      lines(
        '--per_device_train_batch_size=2',
        '--gradient_accumulation_steps=16',
        '--gradient_checkpointing=false',
        '--prefix_sharing=false',
        '--logging_steps=1',
      ),
    ).toEqual([])
  })

  it('the global batch counts devices, and the accumulation that gives the paper’s is named', () => {
    const { config } = parseRecipe('dpo', text, 'dpo', ['--gradient_accumulation_steps=1'])
    expect(globalBatch(config, 2)).toBe(8)
    expect(deviations(config, { worldSize: 2 })).toEqual([
      'global batch: 8 = 4 per device x 1 accumulation x 2 devices (paper: 32; gradient_accumulation_steps: 4 would give it)',
    ])
  })

  it('SFT without packing, on other data and with masks is reported', () => {
    const { config } = parseRecipe('sft', {
      model_name_or_path: 'mistralai/Mistral-7B-v0.1',
      dataset_name: 'x/ultrachat_200k',
      output_dir: 'out',
      num_train_epochs: 1,
      max_length: 2048,
      warmup_ratio: 0.1,
      lr_scheduler_type: 'cosine',
      gradient_accumulation_steps: 64,
      assistant_only_loss: true,
    })
    expect(deviations(config, { examples: 100 })).toEqual([
      'training examples: 100 (paper: 207865)',
      'packing: off, a global batch counts conversations (paper: rows of packed ones)',
      "loss: on the assistant's turns (paper: on all tokens)",
    ])
  })
})
