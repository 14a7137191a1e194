import type { ModelConfig } from './config.js'

/** Rows of a fused parameter that are one tensor of the Hugging Face layout. */
export interface ParameterPart {
  hfName: string
  rowStart: number
  rows: number
  /** Shape in the file: `[rows, ...]` of the fused shape. */
  shape: number[]
}

/** One parameter as the engine holds it: possibly several tensors of the file, one below the other. */
export interface ParameterSpec {
  /** `embedding`, `layers.N.{inputNorm,qkv,out,postNorm,gateUp,down}`, `norm`, `lmHead` */
  name: string
  shape: number[]
  parts: ParameterPart[]
  kind: 'embedding' | 'linear' | 'norm'
  /** Whether weight decay applies: as in transformers, to every name without `norm`. */
  decay: boolean
}

/**
 * The parameters of a model in their fixed order: embedding, layers, final norm, head (absent when
 * tied). Linear weights are `[out, in]`. `qkv` is `[(Hq+2·Hkv)·D, C]`, rows of q, then k, then v;
 * `gateUp` is `[2F, C]`, rows of gate, then up.
 */
export function parameterSpecs(config: ModelConfig): ParameterSpec[] {
  const { vocabSize: V, hiddenSize: C, intermediateSize: F, headDim: D } = config
  const q = config.heads * D
  const kv = config.kvHeads * D
  const specs = [matrix('embedding', 'embedding', C, [['model.embed_tokens', V]])]
  for (let layer = 0; layer < config.layers; layer++) {
    const at = `layers.${layer}`
    const hf = `model.layers.${layer}`
    specs.push(
      norm(`${at}.inputNorm`, C, `${hf}.input_layernorm`),
      matrix(`${at}.qkv`, 'linear', C, [
        [`${hf}.self_attn.q_proj`, q],
        [`${hf}.self_attn.k_proj`, kv],
        [`${hf}.self_attn.v_proj`, kv],
      ]),
      matrix(`${at}.out`, 'linear', q, [[`${hf}.self_attn.o_proj`, C]]),
      norm(`${at}.postNorm`, C, `${hf}.post_attention_layernorm`),
      matrix(`${at}.gateUp`, 'linear', C, [
        [`${hf}.mlp.gate_proj`, F],
        [`${hf}.mlp.up_proj`, F],
      ]),
      matrix(`${at}.down`, 'linear', F, [[`${hf}.mlp.down_proj`, C]]),
    )
  }
  specs.push(norm('norm', C, 'model.norm'))
  if (!config.tieWordEmbeddings) specs.push(matrix('lmHead', 'linear', C, [['lm_head', V]]))
  return specs
}

/** Name of the head's tensor: tied models may store it, as a copy of the embedding. */
export const headName = 'lm_head.weight'

function matrix(
  name: string,
  kind: 'embedding' | 'linear',
  columns: number,
  modules: [module: string, rows: number][],
): ParameterSpec {
  const parts: ParameterPart[] = []
  let rowStart = 0
  for (const [module, rows] of modules) {
    parts.push({ hfName: `${module}.weight`, rowStart, rows, shape: [rows, columns] })
    rowStart += rows
  }
  return { name, shape: [rowStart, columns], parts, kind, decay: true }
}

function norm(name: string, size: number, module: string): ParameterSpec {
  const part = { hfName: `${module}.weight`, rowStart: 0, rows: size, shape: [size] }
  return { name, shape: [size], parts: [part], kind: 'norm', decay: false }
}
