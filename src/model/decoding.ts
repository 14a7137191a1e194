import type { Recording } from '../device/device.js'
import { gemm, type SampleOptions, sample } from '../ops/index.js'
import { keep, own, scope } from '../tensor/scope.js'
import { fromArray, type Tensor } from '../tensor/tensor.js'
import {
  type CacheInput,
  type CacheTokens,
  decodeTokens,
  forwardCached,
  type KvCache,
} from './kv-cache.js'
import type { Model } from './model.js'
import { randomStream, seedOf } from './random.js'

/** Recordings kept: each holds the activations of a step. */
const kRecordings = 16

/**
 * Steps of one token for each of some rows, recorded when such a step first runs: the ops of all later
 * ones are the same but for the contents of their inputs, and hundreds of calls become one.
 */
export class RecordedSteps {
  readonly #model: Model
  readonly #cache: KvCache
  /** The one used last comes last. */
  readonly #steps = new Map<string, RecordedStep>()

  constructor(model: Model, cache: KvCache) {
    this.#model = model
    this.#cache = cache
  }

  /** The chosen tokens `[rows]`; they stay until the next step. */
  choose(inputs: readonly CacheInput[], drawn: readonly number[], options: SampleOptions): Tensor {
    const { temperature, topK, topP } = options
    const key = `${inputs.length}, ${temperature}, ${topK}, ${topP}`
    return this.#run(key, inputs, drawn, (logits, drawn) => sample(logits, drawn, options))
  }

  /** Logits `[rows, V]`; they stay until the next step. */
  logits(inputs: readonly CacheInput[]): Tensor {
    return this.#run(`${inputs.length}`, inputs, [], (logits) => logits)
  }

  dispose(): void {
    for (const step of this.#steps.values()) step.dispose()
    this.#steps.clear()
  }

  #run(
    key: string,
    inputs: readonly CacheInput[],
    drawn: readonly number[],
    end: (logits: Tensor, drawn: Tensor) => Tensor,
  ): Tensor {
    let step = this.#steps.get(key)
    if (step) {
      this.#steps.delete(key)
      step.run(inputs, drawn)
    } else {
      const [oldest] = this.#steps
      if (oldest && this.#steps.size >= kRecordings) {
        oldest[1].dispose()
        this.#steps.delete(oldest[0])
      }
      step = new RecordedStep(this.#model, this.#cache, inputs, drawn, end)
    }
    this.#steps.set(key, step)
    return step.result
  }
}

class RecordedStep {
  readonly #tokens: CacheTokens
  readonly #drawn: Tensor
  readonly #recording: Recording
  readonly result: Tensor

  /** Runs the step, too. */
  constructor(
    model: Model,
    cache: KvCache,
    inputs: readonly CacheInput[],
    drawn: readonly number[],
    end: (logits: Tensor, drawn: Tensor) => Tensor,
  ) {
    const tokens = decodeTokens(model, inputs)
    const numbers = fromArray(drawn, [drawn.length], 'f32', model.device)
    let result: Tensor | undefined
    this.#recording = model.device.record(() => {
      using _ = scope()
      const hidden = forwardCached(model, cache, tokens)
      result = keep(end(logitsOf(model, hidden), numbers))
    })
    this.#tokens = tokens
    this.#drawn = own(numbers)
    for (const x of [tokens.ids, tokens.rows.slot, tokens.rows.position]) own(x)
    this.result = own(result!)
  }

  run(inputs: readonly CacheInput[], drawn: readonly number[]): void {
    const { ids, rows } = this.#tokens
    ids.write(inputs.map((input) => input.ids[0]!))
    rows.slot.write(inputs.map(({ slot }) => slot))
    rows.position.write(inputs.map(({ start }) => start))
    this.#drawn.write(drawn)
    this.#recording.replay()
  }

  dispose(): void {
    this.#recording.dispose()
    const { ids, rows } = this.#tokens
    for (const x of [ids, rows.slot, rows.position, this.#drawn, this.result]) x.dispose()
  }
}

/** `[N, C] -> [N, V]` f32. */
export function logitsOf(model: Model, hidden: Tensor): Tensor {
  return gemm(hidden, model.parameters.lmHead.weight, { transB: true, dtype: 'f32' })
}

/** The random number of a token, in [0, 1) and exact in f32. */
export function uniform(seed: number, index: number, token: number): number {
  const x = randomStream(seedOf(seedOf(seed, index), token))()
  return Math.floor(x * 2 ** 24) / 2 ** 24
}
