import { type Check, number, oneOf } from '../arguments.js'
import { native } from '../native/addon.js'
import type { DType } from '../tensor/dtype.js'
import { empty, type Tensor } from '../tensor/tensor.js'
import { anyDType, checkArgs, floats } from './check.js'

const checkFloat: Check<DType> = oneOf('f32', 'bf16')

/** Sets every element, in place. */
export function fill(x: Tensor, value: number): void {
  checkArgs('fill', { x: [x, anyDType, 'any'] })
  number(value, 'fill: value')
  native().fill(x.handle, value)
}

/** `x *= factor`, in place. */
export function scale(x: Tensor, factor: number): void {
  checkArgs('scale', { x: [x, floats, 'any'] })
  number(factor, 'scale: factor')
  native().scale(x.handle, factor)
}

/** `a + b`, of one shape and dtype. */
export function add(a: Tensor, b: Tensor): Tensor {
  const { device } = checkArgs('add', { a: [a, floats, 'any'], b: [b, 'like a', 'like a'] })
  const out = empty(a.shape, a.dtype, device)
  native().add(a.handle, b.handle, out.handle)
  return out
}

/**
 * The elements in another dtype (f32 or bf16); the same dtype copies.
 *
 * @param out written instead of a new tensor
 */
export function cast(x: Tensor, dtype: DType, out?: Tensor): Tensor {
  checkFloat(dtype, 'cast: dtype')
  const { device } = checkArgs('cast', { x: [x, floats, 'any'], 'out?': [out, dtype, 'like x'] })
  const to = out ?? empty(x.shape, dtype, device)
  native().cast(x.handle, to.handle)
  return to
}
