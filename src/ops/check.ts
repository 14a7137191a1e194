import { type Check, fields, finite, integer, maxSize, nullable, optional } from '../arguments.js'
import type { Device } from '../device/device.js'
import { refuse, show, WestwindError } from '../errors.js'
import type { DType } from '../tensor/dtype.js'
import { checkTensor, type Tensor } from '../tensor/tensor.js'
import type { AttentionOptions } from './attention.js'

/** `like x`: what x has, an argument of the same op that stands before. */
type Like = `like ${string}`

/** What an argument must be: its dtype or dtypes, its dimensions. */
export type Expectation = readonly [
  tensor: Tensor | undefined,
  dtype: DType | readonly DType[] | Like,
  dims: readonly (string | number)[] | 'any' | Like,
]

export const floats: readonly DType[] = ['f32', 'bf16']
export const anyDType: readonly DType[] = ['f32', 'bf16', 'i32']

/**
 * Checks the tensors of an op: types, dtypes, device and shapes, where a named dimension must be the
 * same wherever it occurs. An argument whose name ends in a question mark may be undefined. Returns
 * the named dimensions and the device.
 *
 * @throws ERR_INVALID_ARG naming op, argument, expected and got; ERR_DISPOSED
 */
export function checkArgs<Name extends string>(
  op: string,
  args: Record<string, Expectation>,
): Record<Name, number> & { device: Device } {
  const dims: Record<string, number> = {}
  let device: Device | undefined
  for (const [key, [tensor, dtype, shape]] of Object.entries(args)) {
    const optional = key.endsWith('?')
    if (optional && tensor === undefined) continue
    const name = optional ? key.slice(0, -1) : key
    const where = `${op}: ${name}`
    checkTensor(tensor, where)
    if (tensor.disposed) {
      throw new WestwindError('ERR_DISPOSED', `${where}, a ${tensor}, is disposed`)
    }
    const like = typeof dtype === 'string' ? likeWhat(args, dtype) : undefined
    const dtypes = typeof dtype !== 'string' ? dtype : [like?.dtype ?? dtype]
    if (!dtypes.includes(tensor.dtype)) refuse(where, dtypes.join(' or '), tensor.dtype)
    device ??= tensor.device
    if (tensor.device !== device) refuse(where, 'on the device of the others', tensor)
    const wanted = typeof shape === 'string' ? likeWhat(args, shape)?.shape : shape
    if (wanted) checkShape(where, tensor, wanted, dims)
  }
  if (!device) throw new WestwindError('ERR_INVALID_ARG', `${op}: no tensor given`)
  return { ...dims, device } as Record<Name, number> & { device: Device }
}

function likeWhat(args: Record<string, Expectation>, words: string): Tensor | undefined {
  return words.startsWith('like ') ? args[words.slice(5)]?.[0] : undefined
}

function checkShape(
  where: string,
  { shape }: Tensor,
  wanted: readonly (string | number)[],
  dims: Record<string, number>,
): void {
  const fits =
    shape.length === wanted.length &&
    wanted.every((dim, i) => {
      if (typeof dim === 'number') return dim === shape[i]
      dims[dim] ??= shape[i]!
      return dims[dim] === shape[i]
    })
  if (fits && shape.every((n) => n <= maxSize)) return
  if (fits) refuse(where, `of dimensions of at most ${maxSize}`, `[${shape.join(', ')}]`)
  const words = wanted.map((dim) =>
    typeof dim === 'string' && dim in dims ? `${dim}=${dims[dim]}` : dim,
  )
  refuse(where, `[${words.join(', ')}]`, `[${shape.join(', ')}]`)
}

/** @throws ERR_INVALID_ARG unless `good`, naming the op, what was expected and what came */
export function check(op: string, good: boolean, expected: string, got: unknown): void {
  if (good) return
  throw new WestwindError('ERR_INVALID_ARG', `${op}: ${expected}, got ${show(got)}`)
}

export type Heads = Pick<AttentionOptions, 'heads' | 'kvHeads'>

const heads = { heads: integer(1, maxSize), kvHeads: integer(1, maxSize) }
const headFields: Check<Heads> = fields<Heads>(heads)
const optionFields: Check<AttentionOptions> = fields<AttentionOptions>({
  ...heads,
  window: nullable(integer(1, maxSize)),
  scale: optional(finite),
})

export function checkHeads(op: string, options: Heads): void {
  headFields(options, `${op}: options`)
  const { heads, kvHeads } = options
  check(op, heads % kvHeads === 0, 'heads must be a multiple of kvHeads', `${heads}/${kvHeads}`)
}

export function checkAttentionOptions(op: string, options: AttentionOptions): void {
  optionFields(options, `${op}: options`)
  checkHeads(op, options)
}
