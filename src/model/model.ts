import { join } from 'node:path'
import {
  type Check,
  fields,
  instance,
  integer,
  list,
  oneOf,
  optional,
  path as pathName,
  text,
} from '../arguments.js'
import { exists } from '../checkpoint/atomic.js'
import { locateParameters, openCheckpoint, readModelConfig } from '../checkpoint/checkpoint.js'
import { checkTokenizer, loadTokenizer, type Tokenizer } from '../data/tokenizer/tokenizer.js'
import { checkDevice, Device, device as openDevice } from '../device/device.js'
import { refuse, WestwindError } from '../errors.js'
import { resolveModel } from '../hub.js'
import type { FileType } from '../tensor/tensor.js'
import { checkModelConfig, type ModelConfig } from './config.js'
import { parameterSpecs } from './names.js'
import {
  createParameters,
  type LayerParameters,
  type ModelParameters,
  Parameter,
} from './parameters.js'
import { normalInto } from './random.js'
import type { Transformer } from './transformer.js'

/** Types a model computes in: weights and activations. */
export type ModelDType = 'f32' | 'bf16'

/** What a model consists of. */
export interface ModelParts {
  config: ModelConfig
  parameters: ModelParameters
  dtype: ModelDType
  device: Device
  tokenizer: Tokenizer | undefined
  path?: string
}

const checkDType: Check<ModelDType> = oneOf('f32', 'bf16')
const parameter: Check<Parameter> = instance(Parameter, 'a parameter')
const checkParts: Check<ModelParts> = fields<ModelParts>({
  config: checkModelConfig,
  parameters: fields<ModelParameters>({
    list: list(parameter),
    embedding: parameter,
    layers: list(
      fields<LayerParameters>({
        inputNorm: parameter,
        qkv: parameter,
        out: parameter,
        postNorm: parameter,
        gateUp: parameter,
        down: parameter,
      }),
    ),
    norm: parameter,
    lmHead: parameter,
  }),
  dtype: checkDType,
  device: checkDevice,
  tokenizer: optional(checkTokenizer),
  path: optional(pathName),
})

/** A causal language model on a device, with its tokenizer where there is one. Dispose it. */
export class Model implements Transformer {
  readonly config: ModelConfig
  readonly parameters: ModelParameters
  readonly dtype: ModelDType
  readonly device: Device
  readonly tokenizer: Tokenizer | undefined
  /** Where it was loaded from; undefined for fresh weights. */
  readonly path: string | undefined
  #disposed = false

  constructor(init: ModelParts) {
    checkParts(init, 'Model: init')
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

  get disposed(): boolean {
    return this.#disposed
  }

  /** @internal Proxies and inherited prototypes, which instanceof takes, are no models. */
  static is(value: unknown): value is Model {
    return typeof value === 'object' && value !== null && #disposed in value
  }

  /** Frees weights and gradients. A second call does nothing. */
  dispose(): void {
    this.#disposed = true
    for (const parameter of this.parameters.list) parameter.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** A model whose weights are there. */
export const checkModel: Check<Model> = (value, where) => {
  if (!Model.is(value)) refuse(where, 'a model', value)
  if (value.disposed) throw new WestwindError('ERR_DISPOSED', `${where} is disposed`)
}

export interface LoadModelOptions {
  /** A device or its name; 'auto'. */
  device?: Device | string
  /** Type to compute in; 'auto' is the checkpoint's own (f16 becomes bf16). */
  dtype?: ModelDType | 'auto'
  /** Branch, tag or commit of a Hub repository. */
  revision?: string
}

const checkDeviceOrName: Check<Device | string> = (value, where) => {
  if (typeof value === 'string') return
  if (!Device.is(value)) refuse(where, 'a device or its name', value)
  checkDevice(value, where)
}
const checkLoadOptions: Check<LoadModelOptions> = fields<LoadModelOptions>({
  device: optional(checkDeviceOrName),
  dtype: optional(oneOf('f32', 'bf16', 'auto')),
  revision: optional(text),
})

/**
 * Loads a Mistral or Llama checkpoint in the Hugging Face layout: a local folder or a Hub id. Weights
 * go from the mapped files straight into device tensors. The tokenizer beside it is loaded too.
 *
 * @throws ERR_CHECKPOINT, ERR_CONFIG, ERR_UNSUPPORTED, ERR_NETWORK, ERR_OUT_OF_MEMORY
 */
export async function loadModel(pathOrId: string, options: LoadModelOptions = {}): Promise<Model> {
  pathName(pathOrId, 'loadModel: pathOrId')
  checkLoadOptions(options, 'loadModel: options')
  const on = deviceOf(options.device)
  const wanted = options.dtype ?? 'auto'
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

export interface CreateModelOptions {
  seed: number
  dtype: ModelDType
  device?: Device | string
  tokenizer?: Tokenizer
}

const checkCreateOptions: Check<CreateModelOptions> = fields<CreateModelOptions>({
  seed: integer(Number.MIN_SAFE_INTEGER),
  dtype: checkDType,
  device: optional(checkDeviceOrName),
  tokenizer: optional(checkTokenizer),
})

/**
 * A model with random weights: linear and embedding weights normal with `initializer_range`, norms 1.
 * The same seed gives the same weights on every device and in every dtype (rounded).
 */
export function createModel(config: ModelConfig, options: CreateModelOptions): Model {
  checkModelConfig(config, 'createModel: config')
  checkCreateOptions(options, 'createModel: options')
  const { dtype, tokenizer, seed } = options
  const on = deviceOf(options.device)
  const parameters = createParameters(config, dtype, on)
  for (const [i, { spec, weight }] of parameters.list.entries()) {
    const values = new Float32Array(weight.size)
    if (spec.kind === 'norm') values.fill(1)
    else normalInto(values, config.initializerRange, seed, i)
    weight.write(values)
  }
  return new Model({ config, parameters, dtype, device: on, tokenizer })
}

function deviceOf(given: Device | string | undefined): Device {
  return typeof given === 'object' ? given : openDevice(given)
}
