import { type ModelConfig, parseModelConfig } from '../model/config.js'

/** Shapes of the models that are benchmarked. */
export interface BenchModel {
  hidden: number
  ffn: number
  layers: number
  heads: number
  kvHeads: number
  headDim: number
  vocabulary: number
}

export const benchModels: Record<string, BenchModel> = {
  tiny: shape(64, 192, 2, 4, 2, 512),
  'bench-S': shape(512, 1536, 8, 8, 2, 32_000),
  'bench-M': shape(1024, 2816, 12, 16, 4, 32_000),
  'mistral-7b': shape(4096, 14_336, 32, 32, 8, 32_000),
}

function shape(
  hidden: number,
  ffn: number,
  layers: number,
  heads: number,
  kvHeads: number,
  vocabulary: number,
): BenchModel {
  return { hidden, ffn, layers, heads, kvHeads, headDim: hidden / heads, vocabulary }
}

/** A config of that shape, for random weights. */
export function benchConfig(model: BenchModel): ModelConfig {
  const config = {
    architectures: ['MistralForCausalLM'],
    vocab_size: model.vocabulary,
    hidden_size: model.hidden,
    intermediate_size: model.ffn,
    num_hidden_layers: model.layers,
    num_attention_heads: model.heads,
    num_key_value_heads: model.kvHeads,
    max_position_embeddings: 32_768,
    rms_norm_eps: 1e-5,
    sliding_window: null,
    tie_word_embeddings: false,
  }
  return parseModelConfig(config, 'bench')
}
