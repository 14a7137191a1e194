// dSFT from a script: trains a small model from random weights to name the letters that follow one.
//   node examples/train-sft.mjs [folder]        some seconds; the model is in folder/sft
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { generate, loadModel, parseRecipe, sft } from 'westwind'
import { question, smallModel, writeRows, writeTokenizer } from './small.mjs'

const folder = process.argv[2] ?? 'runs/examples'
await mkdir(folder, { recursive: true })
await writeTokenizer(join(folder, 'tokenizer'))

// Each letter, with one, two or three of those that follow: the model cannot know how many are wanted.
const rows = Array.from({ length: 26 * 3 }, (_, i) => {
  const { prompt, answer } = question(i, 1 + Math.floor(i / 26))
  const messages = [
    { role: 'user', content: prompt },
    { role: 'assistant', content: answer },
  ]
  return { messages }
})
await writeRows(join(folder, 'dialogues.jsonl'), rows)

// The keys of a YAML recipe; loadRecipe('sft', file) reads one.
const recipe = parseRecipe('sft', {
  init_from_config: smallModel,
  tokenizer_name_or_path: join(folder, 'tokenizer'),
  dataset_name: join(folder, 'dialogues.jsonl'),
  assistant_only_loss: true,
  packing: 'bfd',
  max_length: 64,
  learning_rate: 5e-3,
  lr_scheduler_type: 'cosine',
  warmup_ratio: 0.1,
  num_train_epochs: 40,
  per_device_train_batch_size: 8,
  logging_steps: 20,
  save_strategy: 'no',
  output_dir: join(folder, 'sft'),
  overwrite_output_dir: true,
  seed: 1,
})

const stop = new AbortController()
process.once('SIGINT', () => stop.abort()) // finishes the step under way and saves it
const { steps, metrics } = await sft(recipe, {
  signal: stop.signal,
  onLog: ({ step, loss }) => {
    if (loss !== undefined) console.log(`step ${step}: loss ${loss.toFixed(3)}`)
  },
})
console.log(`${steps} steps, mean loss ${metrics.train_loss?.toFixed(3)}`)

const model = await loadModel(join(folder, 'sft'))
const [answer] = await generate(model, ['after k?'], { maxNewTokens: 12 })
console.log(`after k? ${answer.text}`)
model.dispose() // Node 24 and TypeScript write \`using model = …\`
