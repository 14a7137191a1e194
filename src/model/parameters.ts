import type { Device } from '../device/device.js'
import { fill } from '../ops/index.js'
import type { DType } from '../tensor/dtype.js'
import { own } from '../tensor/scope.js'
import { empty, type Tensor } from '../tensor/tensor.js'
import type { ModelConfig } from './config.js'
import { type ParameterSpec, parameterSpecs } from './names.js'

/** One weight of the model, and its gradient while training. */
export class Parameter {
  readonly spec: ParameterSpec
  /** `spec.shape` in the model's dtype. */
  readonly weight: Tensor
  #grad: Tensor | undefined

  constructor(spec: ParameterSpec, weight: Tensor) {
    this.spec = spec
    this.weight = weight
  }

  get name(): string {
    return this.spec.name
  }

  /** f32, accumulated by backward; made and set to zero on first use. */
  get grad(): Tensor {
    if (!this.#grad) {
      this.#grad = own(empty(this.spec.shape, 'f32', this.weight.device, 'gradients'))
      fill(this.#grad, 0)
    }
    return this.#grad
  }

  /**
   * Gives the gradient's memory back; the next one begins at zero. Between an update and the next backward that memory
   * serves the activations.
   */
  freeGrad(): void {
    this.#grad?.dispose()
    this.#grad = undefined
  }

  dispose(): void {
    this.freeGrad()
    this.weight.dispose()
  }
}

/** The weights of one block, by what they do. */
export interface LayerParameters {
  inputNorm: Parameter
  qkv: Parameter
  out: Parameter
  postNorm: Parameter
  gateUp: Parameter
  down: Parameter
}

/** All weights, by what they do and as a list in their fixed order. */
export interface ModelParameters {
  list: Parameter[]
  embedding: Parameter
  layers: LayerParameters[]
  norm: Parameter
  /** The embedding itself where the two are tied. */
  lmHead: Parameter
}

/** Memory for the parameters of a config; values are not set. */
export function createParameters(config: ModelConfig, dtype: DType, on: Device): ModelParameters {
  const list: Parameter[] = []
  try {
    for (const spec of parameterSpecs(config)) {
      list.push(new Parameter(spec, own(empty(spec.shape, dtype, on, 'weights'))))
    }
  } catch (error) {
    for (const parameter of list) parameter.dispose()
    throw error
  }
  const byName = new Map(list.map((parameter) => [parameter.name, parameter]))
  const find = (name: string): Parameter => byName.get(name)!
  const layers = Array.from({ length: config.layers }, (_, i) => {
    const at = (part: string) => find(`layers.${i}.${part}`)
    return {
      inputNorm: at('inputNorm'),
      qkv: at('qkv'),
      out: at('out'),
      postNorm: at('postNorm'),
      gateUp: at('gateUp'),
      down: at('down'),
    }
  })
  const embedding = find('embedding')
  const lmHead = config.tieWordEmbeddings ? embedding : find('lmHead')
  return { list, embedding, layers, norm: find('norm'), lmHead }
}
