import { type Check, plainCopy, text } from '../arguments.js'
import { refuse, WestwindError } from '../errors.js'
import { isRecord, showJson } from '../json.js'

const architectures = ['MistralForCausalLM', 'LlamaForCausalLM'] as const

export type Architecture = (typeof architectures)[number]

/** The part of `config.json` that decides what is computed, checked. Sizes are counts. */
export interface ModelConfig {
  architecture: Architecture
  vocabSize: number
  hiddenSize: number
  intermediateSize: number
  layers: number
  heads: number
  /** Divides `heads`: query head h reads key/value head `floor(h / (heads / kvHeads))`. */
  kvHeads: number
  /** Even; `heads * headDim` may differ from `hiddenSize`. */
  headDim: number
  ropeTheta: number
  rmsNormEps: number
  /** Keys a query sees, itself included; null: all. */
  slidingWindow: number | null
  tieWordEmbeddings: boolean
  maxPositionEmbeddings: number
  bosTokenId?: number
  eosTokenId?: number | number[]
  /** Standard deviation of fresh linear and embedding weights. */
  initializerRange: number
  /** The file's own keys, written back by {@link modelConfigToJson}. */
  raw: Record<string, unknown>
}

/** Bounds on sizes: far above any model, low enough that every product stays an exact integer. */
const maxSize = { vocab: 2 ** 24, width: 2 ** 20, layers: 4096, heads: 4096, headDim: 1024 }

const computedKeys = new Set(
  `architectures model_type vocab_size hidden_size intermediate_size num_hidden_layers
  num_attention_heads num_key_value_heads head_dim rope_theta rope_parameters rope_scaling
  rms_norm_eps sliding_window tie_word_embeddings max_position_embeddings bos_token_id
  eos_token_id initializer_range`.split(/\s+/),
)

/** Settings that exist with one supported value; null and absence mean that value. */
const fixedKeys: Record<string, { value: unknown; because: string }> = {
  hidden_act: { value: 'silu', because: 'the MLP is SwiGLU' },
  attention_bias: { value: false, because: 'projections have no bias' },
  mlp_bias: { value: false, because: 'projections have no bias' },
  attention_dropout: { value: 0, because: 'there is no dropout' },
  hidden_dropout: { value: 0, because: 'there is no dropout' },
  pretraining_tp: { value: 1, because: 'weights are not split' },
  partial_rotary_factor: { value: 1, because: 'RoPE turns the whole head' },
  is_encoder_decoder: { value: false, because: 'models are decoders' },
  add_cross_attention: { value: false, because: 'models are decoders' },
  use_bidirectional_attention: { value: false, because: 'attention is causal' },
  quantization_config: { value: null, because: 'weights are f32, bf16 or f16' },
}

/** Keys that do not change the forward pass: bookkeeping, generation defaults, old base-class fields. */
const harmlessKeys = new Set(
  `torch_dtype dtype transformers_version transformers.js_config _name_or_path name_or_path
  _commit_hash use_cache _attn_implementation_autoset attn_implementation _attn_implementation
  pad_token_id unk_token_id sep_token_id cls_token_id mask_token_id decoder_start_token_id
  tokenizer_class prefix finetuning_task task_specific_params problem_type id2label label2id
  num_labels return_dict return_dict_in_generate output_hidden_states output_attentions
  output_scores torchscript use_bfloat16 tf_legacy_loss use_return_dict
  chunk_size_feed_forward cross_attention_hidden_size is_decoder tie_encoder_decoder
  pruned_heads max_length min_length max_new_tokens do_sample early_stopping num_beams
  num_beam_groups diversity_penalty temperature top_k top_p typical_p repetition_penalty
  length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
  num_return_sequences forced_bos_token_id forced_eos_token_id remove_invalid_values
  exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
  max_sequence_length use_flash_attn router_aux_loss_coef`.split(/\s+/),
)

/**
 * Checks a parsed `config.json` (hostile input) and returns what the model needs.
 * Absent keys get the defaults of transformers for that architecture.
 *
 * @param source what JSON.parse gave
 * @param where the file, for messages
 * @throws ERR_CONFIG for a wrong value, ERR_UNSUPPORTED for an architecture or a setting that
 *   changes the computation and is not implemented
 */
export function parseModelConfig(source: unknown, where: string): ModelConfig {
  text(where, 'parseModelConfig: where')
  const json = plainCopy(source, where, 'ERR_CONFIG')
  if (!isRecord(json)) throw configError(where, `expected a JSON object, got ${showJson(json)}`)
  const architecture = readArchitecture(json, where)
  const mistral = architecture === 'MistralForCausalLM'
  refuseUnknown(json, where)

  const size = (key: string, max: number, fallback?: number) =>
    readNumber(json, key, where, { integer: true, min: 1, max, fallback })
  const hiddenSize = size('hidden_size', maxSize.width)
  const heads = size('num_attention_heads', maxSize.heads)
  const kvHeads = size('num_key_value_heads', maxSize.heads, mistral ? 8 : heads)
  if (heads % kvHeads !== 0) {
    throw configError(
      where,
      `num_attention_heads must be a multiple of num_key_value_heads, got ${heads} and ${kvHeads}`,
    )
  }
  if (json.head_dim == null && hiddenSize % heads !== 0) {
    throw configError(
      where,
      `hidden_size must be a multiple of num_attention_heads where head_dim is not given, got ${hiddenSize} and ${heads}`,
    )
  }
  const headDim = size('head_dim', maxSize.headDim, hiddenSize / heads)
  if (headDim % 2 !== 0) {
    throw configError(where, `head_dim must be even (RoPE turns pairs), got ${headDim}`)
  }
  const config: ModelConfig = {
    architecture,
    vocabSize: size('vocab_size', maxSize.vocab),
    hiddenSize,
    intermediateSize: size('intermediate_size', maxSize.width),
    layers: size('num_hidden_layers', maxSize.layers),
    heads,
    kvHeads,
    headDim,
    ropeTheta: readRopeTheta(json, where),
    rmsNormEps: readNumber(json, 'rms_norm_eps', where, { min: 0, max: 1, fallback: 1e-6 }),
    slidingWindow: readWindow(json, mistral, where),
    tieWordEmbeddings: readBoolean(json, 'tie_word_embeddings', where, false),
    maxPositionEmbeddings: size('max_position_embeddings', 2 ** 31 - 1, mistral ? 131072 : 2048),
    initializerRange: readNumber(json, 'initializer_range', where, {
      min: 0,
      max: 10,
      fallback: 0.02,
    }),
    raw: json,
  }
  const bos = readTokenIds(json, 'bos_token_id', where, 1)
  if (typeof bos === 'number') config.bosTokenId = bos
  else if (bos) throw configError(where, `bos_token_id must be one token id, got ${showJson(bos)}`)
  const eos = readTokenIds(json, 'eos_token_id', where, 2)
  if (eos !== undefined) config.eosTokenId = eos
  checked.add(Object.freeze(config))
  return config
}

const checked = new WeakSet<object>()

/** A config that {@link parseModelConfig} has checked, as it gave it. */
export const checkModelConfig: Check<ModelConfig> = (value, where) => {
  if (typeof value === 'object' && value !== null && checked.has(value)) return
  refuse(where, 'what parseModelConfig gave, unchanged', value)
}

/**
 * The `config.json` to save beside weights of `dtype`: the keys that were read, with architecture,
 * model type and dtype set.
 */
export function modelConfigToJson(
  config: ModelConfig,
  dtype: 'f32' | 'bf16' | 'f16',
): Record<string, unknown> {
  const json: Record<string, unknown> = {
    ...config.raw,
    architectures: [config.architecture],
    model_type: modelType(config.architecture),
  }
  const torchName = { f32: 'float32', bf16: 'bfloat16', f16: 'float16' }[dtype]
  // transformers 5 writes `dtype`, 4 writes `torch_dtype`; both read both.
  if ('dtype' in json) json.dtype = torchName
  if ('torch_dtype' in json || !('dtype' in json)) json.torch_dtype = torchName
  return json
}

function modelType(architecture: Architecture): string {
  return architecture === 'MistralForCausalLM' ? 'mistral' : 'llama'
}

function readArchitecture(json: Record<string, unknown>, where: string): Architecture {
  const listed = json.architectures
  const type = json.model_type
  if (listed != null && (!Array.isArray(listed) || listed.length !== 1)) {
    throw configError(where, `architectures must be a list of one name, got ${showJson(listed)}`)
  }
  const name: unknown = Array.isArray(listed) ? listed[0] : undefined
  const found = architectures.find((known) =>
    name === undefined ? modelType(known) === type : known === name,
  )
  if (!found) {
    throw new WestwindError(
      'ERR_UNSUPPORTED',
      name === undefined && type == null
        ? `${where}: neither architectures nor model_type is given; supported: ${architectures.join(', ')}`
        : `${where}: architecture ${showJson(name ?? type)} is not supported; supported: ${architectures.join(', ')}`,
    )
  }
  if (type != null && type !== modelType(found)) {
    throw configError(
      where,
      `model_type must be '${modelType(found)}' for ${found}, got ${showJson(type)}`,
    )
  }
  return found
}

function refuseUnknown(json: Record<string, unknown>, where: string): void {
  for (const [key, value] of Object.entries(json)) {
    if (computedKeys.has(key) || harmlessKeys.has(key) || value === null) continue
    const fixed = Object.hasOwn(fixedKeys, key) ? fixedKeys[key] : undefined
    if (!fixed) {
      throw new WestwindError(
        'ERR_UNSUPPORTED',
        `${where}: unknown setting ${showJson(key)} = ${showJson(value)} could change what the model computes. If it does not, remove it from the file.`,
      )
    }
    if (value !== fixed.value) {
      throw new WestwindError(
        'ERR_UNSUPPORTED',
        `${where}: ${key} = ${showJson(value)} is not supported, only ${showJson(fixed.value)}: ${fixed.because}`,
      )
    }
  }
}

/** RoPE base from `rope_theta` or, as transformers 5 writes it, `rope_parameters`. */
function readRopeTheta(json: Record<string, unknown>, where: string): number {
  const theta: { from: string; value: number }[] = []
  const range = { min: 1, max: 1e15 }
  if (json.rope_theta != null) {
    theta.push({ from: 'rope_theta', value: readNumber(json, 'rope_theta', where, range) })
  }
  for (const key of ['rope_parameters', 'rope_scaling']) {
    const rope = json[key]
    if (rope == null) continue
    if (!isRecord(rope)) {
      throw configError(where, `${key} must be an object or null, got ${showJson(rope)}`)
    }
    for (const [name, value] of Object.entries(rope)) {
      const isType = name === 'rope_type' || name === 'type'
      if (value === null || (isType && value === 'default')) continue
      if (name === 'partial_rotary_factor' && value === 1) continue
      if (name === 'rope_theta') {
        const value = readNumber(rope, 'rope_theta', `${where}: ${key}`, range)
        theta.push({ from: `${key}.rope_theta`, value })
        continue
      }
      throw new WestwindError(
        'ERR_UNSUPPORTED',
        `${where}: ${key}.${name} = ${showJson(value)} is not supported: RoPE without scaling only (rope_type 'default')`,
      )
    }
  }
  const [first, ...others] = theta
  const other = others.find((candidate) => candidate.value !== first?.value)
  if (first && other) {
    throw configError(
      where,
      `${first.from} = ${first.value} contradicts ${other.from} = ${other.value}`,
    )
  }
  return first?.value ?? 10000
}

function readWindow(json: Record<string, unknown>, mistral: boolean, where: string): number | null {
  const value = json.sliding_window
  if (value === null || (value === undefined && !mistral)) return null
  if (!mistral) {
    throw new WestwindError(
      'ERR_UNSUPPORTED',
      `${where}: sliding_window = ${showJson(value)} is not supported with LlamaForCausalLM, which has none; use null`,
    )
  }
  return readNumber(json, 'sliding_window', where, {
    integer: true,
    min: 1,
    max: 2 ** 31 - 1,
    fallback: 4096,
  })
}

function readNumber(
  json: Record<string, unknown>,
  key: string,
  where: string,
  range: { min: number; max: number; integer?: boolean; fallback?: number },
): number {
  const value = json[key] ?? range.fallback
  if (value === undefined) throw configError(where, `${key} is missing`)
  if (
    typeof value !== 'number' ||
    !(value >= range.min && value <= range.max) ||
    (range.integer && !Number.isInteger(value))
  ) {
    const kind = range.integer ? 'an integer' : 'a number'
    throw configError(
      where,
      `${key} must be ${kind} from ${range.min} to ${range.max}, got ${showJson(value)}`,
    )
  }
  return value
}

function readBoolean(
  json: Record<string, unknown>,
  key: string,
  where: string,
  fallback: boolean,
): boolean {
  const value = json[key] ?? fallback
  if (typeof value !== 'boolean') {
    throw configError(where, `${key} must be true or false, got ${showJson(value)}`)
  }
  return value
}

/** A token id, a list of them, or undefined for null; absence means `fallback`. */
function readTokenIds(
  json: Record<string, unknown>,
  key: string,
  where: string,
  fallback: number,
): number | number[] | undefined {
  const value = json[key]
  if (value === null) return undefined
  if (value === undefined) return fallback
  const isId = (id: unknown): id is number =>
    typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < maxSize.vocab
  if (isId(value)) return value
  if (Array.isArray(value) && value.length > 0 && value.every(isId)) return value
  throw configError(where, `${key} must be a token id or a list of them, got ${showJson(value)}`)
}

function configError(where: string, message: string): WestwindError {
  return new WestwindError('ERR_CONFIG', `${where}: ${message}`)
}
