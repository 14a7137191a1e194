import { readdirSync } from 'node:fs'
import type { SegmentBatch } from '../../src/data/batch.js'
import { type Tokenizer, tokenizerFromFiles } from '../../src/data/tokenizer/tokenizer.js'
import type { Device } from '../../src/device/device.js'
import { toDevice } from '../../src/model/batch.js'
import { parseModelConfig } from '../../src/model/config.js'
import { createModel, type Model, type ModelDType } from '../../src/model/model.js'
import { forward } from '../../src/model/transformer.js'
import { gemm } from '../../src/ops/index.js'
import { scope } from '../../src/tensor/scope.js'
import { fixturePath, readText } from './fixtures.js'

/** The tiny Mistral-style tokenizer of the fixtures: 320 tokens, Zephyr's template. */
export function tinyTokenizer(): Tokenizer {
  const names = readdirSync(fixturePath('golden', 'tiny_tokenizer'))
  const texts = names.map((name) => [name, readText(fixturePath('golden', 'tiny_tokenizer', name))])
  return tokenizerFromFiles(Object.fromEntries(texts))
}

/** A model with random weights, far enough from zero that its likeliest tokens differ clearly. */
export function randomModel(
  device: Device,
  options: { window: number | null; tied?: boolean; dtype?: ModelDType; tokenizer?: Tokenizer },
): Model {
  const config = parseModelConfig(
    {
      architectures: ['MistralForCausalLM'],
      vocab_size: 320,
      hidden_size: 48,
      intermediate_size: 80,
      num_hidden_layers: 3,
      num_attention_heads: 6,
      num_key_value_heads: 3,
      head_dim: 16,
      max_position_embeddings: 128,
      sliding_window: options.window,
      tie_word_embeddings: options.tied ?? false,
      initializer_range: 0.3,
      bos_token_id: 1,
      eos_token_id: 2,
    },
    'random model',
  )
  const { dtype = 'f32', tokenizer = tinyTokenizer() } = options
  return createModel(config, { seed: 5, dtype, device, tokenizer })
}

/** Logits `[T, V]` of every position of one document, from the forward pass of training. */
export async function allLogits(model: Model, ids: readonly number[]): Promise<Float32Array> {
  using _ = scope()
  const { tokens } = toDevice(oneDocument(ids), model.device)
  const { hidden } = forward(model, tokens, { save: false })
  const { weight } = model.parameters.lmHead
  return Float32Array.from(await gemm(hidden, weight, { transB: true, dtype: 'f32' }).read())
}

function oneDocument(ids: readonly number[]): SegmentBatch {
  return {
    ids: Int32Array.from(ids),
    positions: Int32Array.from(ids, (_, t) => t),
    segStart: Int32Array.from([0, ids.length]),
    segPrefix: Int32Array.from([-1]),
    scoredRows: new Int32Array(),
    targets: new Int32Array(),
    sequence: new Int32Array(),
    sequences: 0,
    inputTokens: ids.length,
  }
}

/** Index of the first largest value. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i
  return best
}
