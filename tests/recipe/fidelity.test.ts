import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { compileTemplate, zephyrTemplate } from '../../src/data/chat-template.js'
import { encodePair } from '../../src/data/encode-pair.js'
import { encodeSft } from '../../src/data/encode-sft.js'
import { documents, packWrapped } from '../../src/data/packing.js'
import { encodeOptions } from '../../src/recipe/encode-options.js'
import { type PresetName, presetLines, presetNames } from '../../src/recipe/presets.js'
import { parseRecipe } from '../../src/recipe/recipe.js'
import { sft as train } from '../../src/train/sft.js'
import { fixturePath } from '../support/fixtures.js'
import { tinyTokenizer } from '../support/small-models.js'

const base = { model_name_or_path: 'm', dataset_name: 'd', output_dir: 'o' }
const sft = (preset: PresetName, keys: Record<string, unknown> = {}) =>
  parseRecipe('sft', { ...base, preset, ...keys })
const dpo = (preset: PresetName, keys: Record<string, unknown> = {}) =>
  parseRecipe('dpo', { ...base, preset, ...keys })

const tokenizer = tinyTokenizer()
const template = compileTemplate(zephyrTemplate)
const text = (ids: ArrayLike<number>) => tokenizer.decode([...Array.from(ids)], {})

describe('what the presets differ in', () => {
  it.each([
    ['paper', { warmupRatio: 0.1, batch: 512, scheduleUnpacked: true }],
    ['handbook-v0.2', { warmupRatio: 0, batch: 512, scheduleUnpacked: true }],
    ['handbook-v0.3', { warmupRatio: 0.1, batch: 128, scheduleUnpacked: false }],
  ] as const)('dSFT of %s', (preset, { batch, ...expected }) => {
    const { config } = sft(preset)
    expect(config.perDeviceTrainBatchSize * config.gradientAccumulationSteps).toBe(batch)
    expect(config).toMatchObject({
      ...expected,
      learningRate: 2e-5,
      lrSchedulerType: 'cosine',
      numTrainEpochs: 1,
      maxLength: 2048,
      packing: 'wrapped',
      eosBetween: true,
      addBos: true,
      insertEmptySystem: true,
      assistantOnlyLoss: false,
      dtype: 'bf16',
    })
  })

  it.each([
    ['paper', { beta: 0.1, batch: 32, optim: 'adamw', epochs: 3, schedule: 'linear', bos: false }],
    [
      'handbook-v0.2',
      { beta: 0.1, batch: 64, optim: 'rmsprop', epochs: 3, schedule: 'linear', bos: false },
    ],
    [
      'handbook-v0.3',
      { beta: 0.01, batch: 128, optim: 'adamw', epochs: 1, schedule: 'cosine', bos: true },
    ],
  ] as const)('dDPO of %s', (preset, expected) => {
    const { config } = dpo(preset)
    expect({
      beta: config.beta,
      batch: config.perDeviceTrainBatchSize * config.gradientAccumulationSteps,
      optim: config.optim,
      epochs: config.numTrainEpochs,
      schedule: config.lrSchedulerType,
      bos: config.addBos,
    }).toEqual(expected)
    expect(config).toMatchObject({
      learningRate: 5e-7,
      warmupRatio: 0.1,
      maxLength: 1024,
      maxPromptLength: 512,
      scoreHeader: true,
      secondEos: true,
      insertEmptySystem: true,
    })
  })
})

describe('the tokens that the presets train on', () => {
  const messages = [
    { role: 'user', content: 'Hi' },
    { role: 'assistant', content: 'Yo' },
  ]
  const rendered = '<|system|>\n</s>\n<|user|>\nHi</s>\n<|assistant|>\nYo</s>\n'
  const whole = tokenizer.encode(rendered)

  it.each(presetNames)(
    'dSFT of %s: BOS, an empty system turn, EOS after the document, all of it scored',
    (preset) => {
      const { config } = sft(preset)
      const row = { messages }
      const example = encodeSft(tokenizer, template, row, encodeOptions(config))
      if ('dropped' in example) throw new Error(example.dropped)
      const rows = packWrapped(documents([example, example]), 2 * (whole.length + 2), {
        eosBetween: config.eosBetween ? tokenizer.eosId : undefined,
      })
      const [first] = rows.at(0) as [typeof example]
      const document = [1, ...whole, 2] // BOS <s> is 1, EOS </s> is 2
      expect([...first.ids]).toEqual([...document, ...document])
      expect([...first.labels]).toEqual([...first.ids])
    },
  )

  it.each([
    ['paper', false],
    ['handbook-v0.2', false],
    ['handbook-v0.3', true],
  ] as const)(
    'dDPO of %s: the header belongs to the answer, a second EOS ends it, BOS %s',
    (preset, bos) => {
      const turn = (content: string) => [messages[0]!, { role: 'assistant', content }]
      const pair = { chosen: turn('Yo'), rejected: turn('No') }
      const example = encodePair(tokenizer, template, pair, encodeOptions(dpo(preset).config))
      if ('dropped' in example) throw new Error(example.dropped)
      const prompt = tokenizer.encode('<|system|>\n</s>\n<|user|>\nHi</s>\n')
      expect([...example.promptIds]).toEqual([...(bos ? [1] : []), ...prompt])
      expect([...example.chosenIds]).toEqual([...whole.slice(prompt.length), 2])
      expect(text(example.rejectedIds)).toContain('<|assistant|>')
      expect(example.rejectedIds.at(-1)).toBe(2)
    },
  )

  it('a pair that is too long: the prompt keeps its end, then the answers their beginning', () => {
    const prompt = Array.from({ length: 10 }, (_, i) => 100 + i)
    const answer = Array.from({ length: 9 }, (_, i) => 200 + i)
    const { config } = dpo('paper', { max_length: 8, max_prompt_length: 3 })
    const ids = { prompt_ids: prompt, chosen_ids: answer, rejected_ids: [7] }
    expect(encodePair(undefined, undefined, ids, encodeOptions(config))).toEqual({
      promptIds: Int32Array.of(107, 108, 109),
      chosenIds: Int32Array.of(200, 201, 202, 203, 204),
      rejectedIds: Int32Array.of(7),
      truncated: true,
    })
  })

  it('without a preset the same pair has no header in its answers, one EOS and no system turn', () => {
    const turn = (content: string) => [messages[0]!, { role: 'assistant', content }]
    const { config } = parseRecipe('dpo', base)
    const pair = { chosen: turn('Yo'), rejected: turn('No') }
    const example = encodePair(tokenizer, template, pair, encodeOptions(config))
    if ('dropped' in example) throw new Error(example.dropped)
    const prompt = tokenizer.encode('<|user|>\nHi</s>\n<|assistant|>\n')
    const full = tokenizer.encode('<|user|>\nHi</s>\n<|assistant|>\nYo</s>\n')
    expect([...example.promptIds]).toEqual(prompt)
    expect([...example.chosenIds]).toEqual(full.slice(prompt.length))
  })
})

it('schedule_unpacked plans the rate for the conversations, and the run ends with the packed rows', async () => {
  const root = await mkdtemp(join(tmpdir(), 'westwind-fidelity-'))
  process.env.WESTWIND_CACHE = join(root, 'cache')
  const recipe = parseRecipe('sft', {
    model_name_or_path: fixturePath('golden/models/h64d32_win16_tied/f32'),
    tokenizer_name_or_path: fixturePath('golden/tiny_tokenizer'),
    dataset_name: fixturePath('golden/trl_sft/packing_bfd.dataset.jsonl'), // 160 conversations
    dtype: 'float32',
    packing: 'wrapped',
    schedule_unpacked: true,
    max_length: 512,
    per_device_train_batch_size: 4,
    num_train_epochs: 1,
    learning_rate: 1e-3,
    lr_scheduler_type: 'linear',
    warmup_ratio: 0.05,
    logging_steps: 1,
    save_strategy: 'no',
    report_to: 'none',
    output_dir: join(root, 'run'),
  })
  const { steps, history } = await train(recipe)
  // 160 / 4 = 40 planned steps, ceil(0.05 * 40) = 2 of warm-up, then down by 1/38 a step
  const planned = Array.from({ length: steps }, (_, t) =>
    t < 2 ? (1e-3 * t) / 2 : 1e-3 * (1 - (t - 2) / 38),
  )
  expect(steps).toBeLessThan(20)
  for (const [t, rate] of planned.entries()) {
    expect(history[t]!.learning_rate).toBeCloseTo(rate, 12)
  }
  await rm(root, { recursive: true, force: true })
})

describe('a recipe with a preset', () => {
  const beaten = (recipe: ReturnType<typeof sft> | ReturnType<typeof dpo>) =>
    Object.fromEntries(
      recipe.preset!.pins.flatMap(({ key, beatenBy }) => (beatenBy ? [[key, beatenBy]] : [])),
    )

  it('keeps the keys that it gives, and says which they beat', () => {
    const recipe = dpo('paper', { beta: 0.05, max_steps: 7, learning_rate: 5e-7 })
    expect(recipe.config).toMatchObject({ beta: 0.05, maxSteps: 7, learningRate: 5e-7 })
    expect(beaten(recipe)).toEqual({ beta: 'beta: 0.05', num_train_epochs: 'max_steps: 7' })
    const lines = presetLines(recipe.preset!)
    expect(lines[0]).toBe('preset paper:')
    expect(lines).toContainEqual(
      expect.stringMatching(/^ {2}beta +0\.1 +not used, the recipe has beta: 0\.05$/),
    )
    expect(lines).toContainEqual(
      expect.stringMatching(/^ {2}learning_rate +5e-7 +arXiv:2310\.16944 §5$/),
    )
    expect(lines.filter((line) => line.includes('not reproduced'))).toHaveLength(2)
  })

  it('takes it from the command line too, and an old name counts as given', () => {
    const recipe = parseRecipe(
      'sft',
      { ...base, max_seq_length: 64, torch_dtype: 'float32' },
      'r',
      ['--preset=handbook-v0.3'],
    )
    expect(recipe.config).toMatchObject({ maxLength: 64, dtype: 'f32', packing: 'wrapped' })
    expect(beaten(recipe)).toEqual({ max_length: 'max_length: 64', bf16: 'dtype: "float32"' })
  })

  it('that packs otherwise has none of what belongs to one stream', () => {
    const recipe = sft('paper', { packing: 'bfd' })
    expect(recipe.config).toMatchObject({ eosBetween: false, scheduleUnpacked: false })
    expect(Object.keys(beaten(recipe))).toEqual(['packing', 'eos_between', 'schedule_unpacked'])
  })

  it('reaches the batch of the preset with its own micro-batch, or says that it cannot', () => {
    const { config } = dpo('paper', { per_device_train_batch_size: 16 })
    expect(config.gradientAccumulationSteps).toBe(2)
    const own = dpo('paper', { per_device_train_batch_size: 3, gradient_accumulation_steps: 2 })
    expect(beaten(own)).toEqual({ 'global batch': '3 x 2 accumulated' })
    expect(() => dpo('paper', { per_device_train_batch_size: 5 })).toThrow(
      'preset: its global batch of 32 is no multiple of per_device_train_batch_size: 5; give gradient_accumulation_steps too',
    )
  })

  it('that does not exist is refused with the nearest name', () => {
    expect(() => parseRecipe('sft', { ...base, preset: 'papper' })).toThrow(
      'recipe: preset: "papper" is no preset; did you mean paper?',
    )
  })
})
