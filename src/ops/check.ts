import type { Device } from '../device/device.js'
import { show, WestwindError } from '../errors.js'
import type { DType } from '../tensor/dtype.js'
import { Tensor } from '../tensor/tensor.js'

/** What an argument must be: the tensor (undefined: optional and absent), its dtype or dtypes, its dimensions. */
type Expectation = readonly [
  tensor: Tensor | undefined,
  dtype: DType | readonly DType[],
  dims: readonly (string | number)[],
]

export const floats: readonly DType[] = ['f32', 'bf16']

/**
 * Checks the tensors of an op: types, dtypes, device and shapes, where a named dimension must be the
 * same wherever it occurs. Returns the named dimensions and the device.
 *
 * @throws ERR_INVALID_ARG naming op, argument, expected and got; ERR_DISPOSED
 */
export function checkArgs<Name extends string>(
  op: string,
  args: Record<string, Expectation>,
  known: Record<string, number> = {},
): Record<Name, number> & { device: Device } {
  const dims: Record<string, number> = { ...known }
  let device: Device | undefined
  for (const [name, [tensor, dtype, shape]] of Object.entries(args)) {
    if (tensor === undefined) continue
    check(op, tensor instanceof Tensor, `${name} must be a tensor`, tensor)
    if (tensor.disposed) {
      throw new WestwindError('ERR_DISPOSED', `${op}: ${name}, a ${tensor}, is disposed`)
    }
    const dtypes = typeof dtype === 'string' ? [dtype] : dtype
    check(op, dtypes.includes(tensor.dtype), `${name} must be ${dtypes.join(' or ')}`, tensor.dtype)
    device ??= tensor.device
    check(op, tensor.device === device, `${name} must be on the device of the others`, tensor)
    const fits =
      tensor.shape.length === shape.length &&
      shape.every((dim, i) => {
        if (typeof dim === 'number') return dim === tensor.shape[i]
        dims[dim] ??= tensor.shape[i]!
        return dims[dim] === tensor.shape[i]
      })
    const wanted = shape.map((dim) =>
      typeof dim === 'string' && dim in dims ? `${dim}=${dims[dim]}` : dim,
    )
    check(op, fits, `${name} must be [${wanted.join(', ')}]`, `[${tensor.shape.join(', ')}]`)
  }
  if (!device) throw new WestwindError('ERR_INVALID_ARG', `${op}: no tensor given`)
  return { ...dims, device } as Record<Name, number> & { device: Device }
}

/** @throws ERR_INVALID_ARG unless `good`, naming the op, what was expected and what came */
export function check(op: string, good: boolean, expected: string, got: unknown): void {
  if (good) return
  const text = got instanceof Tensor ? String(got) : show(got)
  throw new WestwindError('ERR_INVALID_ARG', `${op}: ${expected}, got ${text}`)
}
