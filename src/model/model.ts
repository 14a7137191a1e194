import { join } from 'node:path'
import { exists } from '../checkpoint/atomic.js'
import { locateParameters, openCheckpoint, readModelConfig } from '../checkpoint/checkpoint.js'
import type { Tokenizer } from '../data/tokenizer/tokenizer.js'
import { loadTokenizer } from '../data/tokenizer/tokenizer.js'
import { Device, device as openDevice } from '../device/device.js'
import { show, WestwindError } from '../errors.js'
import { resolveModel } from '../hub.js'
import type { FileType } from '../tensor/tensor.js'
import { isModelConfig, type ModelConfig } from './config.js'
import { parameterSpecs } from './names.js'
import { createParameters, type ModelParameters } from './parameters.js'
import { normalInto } from './random.js'
import type { Transformer } from './transformer.js'

/** Types a model computes in: weights and activations. */
export type ModelDType = 'f32' | 'bf16'

/** A causal language model on a device, with its tokenizer where there is one. Dispose it. */
export class Model implements Transformer {
  readonly config: ModelConfig
  readonly parameters: ModelParameters
  readonly dtype: ModelDType
  readonly device: Device
  readonly tokenizer: Tokenizer | undefined
  /** Where it was loaded from; undefined for fresh weights. */
  readonly path: string | undefined

  constructor(init: {
    config: ModelConfig
    parameters: ModelParameters
    dtype: ModelDType
    device: Device
    tokenizer: Tokenizer | undefined
    path?: string
  }) {
    this.config = init.config
    this.parameters = init.parameters
    this.dtype = init.dtype
    this.device = init.device
    this.tokenizer = init.tokenizer
    this.path = init.path
  }

  /** Number of weights; a tied head counts once. */
  get parameterCount(): number {
    return this.parameters.list.reduce((sum, { weight }) => sum + weight.size, 0)
  }

  /** Frees weights and gradients. A second call does nothing. */
  dispose(): void {
    for (const parameter of this.parameters.list) parameter.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

export interface LoadModelOptions {
  /** A device or its name; 'auto'. */
  device?: Device | string
  /** Type to compute in; 'auto' is the checkpoint's own (f16 becomes bf16). */
  dtype?: ModelDType | 'auto'
  /** Branch, tag or commit of a Hub repository. */
  revision?: string
}

/**
 * Loads a Mistral or Llama checkpoint in the Hugging Face layout: a local folder or a Hub id. Weights
 * go from the mapped files straight into device tensors. The tokenizer beside it is loaded too.
 *
 * @throws ERR_CHECKPOINT, ERR_CONFIG, ERR_UNSUPPORTED, ERR_NETWORK, ERR_OUT_OF_MEMORY
 */
export async function loadModel(pathOrId: string, options: LoadModelOptions = {}): Promise<Model> {
  const on = deviceOf('loadModel', options.device)
  const wanted = options.dtype ?? 'auto'
  if (wanted !== 'auto') checkDType('loadModel', wanted)
  const path = await resolveModel(pathOrId, options.revision)
  const config = await readModelConfig(path)
  const located = locateParameters(await openCheckpoint(path), parameterSpecs(config))
  const stored = located[0]!.parts[0]!.tensor.dtype
  const dtype = wanted === 'auto' ? (stored === 'F32' ? 'f32' : 'bf16') : wanted
  const tokenizer = (await hasTokenizer(path)) ? await loadTokenizer(path) : undefined
  const parameters = createParameters(config, dtype, on)
  const model = new Model({ config, parameters, dtype, device: on, tokenizer, path })
  try {
    for (const [i, { parts }] of located.entries()) {
      for (const { part, tensor } of parts) {
        using rows = parameters.list[i]!.weight.rows(part.rowStart, part.rows)
        rows.load(tensor.file, tensor.begin, fileTypeOf(tensor.dtype))
      }
    }
    await on.synchronize()
  } catch (error) {
    model.dispose()
    throw error
  }
  return model
}

/** Whether a folder has a tokenizer. */
export function hasTokenizer(dir: string): Promise<boolean> {
  return exists(join(dir, 'tokenizer.json'))
}

function fileTypeOf(dtype: string): FileType {
  const types: Record<string, FileType> = { F32: 'f32', BF16: 'bf16', F16: 'f16' }
  const type = types[dtype]
  if (!type) throw new WestwindError('ERR_CHECKPOINT', `weights of type ${dtype} are not supported`)
  return type
}

/**
 * A model with random weights: linear and embedding weights normal with `initializer_range`, norms 1.
 * The same seed gives the same weights on every device and in every dtype (rounded).
 */
export function createModel(
  config: ModelConfig,
  options: { seed: number; dtype: ModelDType; device?: Device | string; tokenizer?: Tokenizer },
): Model {
  const { dtype, tokenizer, seed } = options
  if (!isModelConfig(config)) {
    throw invalid('createModel: config must be what parseModelConfig gave, unchanged', config)
  }
  checkDType('createModel', dtype)
  if (!Number.isSafeInteger(seed)) throw invalid('createModel: seed must be an integer', seed)
  const on = deviceOf('createModel', options.device)
  const parameters = createParameters(config, dtype, on)
  for (const [i, { spec, weight }] of parameters.list.entries()) {
    const values = new Float32Array(weight.size)
    if (spec.kind === 'norm') values.fill(1)
    else normalInto(values, config.initializerRange, seed, i)
    weight.write(values)
  }
  return new Model({ config, parameters, dtype, device: on, tokenizer })
}

function checkDType(name: string, dtype: unknown): void {
  if (dtype !== 'f32' && dtype !== 'bf16')
    throw invalid(`${name}: dtype must be f32 or bf16`, dtype)
}

function deviceOf(name: string, given: Device | string | undefined): Device {
  if (given instanceof Device) return given
  if (typeof given !== 'object') return openDevice(given)
  throw invalid(`${name}: device must be a device or its name`, given)
}

function invalid(expected: string, got: unknown): WestwindError {
  return new WestwindError('ERR_INVALID_ARG', `${expected}, got ${show(got)}`)
}
