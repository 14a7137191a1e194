import { writeSafetensors } from '../checkpoint/safetensors.js'
import {
  locateOptimizerState,
  type OptimizerSlot,
  optimizerTensorName,
} from '../checkpoint/training-state.js'
import type { Model } from '../model/model.js'
import type { Parameter } from '../model/parameters.js'
import { adamw, cast, fill, type OptimizerTensors, rmsprop } from '../ops/index.js'
import type { TrainingConfig } from '../recipe/config.js'
import { own } from '../tensor/scope.js'
import { empty, type Tensor } from '../tensor/tensor.js'

type Settings = Pick<
  TrainingConfig,
  | 'optim'
  | 'adamBeta1'
  | 'adamBeta2'
  | 'adamEpsilon'
  | 'rmspropAlpha'
  | 'rmspropEpsilon'
  | 'weightDecay'
  | 'masterWeights'
>

/** The state tensors of one parameter. */
type Slots = Partial<Record<OptimizerSlot, Tensor>>

/** AdamW or RMSprop over all parameters of a model, with f32 state and, for bf16 models, f32 masters. */
export class Optimizer {
  readonly #model: Model
  readonly #settings: Settings
  readonly #slots: readonly OptimizerSlot[]
  readonly #state = new Map<Parameter, Slots>()
  /** Updates made so far. */
  steps = 0

  constructor(model: Model, settings: Settings) {
    this.#model = model
    this.#settings = settings
    const moments: OptimizerSlot[] =
      settings.optim === 'adamw' ? ['exp_avg', 'exp_avg_sq'] : ['square_avg']
    const masters = model.dtype === 'bf16' && settings.masterWeights
    this.#slots = masters ? [...moments, 'master'] : moments
    for (const parameter of model.parameters.list) {
      const slots: Slots = {}
      this.#state.set(parameter, slots)
      for (const slot of this.#slots) {
        const tensor = own(empty(parameter.spec.shape, 'f32', model.device, 'optimizer'))
        slots[slot] = tensor
        if (slot === 'master') cast(parameter.weight, 'f32', tensor)
        else fill(tensor, 0)
      }
    }
  }

  /**
   * One update of every parameter from its gradient.
   *
   * @param gradScale factor of the gradients (clipping)
   */
  step(lr: number, gradScale: number): void {
    this.steps += 1
    const { optim, weightDecay, adamBeta1, adamBeta2, adamEpsilon } = this.#settings
    const tensors = [...this.#state].map(([parameter, slots]): OptimizerTensors => {
      const shared = {
        param: parameter.weight,
        grad: parameter.grad,
        weightDecay: parameter.spec.decay ? weightDecay : 0,
        ...(slots.master && { master: slots.master }),
      }
      return optim === 'adamw'
        ? { ...shared, first: slots.exp_avg!, second: slots.exp_avg_sq! }
        : { ...shared, second: slots.square_avg! }
    })
    if (optim === 'adamw') {
      const betas = { beta1: adamBeta1, beta2: adamBeta2, eps: adamEpsilon }
      adamw(tensors, { lr, ...betas, step: this.steps, gradScale })
    } else {
      const { rmspropAlpha: alpha, rmspropEpsilon: eps } = this.#settings
      rmsprop(tensors, { lr, alpha, eps, gradScale })
    }
  }

  /** Writes the state as `optimizer.safetensors`. */
  async save(file: string): Promise<void> {
    const entries = [...this.#state].flatMap(([parameter, slots]) =>
      this.#slots.map((slot) => ({
        name: optimizerTensorName(parameter.name, slot),
        dtype: 'F32' as const,
        shape: parameter.spec.shape,
        bytes: () => slots[slot]!.readBytes(),
      })),
    )
    await writeSafetensors(file, entries)
  }

  /** Reads the state that {@link save} wrote into `dir`. */
  async load(dir: string, steps: number): Promise<void> {
    const specs = this.#model.parameters.list.map(({ spec }) => spec)
    const byName = new Map([...this.#state].map(([parameter, slots]) => [parameter.name, slots]))
    for (const { parameter, slot, tensor } of await locateOptimizerState(dir, specs, this.#slots)) {
      byName.get(parameter.name)![slot]!.load(tensor.file, tensor.begin, 'f32')
    }
    await this.#model.device.synchronize()
    this.steps = steps
  }

  dispose(): void {
    for (const slots of this.#state.values()) {
      for (const tensor of Object.values(slots)) tensor.dispose()
    }
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
