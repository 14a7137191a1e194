import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { WestwindError } from '../../src/errors.js'
import { modelConfigToJson, parseModelConfig } from '../../src/model/config.js'
import { parameterSpecs } from '../../src/model/names.js'
import { sharedPath } from '../support/shared.js'

const mistral = {
  architectures: ['MistralForCausalLM'],
  model_type: 'mistral',
  vocab_size: 320,
  hidden_size: 48,
  intermediate_size: 80,
  num_hidden_layers: 3,
  num_attention_heads: 6,
  num_key_value_heads: 3,
  head_dim: 16,
  hidden_act: 'silu',
  rms_norm_eps: 1e-5,
  sliding_window: 16,
  rope_theta: 1e6,
  torch_dtype: 'bfloat16',
}
const llama = {
  architectures: ['LlamaForCausalLM'],
  vocab_size: 100,
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 4,
}
const parse = (json: unknown) => parseModelConfig(json, 'config.json')

function failure(json: unknown): { code: string; message: string } {
  try {
    parse(json)
  } catch (error) {
    if (error instanceof WestwindError) return { code: error.code, message: error.message }
    throw error
  }
  throw new Error('the config was accepted')
}

describe('parseModelConfig', () => {
  it('reads sizes, window and RoPE of a Mistral config', () => {
    expect(parse(mistral)).toEqual({
      architecture: 'MistralForCausalLM',
      vocabSize: 320,
      hiddenSize: 48,
      intermediateSize: 80,
      layers: 3,
      heads: 6,
      kvHeads: 3,
      headDim: 16,
      ropeTheta: 1e6,
      rmsNormEps: 1e-5,
      slidingWindow: 16,
      tieWordEmbeddings: false,
      maxPositionEmbeddings: 131072,
      bosTokenId: 1,
      eosTokenId: 2,
      initializerRange: 0.02,
      raw: mistral,
    })
  })

  it('fills absent keys with the defaults of the architecture', () => {
    const config = parse(llama)
    expect(config).toMatchObject({ kvHeads: 4, headDim: 16, ropeTheta: 10000, slidingWindow: null })
    const { sliding_window: _w, num_key_value_heads: _k, ...rest } = mistral
    expect(parse({ ...rest, num_attention_heads: 8 })).toMatchObject({
      kvHeads: 8,
      slidingWindow: 4096,
    })
  })

  it('knows the architecture by model_type where architectures is absent', () => {
    const { architectures: _a, ...rest } = mistral
    expect(parse(rest).architecture).toBe('MistralForCausalLM')
    expect(failure({ ...rest, model_type: undefined }).message).toContain('neither')
  })

  it.each([
    { rope_parameters: { rope_theta: 5000, rope_type: 'default' } },
    { rope_scaling: { rope_theta: 5000, type: 'default' }, rope_theta: 5000 },
    { rope_theta: 5000, rope_scaling: null },
  ])('reads the RoPE base from %j', (rope) => {
    const { rope_theta: _t, ...rest } = mistral
    expect(parse({ ...rest, ...rope }).ropeTheta).toBe(5000)
  })

  it('accepts keys that do not change the computation, and any key that is null', () => {
    const keys = {
      transformers_version: '5.18.0',
      use_cache: true,
      temperature: 0.7,
      novelty: null,
    }
    expect(parse({ ...mistral, ...keys }).raw).toMatchObject(keys)
  })

  it.each([
    [{ architectures: ['Qwen2ForCausalLM'] }, 'Qwen2ForCausalLM'],
    [{ attention_bias: true }, 'attention_bias'],
    [{ mlp_bias: true }, 'mlp_bias'],
    [{ hidden_act: 'gelu' }, 'hidden_act'],
    [{ attention_dropout: 0.1 }, 'attention_dropout'],
    [{ pretraining_tp: 2 }, 'pretraining_tp'],
    [{ rope_scaling: { type: 'linear', factor: 2 } }, 'rope_scaling.type'],
    [{ rope_parameters: { rope_type: 'llama3' } }, 'rope_parameters.rope_type'],
    [{ quantization_config: { bits: 4 } }, 'quantization_config'],
    [{ num_local_experts: 8 }, 'num_local_experts'],
    [{ constructor: 1 }, 'constructor'],
  ])('refuses %j by name as unsupported', (change, name) => {
    const { code, message } = failure({ ...mistral, ...change })
    expect(code).toBe('ERR_UNSUPPORTED')
    expect(message).toContain(name)
  })

  it('refuses a sliding window with Llama, which transformers would ignore', () => {
    expect(failure({ ...llama, sliding_window: 16 }).code).toBe('ERR_UNSUPPORTED')
  })

  const integers = [-1, 0, 1.5, '8', [8], {}, true, 1e300, Number.NaN]
  const keys = [
    'vocab_size',
    'hidden_size',
    'intermediate_size',
    'num_hidden_layers',
    'num_attention_heads',
    'num_key_value_heads',
    'head_dim',
    'max_position_embeddings',
    'sliding_window',
  ]
  it.each(keys)('refuses a %s that is not a positive integer in bounds, by name', (key) => {
    for (const value of integers) {
      const { code, message } = failure({ ...mistral, [key]: value })
      expect(code).toBe('ERR_CONFIG')
      expect(message).toContain(key)
    }
  })

  it.each([
    ['vocab_size', undefined],
    ['num_key_value_heads', 4],
    ['head_dim', 15],
    ['rope_theta', 0],
    ['rope_theta', '1e4'],
    ['rms_norm_eps', -1],
    ['tie_word_embeddings', 'yes'],
    ['bos_token_id', [1, 2]],
    ['eos_token_id', -1],
    ['eos_token_id', []],
    ['architectures', []],
    ['model_type', 'llama'],
  ])('refuses %s = %j by name', (key, value) => {
    const { code, message } = failure({ ...mistral, [key]: value })
    expect(code).toBe('ERR_CONFIG')
    expect(message).toContain(key)
  })

  it.each([null, 3, 'text', [[]]])('refuses %j as a config', (json) => {
    expect(failure(json).code).toBe('ERR_CONFIG')
  })

  it('names heads and hidden size where head_dim is absent and does not come out whole', () => {
    expect(failure({ ...llama, num_attention_heads: 5 }).message).toMatch(/hidden_size.*64 and 5/)
  })

  it('refuses a value nested too deeply to print without overflowing', () => {
    const deep: unknown = JSON.parse(`${'['.repeat(200000)}${']'.repeat(200000)}`)
    expect(failure({ ...mistral, vocab_size: deep }).message).toContain('deeply nested')
  })
})

describe('modelConfigToJson', () => {
  it('keeps the keys of the file, sets the dtype, and parses to the same config', () => {
    const json = modelConfigToJson(parse({ ...mistral, pad_token_id: 2 }), 'f32')
    expect(json).toEqual({ ...mistral, pad_token_id: 2, torch_dtype: 'float32' })
    expect(parse(json)).toMatchObject({ ...parse(mistral), raw: expect.anything() })
  })

  it('writes the dtype under the key the file used', () => {
    const { torch_dtype: _d, ...rest } = mistral
    expect(modelConfigToJson(parse({ ...rest, dtype: 'float32' }), 'bf16')).toEqual({
      ...rest,
      dtype: 'bfloat16',
    })
  })
})

describe('parameterSpecs', () => {
  it('lists fused parameters in order: embedding, layers, norm, head', () => {
    const specs = parameterSpecs(parse({ ...mistral, num_hidden_layers: 1 }))
    expect(specs.map((spec) => [spec.name, spec.shape, spec.kind, spec.decay])).toEqual([
      ['embedding', [320, 48], 'embedding', true],
      ['layers.0.inputNorm', [48], 'norm', false],
      ['layers.0.qkv', [192, 48], 'linear', true],
      ['layers.0.out', [48, 96], 'linear', true],
      ['layers.0.postNorm', [48], 'norm', false],
      ['layers.0.gateUp', [160, 48], 'linear', true],
      ['layers.0.down', [48, 80], 'linear', true],
      ['norm', [48], 'norm', false],
      ['lmHead', [320, 48], 'linear', true],
    ])
    expect(specs[2]?.parts).toEqual([
      { hfName: 'model.layers.0.self_attn.q_proj.weight', rowStart: 0, rows: 96, shape: [96, 48] },
      { hfName: 'model.layers.0.self_attn.k_proj.weight', rowStart: 96, rows: 48, shape: [48, 48] },
      {
        hfName: 'model.layers.0.self_attn.v_proj.weight',
        rowStart: 144,
        rows: 48,
        shape: [48, 48],
      },
    ])
  })

  it('decays by the rule of transformers: every tensor without norm in its name', () => {
    for (const spec of parameterSpecs(parse(mistral))) {
      for (const part of spec.parts) expect(spec.decay).toBe(!part.hfName.includes('norm'))
    }
  })

  it('has no head when tied', () => {
    const specs = parameterSpecs(parse({ ...mistral, tie_word_embeddings: true }))
    expect(specs.at(-1)?.name).toBe('norm')
  })
})

const golden = sharedPath('golden', 'models')
describe.skipIf(!golden)('config.json of the reference models', () => {
  const folders = golden ? readdirSync(golden) : []
  it.each(folders)('%s parses', (folder) => {
    const file = join(golden ?? '', folder, 'f32', 'config.json')
    const config = parseModelConfig(JSON.parse(readFileSync(file, 'utf8')), file)
    expect(folder.includes('untied')).toBe(!config.tieWordEmbeddings)
    expect(folder.includes(`d${config.headDim}_`)).toBe(true)
    expect(folder.includes('win16')).toBe(config.slidingWindow === 16)
  })
})
