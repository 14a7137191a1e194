// What the examples share: a tokenizer with one token per character, a model small enough for any machine, and questions
// about the order of letters. Real runs take a tokenizer and a model from the Hugging Face Hub instead.
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const letters = 'abcdefghijklmnopqrstuvwxyz'

/** A conversation in this template: `<|user|>after k?</s><|assistant|>l m n</s>`. */
const chatTemplate =
  "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content + eos_token }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"

/** Writes the folder of a tokenizer in the Hugging Face layout, as loadTokenizer and recipes read it. */
export async function writeTokenizer(dir) {
  const specials = ['<unk>', '<s>', '</s>', '<|user|>', '<|assistant|>']
  const tokens = [...specials, ...letters, ' ', '?']
  const tokenizer = {
    version: '1.0',
    added_tokens: specials.map((content, id) => {
      const never = { single_word: false, lstrip: false, rstrip: false, normalized: false }
      return { id, content, special: true, ...never }
    }),
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: 'Fuse' },
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: [],
    },
  }
  const config = { bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>' }
  await mkdir(dir, { recursive: true })
  await writeFile(join(dir, 'tokenizer.json'), JSON.stringify(tokenizer))
  await writeFile(join(dir, 'tokenizer_config.json'), JSON.stringify(config))
  await writeFile(join(dir, 'chat_template.jinja'), chatTemplate)
}

/** The shape of a Mistral with about 0.1 M weights, as config.json has it. */
export const smallModel = {
  architectures: ['MistralForCausalLM'],
  model_type: 'mistral',
  vocab_size: 33,
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
  sliding_window: null,
  initializer_range: 0.08,
  bos_token_id: 1,
  eos_token_id: 2,
}

/** `after k?` and the letters that follow it, in a ring, `count` of them. */
export function question(at, count) {
  const answer = Array.from({ length: count }, (_, i) => letters[(at + 1 + i) % letters.length])
  return { prompt: `after ${letters[at % letters.length]}?`, answer: answer.join(' ') }
}

/** Writes rows as JSON Lines. */
export async function writeRows(file, rows) {
  await writeFile(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
}
