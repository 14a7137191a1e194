// dDPO from a script: starts from the model of train-sft.mjs, which names one, two or three letters by chance, and
// prefers three.
//   node examples/train-sft.mjs && node examples/align-dpo.mjs [folder]        some seconds
import { join } from 'node:path'
import { dpo, generate, loadModel, parseRecipe } from 'westwind'
import { question, writeRows } from './small.mjs'

const folder = process.argv[2] ?? 'runs/examples'

// Prompt, chosen, rejected: the schema of UltraFeedback. The letters from x on are left for the comparison.
const pairs = Array.from({ length: 23 * 2 }, (_, i) => {
  const { prompt, answer } = question(i % 23, 3)
  const worse = question(i % 23, 1 + Math.floor(i / 23)).answer
  return { prompt, chosen: answer, rejected: worse }
})
await writeRows(
  join(folder, 'pairs.jsonl'),
  pairs.map(({ prompt, chosen, rejected }) => ({
    prompt: [{ role: 'user', content: prompt }],
    chosen: [{ role: 'assistant', content: chosen }],
    rejected: [{ role: 'assistant', content: rejected }],
  })),
)

const recipe = parseRecipe('dpo', {
  model_name_or_path: join(folder, 'sft'),
  dataset_name: join(folder, 'pairs.jsonl'),
  loss_type: 'sigmoid',
  beta: 0.1,
  learning_rate: 5e-4,
  lr_scheduler_type: 'linear',
  warmup_ratio: 0.1,
  num_train_epochs: 4,
  per_device_train_batch_size: 8,
  max_length: 64,
  logging_steps: 4,
  save_strategy: 'no',
  output_dir: join(folder, 'dpo'),
  overwrite_output_dir: true,
  seed: 1,
})
await dpo(recipe, {
  onLog: ({ step, loss, 'rewards/accuracies': accuracy }) => {
    if (loss === undefined || accuracy === undefined) return
    console.log(`step ${step}: loss ${loss.toFixed(3)}, reward accuracy ${accuracy.toFixed(2)}`)
  },
})

const asked = ['after x?', 'after y?', 'after z?']
const prompts = asked.flatMap((prompt) => Array(20).fill(prompt))
for (const stage of ['sft', 'dpo']) {
  const model = await loadModel(join(folder, stage))
  const answers = await generate(model, prompts, { temperature: 1, maxNewTokens: 12, seed: 7 })
  const three = answers.filter(({ text }) => text.split(' ').length === 3).length
  console.log(`${stage}: ${three} of ${answers.length} answers have three letters`)
  model.dispose()
}
