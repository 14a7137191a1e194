import type { Device } from '../device/device.js'
import type { ModelDType } from '../model/model.js'
import { normalInto } from '../model/random.js'
import { dtypeBytes, roundToBf16 } from '../tensor/dtype.js'
import { fromArray, type Tensor } from '../tensor/tensor.js'

/** Equal tensors, and on the host exactly the values they hold. */
export interface BenchInput {
  values: Float32Array
  /** The first copy. */
  tensor: Tensor
  /** The copy of that turn. */
  at: (turn: number) => Tensor
}

/** More than the L2 cache of any GPU so far. */
const cacheBytes = 128 * 2 ** 20
/** Enough for inputs of 2 MiB; what takes no longer than a launch is not worth more. */
const mostCopies = 64

/** Copies of inputs of `bytes` in all, so that a GPU that goes through them finds none in its cache; 1 on a CPU. */
export function copiesFor(device: Device, bytes: number): number {
  if (device.name === 'cpu') return 1
  return Math.min(mostCopies, Math.ceil(cacheBytes / bytes))
}

/** How often random numbers repeat: a prime, so that no row looks like the one above it. */
const period = 1_000_003

/** Normal numbers of a fixed seed. The tensors belong to the caller's scope. */
export function normalInput(
  shape: readonly number[],
  dtype: ModelDType,
  device: Device,
  options: { seed: number; deviation?: number; copies?: number },
): BenchInput {
  const values = new Float32Array(shape.reduce((product, n) => product * n, 1))
  const first = values.subarray(0, period)
  normalInto(first, options.deviation ?? 1, options.seed, 0)
  if (dtype === 'bf16') {
    for (let i = 0; i < first.length; i++) first[i] = roundToBf16(first[i]!)
  }
  for (let at = period; at < values.length; at += period) values.copyWithin(at, 0, period)
  return inputOf(values, shape, dtype, device, options.copies)
}

/** Those values, as a number of equal tensors. */
export function inputOf(
  values: Float32Array,
  shape: readonly number[],
  dtype: ModelDType,
  device: Device,
  copies = 1,
): BenchInput {
  const make = () => fromArray(values, shape, dtype, device)
  const tensors: Tensor[] = Array.from({ length: copies }, make)
  return { values, tensor: tensors[0]!, at: (turn) => tensors[turn % copies]! }
}

/** Bytes that tensors of these sizes take. */
export function bytesOf(dtype: ModelDType, ...sizes: number[]): number {
  return dtypeBytes[dtype] * sizes.reduce((sum, n) => sum + n, 0)
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
