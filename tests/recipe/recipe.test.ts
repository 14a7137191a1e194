import { describe, expect, it } from 'vitest'
import type { WestwindError } from '../../src/errors.js'
import { aliases, refused, withoutEffect } from '../../src/recipe/known.js'
import { loadRecipe, parseRecipe } from '../../src/recipe/recipe.js'

const base = { model_name_or_path: 'm', dataset_name: 'd', output_dir: 'o' }
const yaml = 'model_name_or_path: m\ndataset_name: d\noutput_dir: o\n'

const sft = (keys: Record<string, unknown>, ...overrides: string[]) =>
  parseRecipe('sft', { ...base, ...keys }, 'r.yaml', overrides).config
const dpo = (keys: Record<string, unknown>, ...overrides: string[]) =>
  parseRecipe('dpo', { ...base, ...keys }, 'r.yaml', overrides).config

/** Code and message of the error that reading a recipe throws. */
function failure(read: () => unknown): [string, string] {
  try {
    read()
  } catch (error) {
    const { code, message } = error as WestwindError
    return [code, message]
  }
  throw new Error('expected an error')
}

describe('defaults', () => {
  it('are those of transformers and TRL', () => {
    expect(sft({})).toMatchObject({
      learningRate: 2e-5,
      lrSchedulerType: 'linear',
      warmupRatio: 0,
      numTrainEpochs: 3,
      maxSteps: -1,
      perDeviceTrainBatchSize: 8,
      gradientAccumulationSteps: 1,
      optim: 'adamw',
      adamBeta1: 0.9,
      adamBeta2: 0.999,
      adamEpsilon: 1e-8,
      weightDecay: 0,
      maxGradNorm: 1,
      maxLength: 1024,
      packing: false,
      assistantOnlyLoss: false,
      completionOnlyLoss: null,
      evalStrategy: 'no',
      doEval: false,
      saveStrategy: 'steps',
      saveSteps: 500,
      loggingSteps: 10,
      seed: 42,
      dtype: 'bf16',
    })
    expect(dpo({})).toMatchObject({
      learningRate: 1e-6,
      beta: 0.1,
      lossType: 'sigmoid',
      labelSmoothing: 0,
      rpoAlpha: null,
      maxPromptLength: null,
      prefixSharing: true,
    })
  })

  it('values that follow others: data_seed, eval_steps, do_eval', () => {
    expect(sft({ seed: 7, logging_steps: 3, eval_strategy: 'steps' })).toMatchObject({
      dataSeed: 7,
      evalSteps: 3,
      doEval: true,
    })
    expect(sft({ seed: 7, data_seed: 8, do_eval: true })).toMatchObject({
      dataSeed: 8,
      doEval: true,
    })
  })
})

describe('meaning of values', () => {
  it.each([
    [{ bf16: true, torch_dtype: null }, 'bf16'],
    [{ bf16: true, torch_dtype: 'auto' }, 'bf16'],
    [{ bf16: true, torch_dtype: 'float32' }, 'bf16'],
    [{ torch_dtype: 'bfloat16', bf16: false }, 'bf16'],
    [{ dtype: 'float32' }, 'f32'],
    [{ dtype: 'auto' }, 'auto'],
    [{ bf16: false }, 'f32'],
    [{ bf16: false, dtype: null }, 'f32'],
    [{}, 'bf16'],
  ])('%j computes in %s', (keys, dtype) => {
    expect(sft(keys).dtype).toBe(dtype)
  })

  it.each([
    [{ packing: true }, 'bfd', false],
    [{ packing: true, packing_strategy: 'wrapped' }, 'wrapped', false],
    [{ packing: 'wrapped', eos_between: true }, 'wrapped', true],
    [{ packing: 'wrapped', dataset_kwargs: { append_concat_token: true } }, 'wrapped', true],
    [{ packing_strategy: 'wrapped' }, false, false],
  ])('%j packs as %s, EOS between: %s', (keys, packing, eosBetween) => {
    expect(sft(keys)).toMatchObject({ packing, eosBetween })
  })

  it('warmup_steps below 1 is a ratio, as in transformers 5', () => {
    expect(sft({ warmup_steps: 0.1 })).toMatchObject({ warmupRatio: 0.1, warmupSteps: 0 })
    expect(sft({ warmup_steps: 10, warmup_ratio: 0.1 })).toMatchObject({ warmupSteps: 10 })
  })

  it('optim_args sets RMSprop’s constants', () => {
    expect(sft({ optim: 'rmsprop', optim_args: 'alpha=0.9, eps=1e-6' })).toMatchObject({
      rmspropAlpha: 0.9,
      rmspropEpsilon: 1e-6,
    })
  })

  it('loss_type may be a list of one', () => {
    expect(dpo({ loss_type: ['ipo'] }).lossType).toBe('ipo')
  })

  it('truncation_side: left is what dDPO does with prompts, and refused in dSFT', () => {
    expect(dpo({ truncation_side: 'left' })).toBeDefined()
    expect(failure(() => sft({ truncation_side: 'left' }))[0]).toBe('ERR_UNSUPPORTED')
  })
})

describe('older names', () => {
  it('max_seq_length, evaluation_strategy, tokenizer and their like are read', () => {
    const config = sft({
      max_seq_length: 77,
      evaluation_strategy: 'epoch',
      tokenizer: 't',
      torch_dtype: 'float32',
      per_gpu_train_batch_size: 3,
    })
    expect(config).toMatchObject({
      maxLength: 77,
      evalStrategy: 'epoch',
      tokenizerNameOrPath: 't',
      dtype: 'f32',
      perDeviceTrainBatchSize: 3,
    })
  })

  it('an old and a new name of one key together are an error with the line', () => {
    const [code, message] = failure(() =>
      parseRecipe('sft', `${yaml}max_length: 5\nmax_seq_length: 6\n`, 'r.yaml'),
    )
    expect(code).toBe('ERR_CONFIG')
    expect(message).toBe(
      'r.yaml:5: max_seq_length and max_length are the same key; give one of them',
    )
  })

  it('every alias leads to a key that exists', () => {
    for (const name of Object.values(aliases)) {
      const idle = Object.hasOwn(withoutEffect, name)
      const error = idle ? undefined : failure(() => sft({ [name]: Symbol('no such value') }))
      expect(error?.[1] ?? '').not.toContain('unknown key')
    }
  })
})

describe('errors', () => {
  it.each([
    ['learnig_rate: 1', 'r.yaml:4: learnig_rate: unknown key; did you mean learning_rate?'],
    [
      'evaluation_stragety: epoch',
      'r.yaml:4: evaluation_stragety: unknown key; did you mean evaluation_strategy?',
    ],
    ['bfloat: 1', 'r.yaml:4: bfloat: unknown key; docs/recipes.md lists the keys'],
    ['beta: 0.1', 'r.yaml:4: beta is a key of dpo recipes; this one is for westwind sft'],
    ['seed: "x"', 'r.yaml:4: seed must be a whole number of at least 0, got "x"'],
    ['learning_rate: -1', 'r.yaml:4: learning_rate must be a number of at least 0, got -1'],
    [
      'max_seq_length: 0',
      'r.yaml:4: max_length must be a whole number of at least 1, or null, got 0',
    ],
    [
      'lr_scheduler_type: polynomial',
      'r.yaml:4: lr_scheduler_type must be "linear", "cosine", "constant" or "constant_with_warmup", got "polynomial"',
    ],
    ['constructor: 1', 'r.yaml:4: constructor: unknown key; docs/recipes.md lists the keys'],
    ['__proto__: 1', 'r.yaml:4: __proto__: unknown key; docs/recipes.md lists the keys'],
    [
      'dataset_kwargs:\n  add_special_token: true',
      'r.yaml:5: dataset_kwargs has no key add_special_token; did you mean add_special_tokens?',
    ],
    [
      'dataset_mixer: {a: 1}',
      'r.yaml:2: give one of dataset_mixer and dataset_name: each says what the data is',
    ],
    [
      'packing: true\nmax_length: null',
      'r.yaml:5: max_length must be a number when packing is on: it is the row length',
    ],
    ['eos_between: true', 'r.yaml:4: eos_between: true needs packing: wrapped'],
    [
      'optim_args: alpha=1',
      'r.yaml:4: optim_args is for optim: rmsprop; AdamW has adam_beta1, adam_beta2, adam_epsilon',
    ],
    ['init_from_config: c', 'r.yaml:4: give init_from_config or model_name_or_path, not both'],
  ])('%s', (line, message) => {
    expect(failure(() => parseRecipe('sft', `${yaml}${line}\n`, 'r.yaml'))).toEqual([
      'ERR_CONFIG',
      message,
    ])
  })

  it.each([
    ['fp16: true', 'fp16: true is refused: float16 needs loss scaling'],
    ['deepspeed: zero3.json', 'deepspeed: "zero3.json" is refused: one process trains'],
    ['neftune_noise_alpha: 5', 'neftune_noise_alpha: 5 is refused: '],
    ['lr_scheduler_kwargs: {num_cycles: 2}', 'lr_scheduler_kwargs: {"num_cycles":2} is refused: '],
    ['truncation_mode: keep_end', 'truncation_mode: "keep_end" is refused: '],
  ])('%s is refused with its reason', (line, message) => {
    const [code, got] = failure(() => parseRecipe('sft', `${yaml}${line}\n`, 'r.yaml'))
    expect(code).toBe('ERR_UNSUPPORTED')
    expect(got).toContain(`r.yaml:4: ${message}`)
  })

  it('keys of what is refused are no problem while they ask for nothing', () => {
    const { notes } = parseRecipe('dpo', {
      ...base,
      use_peft: false,
      fp16: false,
      deepspeed: null,
      lr_scheduler_kwargs: {},
      label_smoothing_factor: 0,
      f_divergence_type: 'reverse_kl',
      truncation_mode: 'keep_start',
    })
    expect(notes).toEqual([])
  })

  it('all problems are told at once, in the order of the file', () => {
    const [code, message] = failure(() =>
      parseRecipe('dpo', `${yaml}beta: "x"\nuse_peft: true\nlearnig_rate: 1\n`, 'r.yaml'),
    )
    expect(code).toBe('ERR_CONFIG')
    expect(message.split('\n').map((line) => line.slice(0, 20))).toEqual([
      '3 problems in the re',
      'r.yaml:4: beta must ',
      'r.yaml:5: use_peft: ',
      'r.yaml:6: learnig_ra',
    ])
  })

  it('what is required is named', () => {
    expect(failure(() => parseRecipe('sft', 'dataset_name: d\noutput_dir: o\n', 'r.yaml'))[1]).toBe(
      'r.yaml: model_name_or_path is missing: expected a local folder or a Hub id',
    )
    expect(
      failure(() => parseRecipe('sft', 'model_name_or_path: m\noutput_dir: o\n', 'r'))[1],
    ).toBe('r: no data: give dataset_mixture, dataset_mixer (with dataset_splits) or dataset_name')
    expect(failure(() => parseRecipe('sft', 'dataset_name: d\n', 'r'))[1]).toBe(
      'r: output_dir is missing: expected a folder',
    )
  })

  it('evaluation without a test split is told before the run', () => {
    const mixture = { datasets: [{ id: 'a' }] }
    expect(
      failure(() =>
        sft({ dataset_name: null, dataset_mixture: mixture, eval_strategy: 'epoch' }),
      )[1],
    ).toContain('evaluation needs dataset_mixture.test_split_size')
    expect(
      failure(() =>
        sft({
          dataset_name: null,
          dataset_mixer: { a: 1 },
          dataset_splits: ['train'],
          do_eval: true,
        }),
      )[1],
    ).toContain('evaluation needs a split with "test"')
  })

  it.each([
    '',
    '- a\n',
    'a: b: c\n',
    'a: 1\na: 2\n',
    'text',
    'a: *x\n',
    `a: ${'['.repeat(50_000)}`,
    'a: [\n',
  ])('YAML %j is an error that names the file', (text) => {
    const [code, message] = failure(() => parseRecipe('sft', text, 'r.yaml'))
    expect(code).toBe('ERR_CONFIG')
    expect(message).toMatch(/^r\.yaml: /)
  })

  it('YAML nested deeper than any recipe is an error, not a crash', () => {
    const [code] = failure(() => parseRecipe('sft', `a: ${'['.repeat(50_000)}`, 'r.yaml'))
    expect(code).toBe('ERR_CONFIG')
  })

  it('a file that cannot be read is named', async () => {
    await expect(loadRecipe('sft', '/no/such.yaml')).rejects.toThrow(
      '/no/such.yaml: cannot read this recipe',
    )
  })

  it('nothing a recipe can hold throws anything but a WestwindError', () => {
    const odd = [
      null,
      true,
      -1,
      Number.POSITIVE_INFINITY,
      '',
      'x',
      [],
      [null],
      {},
      { a: { b: [] } },
      Number.NaN,
    ]
    const keys = [
      'dataset_mixture',
      'dataset_mixer',
      'init_from_config',
      'report_to',
      'dtype',
      'seed',
    ]
    for (const key of [...keys, ...Object.keys(refused), ...Object.keys(withoutEffect)]) {
      for (const value of odd) {
        try {
          dpo({ [key]: value })
        } catch (error) {
          expect(error).toMatchObject({ name: 'WestwindError' })
        }
      }
    }
  })
})

describe('overrides', () => {
  it('come as --key=value, --key value and --flag, with either - or _', () => {
    const config = sft(
      {},
      '--learning_rate=5.0e-7',
      '--num-train-epochs',
      '2',
      '--assistant_only_loss',
      '--gradient_checkpointing=True',
      '--max_length=null',
      '--output_dir',
      'a b',
      '--max-steps',
      '-1',
    )
    expect(config).toMatchObject({
      learningRate: 5e-7,
      numTrainEpochs: 2,
      assistantOnlyLoss: true,
      gradientCheckpointing: true,
      maxLength: null,
      outputDir: 'a b',
      maxSteps: -1,
    })
  })

  it('win over the file, under old names too', () => {
    expect(sft({ max_seq_length: 5 }, '--max_length=6').maxLength).toBe(6)
    expect(sft({ max_length: 5 }, '--max_seq_length=6').maxLength).toBe(6)
  })

  it('take text for text even where it looks like something else', () => {
    const template = '{{ messages[0].content }}, {% if true %}'
    expect(
      sft({}, '--model_revision=1.0', '--run_name=true', `--chat_template=${template}`),
    ).toMatchObject({ modelRevision: '1.0', runName: 'true', chatTemplate: template })
  })

  it('split lists at commas', () => {
    const keys = { dataset_name: null, dataset_mixer: { a: 1 } }
    expect(sft(keys, '--dataset_splits=train_x,test_x').data).toMatchObject({
      splits: ['train_x', 'test_x'],
    })
    expect(sft(keys, '--dataset_splits=train_x').data).toMatchObject({ splits: ['train_x'] })
    expect(sft({}, '--report_to=tensorboard,wandb').reportTo).toEqual(['tensorboard'])
    expect(sft({}, '--report_to=none').reportTo).toEqual([])
  })

  it('reach inside by dots', () => {
    const keys = {
      dataset_name: null,
      dataset_mixture: { datasets: [{ id: 'a', split: 'x' }, { id: 'b' }], seed: 1 },
    }
    const paths = ['--dataset_mixture.datasets.0.id=/p/q.jsonl', '--dataset_mixture.seed=2']
    expect(sft(keys, ...paths).data).toMatchObject({
      seed: 2,
      datasets: [{ id: '/p/q.jsonl', split: 'x' }, { id: 'b' }],
    })
    expect(keys.dataset_mixture.seed).toBe(1)
    const init = { model_name_or_path: null, init_from_config: { hidden_size: 8 } }
    expect(sft(init, '--init_from_config.num_hidden_layers=2').initFromConfig).toEqual({
      hidden_size: 8,
      num_hidden_layers: 2,
    })
    expect(sft({}, '--dataset_mixer.a/b.c=0.5').data).toMatchObject({
      sources: [{ id: 'a/b.c', fraction: 0.5 }],
    })
  })

  it('replace another way to say the same: data, and where the model comes from', () => {
    expect(
      sft({ dataset_name: null, dataset_mixer: { a: 1 } }, '--dataset_name=b').data,
    ).toMatchObject({ kind: 'name', name: 'b' })
    expect(sft({}, '--init_from_config=c.json')).toMatchObject({
      modelNameOrPath: null,
      initFromConfig: 'c.json',
    })
  })

  it.each([
    ['--seed=x', 'ERR_CONFIG', '--seed: seed must be a whole number of at least 0, got "x"'],
    [
      '--learnig_rate=1',
      'ERR_CONFIG',
      '--learnig_rate: learnig_rate: unknown key; did you mean learning_rate?',
    ],
    [
      '--use_peft=true',
      'ERR_UNSUPPORTED',
      '--use_peft: use_peft: true is refused: LoRA is not supported yet; all weights are trained. Use the full recipe.',
    ],
    [
      '--push_to_hub=true',
      'ERR_UNSUPPORTED',
      '--push_to_hub: push_to_hub: true is refused: uploading is not supported. Upload output_dir after the run.',
    ],
    ['seed=1', 'ERR_INVALID_ARG', 'expected --key=value, got seed=1'],
  ])('%s is refused', (override, code, message) => {
    expect(failure(() => sft({}, override))).toEqual([code, message])
  })
})

describe('keys of the handbook’s other recipes', () => {
  it('load, or are noted', () => {
    const { config, notes } = parseRecipe('sft', {
      ...base,
      dataset_name: null,
      dataset_mixer: { a: 0.5, b: 1 },
      dataset_splits: ['train', 'test'],
      dataset_configs: ['x', 'y'],
      dataset_kwargs: { add_special_tokens: false, append_concat_token: false },
      auto_insert_empty_system_msg: true,
      tokenizer_name_or_path: 't',
      lr_scheduler_kwargs: null,
      max_grad_norm: 0.5,
      padding_free: true,
      use_liger_kernel: true,
      warmup_steps: 100,
      weight_decay: 0.1,
      packing: true,
      trust_remote_code: true,
      use_bnb_nested_quant: true,
      bnb_4bit_quant_type: 'nf4',
      bnb_4bit_quant_storage: 'uint8',
      lora_modules_to_save: ['lm_head'],
    })
    expect(config).toMatchObject({
      data: {
        sources: [
          { id: 'a', fraction: 0.5, config: 'x' },
          { id: 'b', fraction: 1, config: 'y' },
        ],
      },
      insertEmptySystem: true,
      addBos: false,
      maxGradNorm: 0.5,
      warmupSteps: 100,
      weightDecay: 0.1,
      packing: 'bfd',
    })
    expect(notes).toHaveLength(7)
    expect(dpo({ loss_type: 'hinge', rpo_alpha: 1.0 })).toMatchObject({
      lossType: 'hinge',
      rpoAlpha: 1,
    })
  })
})
