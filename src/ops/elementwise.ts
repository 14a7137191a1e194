import { native } from '../native/addon.js'
import type { DType } from '../tensor/dtype.js'
import { empty, type Tensor } from '../tensor/tensor.js'
import { check, checkArgs, floats } from './check.js'

/** Sets every element, in place. */
export function fill(x: Tensor, value: number): void {
  checkArgs('fill', { x: [x, ['f32', 'bf16', 'i32'], x.shape] })
  check('fill', typeof value === 'number', 'value must be a number', typeof value)
  native().fill(x.handle, value)
}

/** `x *= factor`, in place. */
export function scale(x: Tensor, factor: number): void {
  checkArgs('scale', { x: [x, floats, x.shape] })
  check('scale', typeof factor === 'number', 'factor must be a number', typeof factor)
  native().scale(x.handle, factor)
}

/** `a + b`, of one shape and dtype. */
export function add(a: Tensor, b: Tensor): Tensor {
  const { device } = checkArgs('add', { a: [a, floats, a.shape], b: [b, a.dtype, a.shape] })
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
  check('cast', floats.includes(dtype), 'dtype must be f32 or bf16', dtype)
  const { device } = checkArgs('cast', { x: [x, floats, x.shape], out: [out, dtype, x.shape] })
  const to = out ?? empty(x.shape, dtype, device)
  native().cast(x.handle, to.handle)
  return to
}
