import { z } from 'zod'
import { endpointShape, priceSchema } from '../teacher/endpoint.js'
import { chosenRules, rejectedRules } from './rules.js'

// One file for the whole feedback step. Each message says what a key takes; errors quote it.

const words = (expected: string) => z.string({ error: expected }).min(1, expected)
const whole = (least: number, expected: string) =>
  z.number({ error: expected }).int(expected).min(least, expected)
const between = (least: number, most: number) => {
  const expected = `a number from ${least} to ${most}`
  return z.number({ error: expected }).min(least, expected).max(most, expected)
}
const atLeast0 = z.number({ error: 'a number, 0 or more' }).min(0, 'a number, 0 or more')

const budget = z.strictObject({
  max_requests: whole(0, 'a whole number, 0 or more').optional(),
  max_tokens: whole(0, 'a whole number, 0 or more').optional(),
  max_cost: atLeast0.optional(),
})

const prompts = z.strictObject({
  data: words('a file, a folder or a Hub id with prompts'),
  config: words('the name of a configuration').optional(),
  split: words('the name of a split').default('train'),
  /** By default the first of these that the rows have. */
  column: words('the name of a column').optional(),
  /** The source of rows without a column `source`. */
  source: words('a name').optional(),
  limit: whole(1, 'a whole number of at least 1').optional(),
})

const sampling = z.strictObject({
  temperature: between(0, 100).default(1),
  top_p: between(0, 1).default(1),
  max_tokens: whole(1, 'a whole number of at least 1').default(1024),
  stop: z.array(words('a text'), { error: 'a list of texts' }).optional(),
})

/** Texts that end an answer where an endpoint forgets to take them off. */
const endMarkers = ['</s>', '<|im_end|>', '<|endoftext|>', '<|eot_id|>', '<|end|>']

const { base_url, model, ...endpointRest } = endpointShape
const poolModel = z
  .strictObject({
    name: words('a name, as it will stand in the data').optional(),
    base_url: base_url.optional(),
    model: model.optional(),
    ...endpointRest,
    path: words('a model folder or a Hub id').optional(),
    device: words('auto, cpu, cuda or cuda:N').default('auto'),
    dtype: z.enum(['auto', 'f32', 'bf16'], { error: 'auto, f32 or bf16' }).default('auto'),
    batch_size: whole(1, 'a whole number of at least 1').default(16),
    sampling: sampling.prefault({}),
    end_markers: z.array(words('a text'), { error: 'a list of texts' }).default(endMarkers),
  })
  .superRefine((value, context) => {
    const remote = value.base_url !== undefined && value.model !== undefined
    if (remote !== (value.path !== undefined)) return
    const message = 'either an endpoint (base_url and model) or a local model (path)'
    context.addIssue({ code: 'custom', message, input: value })
  })

const weights = z.record(z.string(), atLeast0, { error: 'weights by principle' })

const principles = z.strictObject({
  file: words('a YAML file of system prompts by principle').optional(),
  /** By source of the prompt; `default` is for all other sources. `none`: no system prompt. */
  mix: z.record(z.string(), weights, { error: 'weights by source' }),
})

const generate = z.strictObject({
  per_prompt: whole(1, 'a whole number of at least 1').default(4),
  concurrency: whole(1, 'a whole number of at least 1').default(8),
  budget: budget.prefault({}),
})

const rate = z.strictObject({
  /** Default: `completions.jsonl` in `output_dir`. */
  input: words('a file with instruction and completions').optional(),
  aspects: z
    .array(words('the name of an aspect'), { error: 'a list of aspects' })
    .default(['instruction_following', 'honesty', 'truthfulness', 'helpfulness']),
  templates: words('a folder with judge.jinja and aspects.yaml').optional(),
  shuffles: whole(1, 'a whole number of at least 1').default(1),
  structured: z
    .enum(['auto', 'json_schema', 'off'], { error: 'auto, json_schema or off' })
    .default('auto'),
  retries: whole(0, 'a whole number, 0 or more').default(3),
  temperature: between(0, 100).default(0),
  top_p: between(0, 1).optional(),
  max_tokens: whole(1, 'a whole number of at least 1').default(1024),
  concurrency: whole(1, 'a whole number of at least 1').default(8),
  budget: budget.prefault({}),
})

const binarize = z.strictObject({
  /** Default: `ratings.jsonl` in `output_dir`. */
  input: words('a file of rated answers').optional(),
  /** Default: `pairs` in `output_dir`. */
  out: words('a folder').optional(),
  chosen: z.enum(chosenRules, { error: chosenRules.join(' or ') }).optional(),
  rejected: z.enum(rejectedRules, { error: rejectedRules.join(' or ') }).optional(),
  ties: z.enum(['keep', 'drop'], { error: 'keep or drop' }).optional(),
  min_margin: atLeast0.optional(),
  min_spread: atLeast0.optional(),
  max_disagreement: atLeast0.optional(),
  decontaminate: z
    .array(words('a file of an evaluation set'), { error: 'a list of files' })
    .optional(),
  ngram: whole(1, 'a whole number of at least 1').optional(),
  test_size: whole(0, 'a whole number, 0 or more').optional(),
  tokenizer: words('a folder with a tokenizer').optional(),
})

export const feedbackSchema = z.strictObject({
  output_dir: words('a folder'),
  seed: whole(0, 'a whole number, 0 or more').default(42),
  prompts: prompts.optional(),
  models: z.array(poolModel, { error: 'a list of models' }).min(1, 'at least one model').optional(),
  principles: principles.optional(),
  generate: generate.prefault({}),
  teacher: z.strictObject({ ...endpointShape, price: priceSchema.optional() }).optional(),
  rate: rate.prefault({}),
  binarize: binarize.prefault({}),
})

export type FeedbackConfig = z.output<typeof feedbackSchema>
export type PoolModel = z.output<typeof poolModel>
export type Sampling = z.output<typeof sampling>
export type RateConfig = z.output<typeof rate>
