import { join } from 'node:path'
import type { Sizes } from './sizes.js'

/** Where the parts of a quickstart are, under its folder. */
export function layout(out: string) {
  return {
    tokenizer: join(out, 'tokenizer'),
    dialogues: join(out, 'data', 'dialogues'),
    prompts: join(out, 'data', 'prompts'),
    ratings: join(out, 'rate', 'ratings.jsonl'),
    pairs: join(out, 'pairs'),
    comparison: join(out, 'data', 'comparison.jsonl'),
    out,
    pipeline: join(out, 'pipeline.yaml'),
    sftRecipe: join(out, 'sft.yaml'),
    dpoRecipe: join(out, 'dpo.yaml'),
    sft: join(out, 'sft'),
    dpo: join(out, 'dpo'),
    json: join(out, 'report.json'),
    html: join(out, 'report.html'),
  }
}

export type Layout = ReturnType<typeof layout>

/** The dSFT recipe, as a user would write it. */
export function sftRecipe(paths: Layout, vocabSize: number, sizes: Sizes, seed: number): string {
  const { hidden, layers, heads, intermediate } = sizes.model
  return `# dSFT of the quickstart's model, from random weights on the dialogues beside this file.
#   westwind sft ${paths.sftRecipe}
init_from_config:
  architectures: [MistralForCausalLM]
  vocab_size: ${vocabSize}
  hidden_size: ${hidden}
  intermediate_size: ${intermediate}
  num_hidden_layers: ${layers}
  num_attention_heads: ${heads}
  num_key_value_heads: ${heads / 2}
  max_position_embeddings: 512
  sliding_window: null
  rms_norm_eps: 1.0e-5
  rope_theta: ${sizes.model.theta}
  initializer_range: ${sizes.model.init}
  tie_word_embeddings: true
  bos_token_id: 1
  eos_token_id: 2
tokenizer_name_or_path: ${JSON.stringify(paths.tokenizer)}
dtype: float32

dataset_name: ${JSON.stringify(paths.dialogues)}
packing: bfd
max_length: 512
assistant_only_loss: true

learning_rate: ${sizes.sft.learningRate}
lr_scheduler_type: cosine
warmup_ratio: 0.05
max_steps: ${sizes.sft.steps}
per_device_train_batch_size: ${sizes.sft.rows}
adam_beta2: 0.95
weight_decay: 0.01
seed: ${seed}

do_eval: true
eval_strategy: steps
eval_steps: ${Math.ceil(sizes.sft.steps / 4)}
logging_steps: ${Math.ceil(sizes.sft.steps / 40)}
save_strategy: no
output_dir: ${JSON.stringify(paths.sft)}
`
}

/** The dDPO recipe, as a user would write it. */
export function dpoRecipe(paths: Layout, sizes: Sizes, seed: number): string {
  return `# dDPO of the quickstart's model: from what dSFT left, on the pairs that the teacher ranked.
#   westwind dpo ${paths.dpoRecipe}
model_name_or_path: ${JSON.stringify(paths.sft)}
dtype: float32

dataset_name: ${JSON.stringify(paths.pairs)}
dataset_train_split: train_prefs
dataset_test_split: test_prefs
max_length: 512

# The added SFT term on the chosen answers keeps a small model from unlearning what is right.
beta: 0.1
rpo_alpha: 5
learning_rate: ${sizes.dpo.learningRate}
lr_scheduler_type: linear
warmup_ratio: 0.1
num_train_epochs: ${sizes.dpo.epochs}
per_device_train_batch_size: ${sizes.dpo.pairs}
per_device_eval_batch_size: 32
seed: ${seed}

do_eval: true
eval_strategy: epoch
logging_steps: 1
save_strategy: no
output_dir: ${JSON.stringify(paths.dpo)}
`
}

/** The pipeline that the quickstart runs, as a user would write it. */
export function pipelineYaml(
  paths: Layout,
  sizes: Sizes,
  seed: number,
  teacherUrl: string,
): string {
  const { answers, testPrompts } = sizes.feedback
  const sampling = 'batch_size: 64, sampling: { temperature: 1, max_tokens: 64 }'
  const pool = Array.from(
    { length: answers },
    (_, i) => `    - { stage: sft, name: sft-${i + 1}, ${sampling} }`,
  )
  return `# The quickstart as a pipeline: dSFT, answers of that model to new prompts, scores of a teacher,
# pairs, dDPO. Data and teacher (four rules behind an OpenAI-compatible endpoint) are made by
# westwind quickstart, which runs this file; the model answers as often as it is listed.
#   westwind zephyr ${paths.pipeline} --dry-run
output_dir: ${JSON.stringify(paths.out)}
seed: ${seed}

sft:
  recipe: sft.yaml

feedback:
  prompts:
    data: ${JSON.stringify(paths.prompts)}
  models:
${pool.join('\n')}
  generate:
    per_prompt: ${answers}
  teacher:
    base_url: ${teacherUrl}
    model: four-rules
  rate:
    aspects: []
  binarize:
    rejected: lowest
    test_size: ${testPrompts}

dpo:
  recipe: dpo.yaml
`
}
