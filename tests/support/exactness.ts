import { expect } from 'vitest'
import { roundToBf16, type TypedArray } from '../../src/tensor/dtype.js'

/** Rounds inputs and results of a reference formula: the identity gives the float64 truth. */
export type Round = (x: number) => number
export const exact: Round = (x) => x

/** The root of the mean square of the difference. */
export function rms(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0
  for (let i = 0; i < b.length; i++) sum += (a[i]! - b[i]!) ** 2
  return Math.sqrt(sum / Math.max(b.length, 1))
}

/** Largest difference, relative to the largest value of the truth. */
export function relativeError(actual: ArrayLike<number>, truth: ArrayLike<number>): number {
  let error = 0
  let scale = 0
  for (let i = 0; i < truth.length; i++) {
    const difference = Math.abs(actual[i]! - truth[i]!)
    error = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : Math.max(error, difference)
    scale = Math.max(scale, Math.abs(truth[i]!))
  }
  return scale === 0 ? error : error / scale
}

/** f32: the largest difference is at most `bound` of the largest value. */
export function expectExactF32(
  actual: ArrayLike<number>,
  truth: ArrayLike<number>,
  bound = 1e-5,
): void {
  expect(actual.length).toBe(truth.length)
  expect(relativeError(actual, truth)).toBeLessThanOrEqual(bound)
}

/**
 * bf16: the error is at most twice that of the same formula with inputs and results rounded to bf16,
 * plus half a bf16 step where that formula happens to be exact.
 */
export function expectAsExactAsBf16(
  actual: ArrayLike<number>,
  formula: (round: Round) => ArrayLike<number>,
): void {
  const truth = formula(exact)
  const plain = formula(roundToBf16)
  expect(actual.length).toBe(truth.length)
  let scale = 0
  for (let i = 0; i < truth.length; i++) scale = Math.max(scale, Math.abs(truth[i]!))
  expect(rms(actual, truth)).toBeLessThanOrEqual(2 * rms(plain, truth) + scale * 2 ** -9)
}

/** Whether two arrays hold the same bytes: stricter than equal numbers, and fast. */
export function sameBits(a: TypedArray, b: TypedArray): boolean {
  const bytes = (x: TypedArray) => Buffer.from(x.buffer, x.byteOffset, x.byteLength)
  return bytes(a).equals(bytes(b))
}
