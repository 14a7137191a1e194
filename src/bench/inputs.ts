import type { Device } from '../device/device.js'
import type { ModelDType } from '../model/model.js'
import { normalInto } from '../model/random.js'
import { roundToBf16 } from '../tensor/dtype.js'
import { fromArray, type Tensor } from '../tensor/tensor.js'

/** A tensor and, on the host, exactly the values it holds. */
export interface BenchInput {
  values: Float32Array
  tensor: Tensor
}

/** Normal numbers of a fixed seed. The tensor belongs to the caller's scope. */
export function normalInput(
  shape: readonly number[],
  dtype: ModelDType,
  device: Device,
  options: { seed: number; deviation?: number },
): BenchInput {
  const values = new Float32Array(shape.reduce((product, n) => product * n, 1))
  normalInto(values, options.deviation ?? 1, options.seed, 0)
  if (dtype === 'bf16') {
    for (let i = 0; i < values.length; i++) values[i] = roundToBf16(values[i]!)
  }
  return { values, tensor: fromArray(values, shape, dtype, device) }
}

/** `count` indices below n, spread over all of it, the first and the last among them. */
export function spread(n: number, count: number): number[] {
  const last = Math.min(n, count) - 1
  return Array.from({ length: last + 1 }, (_, i) =>
    last === 0 ? n - 1 : Math.round((i * (n - 1)) / last),
  )
}

/** Largest difference over a sample, relative to its largest true value; infinite where one is not a number. */
export class SampledError {
  #difference = 0
  #largest = 0

  add(actual: number, truth: number): void {
    const difference = Math.abs(actual - truth)
    this.#difference = Number.isNaN(difference)
      ? Number.POSITIVE_INFINITY
      : Math.max(this.#difference, difference)
    this.#largest = Math.max(this.#largest, Math.abs(truth))
  }

  get relative(): number {
    return this.#largest === 0 ? this.#difference : this.#difference / this.#largest
  }
}
