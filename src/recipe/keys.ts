import { z } from 'zod'
import { preferenceLossNames } from '../train/preference-loss.js'
import { scheduleNames } from '../train/schedule.js'
import { presetNames } from './presets.js'

// The keys westwind acts on, by the names Hugging Face's trainers have for them today. One table
// serves validation, error messages and docs/recipes.md (tests/recipe/docs.test.ts compares them).
// Defaults are those of transformers and TRL 1.13 unless the effect says otherwise.

/** A key with what it takes and does, in words: error messages and the documentation quote them. */
const key = <S extends z.ZodType>(schema: S, expected: string, effect: string): S =>
  schema.meta({ expected, effect })

const count = (min: number) => z.number().int().min(min)
const text = (expected: string) => z.string({ error: expected }).min(1, expected)

const strategy = z.enum(['no', 'steps', 'epoch'])
const strategyText = '"no", "steps" or "epoch"'

const mixtureEntry = z.strictObject({
  id: text('a Hub id or a local path'),
  config: text('the name of a configuration').nullable().default(null),
  revision: text('a branch, tag or commit').nullable().default(null),
  split: text('the name of a split').default('train'),
  columns: z
    .array(text('a column name'), { error: 'a list of column names' })
    .nullable()
    .default(null),
  weight: z
    .number({ error: 'a number from 0 to 1' })
    .min(0, 'a number from 0 to 1')
    .max(1, 'a number from 0 to 1')
    .nullable()
    .default(1)
    .transform((weight) => weight ?? 1),
})

const mixture = z.strictObject({
  datasets: z
    .array(mixtureEntry, { error: 'a list of data sets, each with an id' })
    .min(1, 'at least one data set'),
  test_split_size: z
    .number({ error: 'a number of rows, or a share below 1' })
    .positive('a number of rows, or a share below 1')
    .nullable()
    .default(null),
  seed: z.number({ error: 'a whole number' }).int('a whole number').default(0),
})

const reporters = z.enum([
  'none',
  'all',
  'tensorboard',
  'wandb',
  'mlflow',
  'comet_ml',
  'trackio',
  'swanlab',
  'neptune',
  'clearml',
  'dvclive',
  'azure_ml',
  'codecarbon',
  'flyte',
])

const optimizers = z.enum([
  'adamw',
  'adamw_torch',
  'adamw_torch_fused',
  'adamw_hf',
  'adamw_anyprecision',
  'paged_adamw',
  'paged_adamw_32bit',
  'rmsprop',
])

const shared = {
  preset: key(
    z.enum(presetNames).nullable().default(null),
    '"paper", "handbook-v0.2" or "handbook-v0.3"',
    'What those runs did, for every key that the recipe leaves out; see Fidelity above. westwind only.',
  ),
  model_name_or_path: key(
    z.string().min(1).nullable().default(null),
    'a local folder or a Hub id',
    'The model to start from. This or `init_from_config` is required.',
  ),
  model_revision: key(
    z.string().min(1).default('main'),
    'a branch, tag or commit',
    'Which version of a Hub model.',
  ),
  init_from_config: key(
    z
      .union([z.string().min(1), z.record(z.string(), z.unknown())])
      .nullable()
      .default(null),
    'the path of a config.json, or its keys inline',
    'Start from random weights of this architecture, drawn from `seed`. westwind only.',
  ),
  tokenizer_name_or_path: key(
    z.string().min(1).nullable().default(null),
    'a local folder or a Hub id',
    "The tokenizer, if not the model's own.",
  ),
  dtype: key(
    z.enum(['bfloat16', 'float32', 'auto']).nullable().default(null),
    '"bfloat16", "float32", "auto" or null',
    'Type of weights and activations while computing; see Precision below.',
  ),
  bf16: key(
    z.boolean().nullable().default(null),
    'true or false',
    'Compute in bfloat16; see Precision below.',
  ),
  master_weights: key(
    z.boolean().default(true),
    'true or false',
    'With bfloat16: the optimizer keeps float32 weights. westwind only.',
  ),
  chat_template: key(
    z.string().min(1).nullable().default(null),
    'Jinja source',
    "The chat template; else the tokenizer's own, else Zephyr's.",
  ),

  dataset_mixer: key(
    z
      .record(z.string(), z.number().min(0).max(1))
      .refine((sources) => Object.keys(sources).length > 0)
      .nullable()
      .default(null),
    'data sets with the share of each, 0 to 1',
    'Data, as the handbook up to v0.3 mixes it; with `dataset_splits`.',
  ),
  dataset_splits: key(
    z
      .array(z.string().regex(/train|test/))
      .min(1)
      .default(['train', 'test']),
    'a list of split names, each with "train" or "test" in it',
    'Splits to read from every data set of `dataset_mixer`.',
  ),
  dataset_configs: key(
    z.array(z.string().min(1)).nullable().default(null),
    'a list with one configuration per data set',
    'Configurations of the data sets of `dataset_mixer`, in their order.',
  ),
  dataset_mixture: key(
    mixture.nullable().default(null),
    'keys datasets, test_split_size and seed',
    'Data, as the handbook mixes it today. A data set has `id`, `config`, `revision`, `split`, `columns`, `weight`.',
  ),
  dataset_name: key(
    z.string().min(1).nullable().default(null),
    'a Hub id, or a local file or folder',
    'Data as TRL reads it: one data set.',
  ),
  dataset_config: key(
    z.string().min(1).nullable().default(null),
    'the name of a configuration',
    'Configuration of `dataset_name`.',
  ),
  dataset_train_split: key(
    z.string().min(1).default('train'),
    'the name of a split',
    'Split of `dataset_name` to train on.',
  ),
  dataset_test_split: key(
    z.string().min(1).default('test'),
    'the name of a split',
    'Split of `dataset_name` to evaluate on.',
  ),
  dataset_kwargs: key(
    z
      .strictObject({
        add_special_tokens: z.boolean({ error: 'true or false' }).optional(),
        append_concat_token: z.boolean({ error: 'true or false' }).optional(),
        skip_prepare_dataset: z.literal(false, { error: 'false' }).optional(),
      })
      .nullable()
      .default(null),
    'keys add_special_tokens, append_concat_token',
    'The names TRL had for `add_bos` and `eos_between`.',
  ),
  max_length: key(
    count(1).nullable().default(1024),
    'a whole number of at least 1, or null',
    'Tokens per sequence; longer ones keep their first so many. With packing: the row length.',
  ),
  add_bos: key(
    z.boolean().nullable().default(null),
    'true or false',
    'BOS before each conversation, as TRL did in 2023; `false` unless given. westwind only.',
  ),
  auto_insert_empty_system_msg: key(
    z.boolean().default(false),
    'true or false',
    'An empty system turn for conversations without one. The handbook up to v0.3 defaulted to `true`.',
  ),
  train_sampling_strategy: key(
    z.enum(['random', 'sequential']).default('random'),
    '"random" or "sequential"',
    'Order of the examples: a function of seed and epoch, or that of the file.',
  ),
  dataloader_drop_last: key(
    z.boolean().default(false),
    'true or false',
    'Leave out the last micro-batch of an epoch when it is short.',
  ),

  per_device_train_batch_size: key(
    count(1).default(8),
    'a whole number of at least 1',
    'Sequences (packed rows, pairs) per micro-batch.',
  ),
  per_device_eval_batch_size: key(
    count(1).default(8),
    'a whole number of at least 1',
    'The same for evaluation; results do not depend on it.',
  ),
  gradient_accumulation_steps: key(
    count(1).default(1),
    'a whole number of at least 1',
    'Micro-batches per optimizer step.',
  ),
  max_tokens_per_micro_batch: key(
    count(1).nullable().default(null),
    'a whole number of at least 1, or null',
    'Split micro-batches further so that none has more tokens; saves memory, changes no result. westwind only.',
  ),
  gradient_checkpointing: key(
    z.boolean().default(false),
    'true or false',
    'Recompute activations in the backward pass: less memory, a third more work, same bits. TRL defaults to `true`.',
  ),

  learning_rate: key(z.number().min(0), 'a number of at least 0', 'Peak learning rate.'),
  lr_scheduler_type: key(
    z.enum(scheduleNames).default('linear'),
    '"linear", "cosine", "constant" or "constant_with_warmup"',
    'Linear and cosine decay to 0.',
  ),
  warmup_ratio: key(
    z.number().min(0).max(1).default(0),
    'a number from 0 to 1',
    'Warm-up over ceil(ratio · steps) steps, unless `warmup_steps` is given.',
  ),
  warmup_steps: key(
    z
      .number()
      .refine((steps) => steps >= 0 && (steps < 1 || Number.isInteger(steps)))
      .default(0),
    'a whole number, or a ratio below 1',
    'Warm-up steps; below 1, the same as `warmup_ratio`.',
  ),
  num_train_epochs: key(
    z.number().positive().default(3),
    'a number above 0',
    'Passes over the data.',
  ),
  max_steps: key(
    z
      .number()
      .int()
      .refine((steps) => steps === -1 || steps > 0)
      .default(-1),
    'a whole number above 0, or -1',
    'Optimizer steps; -1 leaves it to `num_train_epochs`.',
  ),
  optim: key(
    optimizers.default('adamw_torch'),
    '"adamw" or "rmsprop" (or a name transformers has for AdamW, such as "adamw_torch")',
    'Optimizer.',
  ),
  optim_args: key(
    z
      .string()
      .regex(/^\s*(alpha|eps)\s*=\s*[\d.eE+-]+\s*(,\s*(alpha|eps)\s*=\s*[\d.eE+-]+\s*)*$/)
      .nullable()
      .default(null),
    '"alpha=NUMBER,eps=NUMBER"',
    "RMSprop's constants; torch's 0.99 and 1e-8 unless given.",
  ),
  adam_beta1: key(z.number().min(0).lt(1).default(0.9), 'a number from 0 to below 1', 'AdamW β1.'),
  adam_beta2: key(
    z.number().min(0).lt(1).default(0.999),
    'a number from 0 to below 1',
    'AdamW β2.',
  ),
  adam_epsilon: key(z.number().min(0).default(1e-8), 'a number of at least 0', 'AdamW ε.'),
  weight_decay: key(
    z.number().min(0).default(0),
    'a number of at least 0',
    'Decay of every parameter but the norms.',
  ),
  max_grad_norm: key(
    z
      .number()
      .min(0)
      .nullable()
      .default(1)
      .transform((norm) => norm ?? 0),
    'a number of at least 0',
    'Clip the global L2 norm of the gradients; 0 does not clip.',
  ),

  seed: key(count(0).default(42), 'a whole number of at least 0', 'Seed of everything random.'),
  data_seed: key(
    count(0).nullable().default(null),
    'a whole number of at least 0',
    'Seed of the order of the data; `seed` unless given.',
  ),

  do_eval: key(
    z.boolean().nullable().default(null),
    'true or false',
    'Evaluate at the end; `true` if `eval_strategy` is not "no".',
  ),
  eval_strategy: key(strategy.default('no'), strategyText, 'When to evaluate.'),
  eval_steps: key(
    count(1).nullable().default(null),
    'a whole number of at least 1',
    'Optimizer steps between evaluations; `logging_steps` unless given.',
  ),
  save_strategy: key(strategy.default('steps'), strategyText, 'When to write a checkpoint.'),
  save_steps: key(
    count(1).default(500),
    'a whole number of at least 1',
    'Steps between checkpoints.',
  ),
  save_total_limit: key(
    count(1).nullable().default(null),
    'a whole number of at least 1, or null',
    'Keep only the newest so many checkpoints.',
  ),
  logging_strategy: key(strategy.default('steps'), strategyText, 'When to log metrics.'),
  logging_steps: key(
    count(1).default(10),
    'a whole number of at least 1',
    'Steps between log lines; their metrics are averages over those steps.',
  ),
  logging_first_step: key(z.boolean().default(false), 'true or false', 'Log the first step too.'),
  report_to: key(
    z
      .union([reporters, z.array(reporters)])
      .nullable()
      .default(['tensorboard']),
    '"tensorboard", "none" or "all", or a list',
    'TensorBoard event files beside `metrics.jsonl`. Other services get nothing, and the run says so.',
  ),
  push_to_hub: key(
    z.boolean().default(false),
    'true or false',
    'Not supported: `true` in a file leaves the model in `output_dir` and the run says so; on the command line it is refused.',
  ),
  run_name: key(z.string().nullable().default(null), 'a name', 'Name of the run in reports.'),
  output_dir: key(z.string().min(1), 'a folder', 'Where the run writes. Required.'),
  resume_from_checkpoint: key(
    z
      .union([z.boolean(), z.string().min(1)])
      .nullable()
      .default(null),
    'true, false or the path of a checkpoint',
    'Continue from the latest complete checkpoint, or from that one.',
  ),
}

/** Keys of a dSFT recipe. */
export const sftSchema = z.strictObject({
  ...shared,
  learning_rate: shared.learning_rate.default(2e-5).meta(shared.learning_rate.meta() ?? {}),
  packing: key(
    z.union([z.boolean(), z.enum(['bfd', 'wrapped'])]).default(false),
    'true, false, "bfd" or "wrapped"',
    'Fill rows of `max_length` tokens with several documents; `true` packs by `packing_strategy`.',
  ),
  packing_strategy: key(
    z.enum(['bfd', 'wrapped']).default('bfd'),
    '"bfd" or "wrapped"',
    '`bfd`: best fit, whole documents that do not see each other. `wrapped`: one stream cut into rows, as in 2023.',
  ),
  eos_between: key(
    z.boolean().nullable().default(null),
    'true or false',
    'With `wrapped`: one more EOS after each document, as in 2023; `false` unless given. westwind only.',
  ),
  schedule_unpacked: key(
    z.boolean().default(false),
    'true or false',
    'With packing: plan warm-up and decay for the number of conversations, as TRL did in 2023; the run ends with its rows, before the rate has decayed. westwind only.',
  ),
  assistant_only_loss: key(
    z.boolean().default(false),
    'true or false',
    'Loss on the answers of the assistant only.',
  ),
  completion_only_loss: key(
    z.boolean().nullable().default(null),
    'true, false or null',
    'Loss on the completion only, in rows that have `prompt` and `completion`; null is true.',
  ),
  dataset_text_field: key(
    z.string().min(1).default('text'),
    'a column name',
    'Column with plain text, where rows have that.',
  ),
  loss_type: key(
    z.enum(['nll', 'chunked_nll']).default('nll'),
    '"nll" or "chunked_nll"',
    'Negative log-likelihood; both names mean the same here.',
  ),
})

/** Keys of a dDPO recipe. */
export const dpoSchema = z.strictObject({
  ...shared,
  learning_rate: shared.learning_rate.default(1e-6).meta(shared.learning_rate.meta() ?? {}),
  beta: key(
    z.number().positive().default(0.1),
    'a number above 0',
    'Strength of the pull to the reference.',
  ),
  loss_type: key(
    z
      .union([z.enum(preferenceLossNames), z.tuple([z.enum(preferenceLossNames)])])
      .default('sigmoid')
      .transform((type) => (typeof type === 'string' ? type : type[0])),
    `one of ${preferenceLossNames.join(', ')}`,
    'The preference loss; docs/ddpo.md has the formulas.',
  ),
  label_smoothing: key(
    z.number().min(0).lt(0.5).default(0),
    'a number from 0 to below 0.5',
    'Share of labels taken to be wrong; with `sigmoid` this is cDPO (TRL 1.13 ignores it there).',
  ),
  discopop_tau: key(
    z.number().positive().default(0.05),
    'a number above 0',
    'Temperature of `discopop`.',
  ),
  rpo_alpha: key(
    z.number().min(0).nullable().default(null),
    'a number of at least 0, or null',
    "Adds this times the chosen answer's NLL to the loss (RPO).",
  ),
  max_prompt_length: key(
    count(1).nullable().default(null),
    'a whole number of at least 1, or null',
    'Where prompt and longer answer exceed `max_length`: the prompt keeps its last so many tokens. null: as TRL today, pairs are cut to their first `max_length`.',
  ),
  score_header: key(
    z.boolean().default(false),
    'true or false',
    'Score the header of the answer with it, as the handbook did in 2023. westwind only.',
  ),
  second_eos: key(
    z.boolean().default(false),
    'true or false',
    'A second EOS after each answer, as TRL put there in 2023. westwind only.',
  ),
  precompute_ref_log_probs: key(
    z.boolean().default(true),
    'true or false',
    'Reference log-probs are computed once, before training, and cached, whatever this says.',
  ),
  precompute_ref_batch_size: key(
    count(1).nullable().default(null),
    'a whole number of at least 1, or null',
    'Pairs per batch while the reference is scored; `per_device_eval_batch_size` unless given.',
  ),
  prefix_sharing: key(
    z.boolean().default(true),
    'true or false',
    'Compute the prompt once for both answers: faster, same results. westwind only.',
  ),
})

const sharedSchema = z.object(shared)
export type SharedKeys = z.output<typeof sharedSchema>
export type SftKeys = z.output<typeof sftSchema>
export type DpoKeys = z.output<typeof dpoSchema>
