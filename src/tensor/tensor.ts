import { inspect } from 'node:util'
import { type Check, integer, oneOf, path, readable } from '../arguments.js'
import { asDeviceError, checkDevice, type Device, deviceError } from '../device/device.js'
import { refuse, WestwindError } from '../errors.js'
import { type MemoryTag, memoryTags, type TensorHandle } from '../native/addon-types.js'
import { bf16ToFloat32, type DType, float32ToBf16, type TypedArray } from './dtype.js'
import { register, unregister } from './scope.js'

export type Shape = readonly number[]

/** Types of numbers in files, converted while loading. */
export type FileType = 'f32' | 'bf16' | 'f16' | 'i32'
const fileTypeCode: Record<FileType, number> = { f32: 0, bf16: 1, f16: 2, i32: 3 }

const checkFileType: Check<FileType> = oneOf('f32', 'bf16', 'f16', 'i32')
const checkDType: Check<DType> = oneOf('f32', 'bf16', 'i32')
const checkTag: Check<MemoryTag> = oneOf(...memoryTags)
const checkCount: Check<number> = integer(0)

/**
 * A dense, row-major array on a device: a handle, cheap to pass around. Dispose it (`using`, a scope,
 * or `dispose()`); the garbage collector is only the safety net, and
 * `device.stats().forgottenTensors` counts what it had to do.
 */
export class Tensor {
  readonly shape: Shape
  readonly dtype: DType
  readonly device: Device
  #handle: TensorHandle | undefined

  /** @internal Use {@link empty}, {@link fromArray} or an op. */
  constructor(handle: TensorHandle, shape: Shape, dtype: DType, on: Device) {
    this.#handle = handle
    this.shape = shape
    this.dtype = dtype
    this.device = on
    register(this)
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape)
  }

  get disposed(): boolean {
    return this.#handle === undefined
  }

  /** @internal Proxies and inherited prototypes, which instanceof takes, are no tensors. */
  static is(value: unknown): value is Tensor {
    return typeof value === 'object' && value !== null && #handle in value
  }

  /** @internal */
  get handle(): TensorHandle {
    if (!this.#handle) throw new WestwindError('ERR_DISPOSED', `${this} is disposed`)
    return this.#handle
  }

  /**
   * A copy of the elements, once everything enqueued before is done: Float32Array for f32 and bf16,
   * Int32Array for i32.
   *
   * @throws ERR_DEVICE with the first error of the work before it
   */
  async read(): Promise<TypedArray> {
    return this.#copy((buffer) => {
      if (this.dtype === 'bf16') return bf16ToFloat32(new Uint16Array(buffer))
      return this.dtype === 'i32' ? new Int32Array(buffer) : new Float32Array(buffer)
    })
  }

  /** The raw bytes, little-endian: what goes into a file. */
  async readBytes(): Promise<Uint8Array> {
    return this.#copy((buffer) => new Uint8Array(buffer))
  }

  #copy<T>(as: (buffer: ArrayBuffer) => T): Promise<T> {
    const { handle } = this
    if (this.device.disposed) {
      throw new WestwindError('ERR_DISPOSED', `read: device ${this.device} is disposed`)
    }
    return asDeviceError(this.device.name, async () => as(await handle.read()))
  }

  /** Enqueues a copy of `values` into the tensor; numbers are rounded to its dtype. */
  write(values: ArrayLike<number>): void {
    writeValues('write', this, values)
  }

  /** Enqueues reading the elements from a file, converted to the tensor's dtype. */
  load(file: string, byteOffset: number, fileType: FileType): void {
    path(file, 'load: file')
    checkCount(byteOffset, 'load: byteOffset')
    checkFileType(fileType, 'load: fileType')
    this.handle.load(file, byteOffset, fileTypeCode[fileType])
  }

  /** The same elements under another shape; shares the memory. */
  reshape(shape: Shape): Tensor {
    checkShape(shape, 'reshape: shape')
    if (sizeOf(shape) !== this.size) {
      throw new WestwindError('ERR_INVALID_ARG', `reshape: ${this} has not the size of [${shape}]`)
    }
    return new Tensor(this.handle.view(0, this.size), [...shape], this.dtype, this.device)
  }

  /** Rows `start` to `start + count` of the first dimension; shares the memory. */
  rows(start: number, count: number): Tensor {
    const [all, ...rest] = this.shape
    checkCount(start, 'rows: start')
    checkCount(count, 'rows: count')
    if (all === undefined || start + count > all) {
      throw new WestwindError(
        'ERR_INVALID_ARG',
        `rows: ${this} has no rows ${start} to ${start + count}`,
      )
    }
    const width = sizeOf(rest)
    const view = this.handle.view(start * width, count * width)
    return new Tensor(view, [count, ...rest], this.dtype, this.device)
  }

  /** Gives the memory back (shared memory when its last tensor goes). A second call does nothing. */
  dispose(): void {
    if (!this.#handle) return
    this.#handle.dispose()
    this.#handle = undefined
    unregister(this)
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  /** How Node prints it. */
  [inspect.custom](): string {
    return this.toString()
  }

  toString(): string {
    return `tensor ${this.dtype} [${this.shape.join(', ')}] on ${this.device}`
  }
}

/** Product of the dimensions. */
export function sizeOf(shape: Shape): number {
  return shape.reduce((product, n) => product * n, 1)
}

/** Refuses what is no tensor; a disposed one still is. */
export const checkTensor: Check<Tensor> = (value, where) => {
  if (!Tensor.is(value)) refuse(where, 'a tensor', value)
}

const checkShape: Check<Shape> = readable((shape, where) => {
  const good = Array.isArray(shape) && shape.every((n) => Number.isSafeInteger(n) && n >= 0)
  if (!good || sizeOf(shape) > 1e14) {
    refuse(where, 'non-negative integers with at most 1e14 elements in all', shape)
  }
})

function writeValues(op: string, to: Tensor, values: ArrayLike<number>): void {
  checkArrayLike(values, `${op}: values`)
  if (values.length !== to.size) {
    throw new WestwindError(
      'ERR_INVALID_ARG',
      `${op}: ${to} takes ${to.size} values, got ${values.length}`,
    )
  }
  if (!ArrayBuffer.isView(values)) checkNumbers(values, `${op}: values`)
  const { handle } = to
  try {
    handle.write(encode(values, to.dtype))
  } catch (cause) {
    throw cause instanceof WestwindError ? cause : deviceError(`${op}: ${to}`, cause)
  }
}

const checkArrayLike: Check<ArrayLike<unknown>> = readable((value, where) => {
  const big = value instanceof BigInt64Array || value instanceof BigUint64Array
  const good = typeof value === 'object' && value !== null && 'length' in value && !big
  if (!good || typeof value.length !== 'number') refuse(where, 'an array of numbers', value)
})

function checkNumbers(values: ArrayLike<unknown>, where: string): void {
  for (let i = 0; i < values.length; i++) {
    if (typeof values[i] !== 'number') refuse(`${where}[${i}]`, 'a number', values[i])
  }
}

function encode(values: ArrayLike<number>, dtype: DType): ArrayBufferView {
  if (dtype === 'bf16') return float32ToBf16(values)
  if (dtype === 'f32') return values instanceof Float32Array ? values : Float32Array.from(values)
  if (values instanceof Int32Array) return values
  for (let i = 0; i < values.length; i++) {
    if (values[i] !== (values[i]! | 0)) {
      throw new WestwindError('ERR_INVALID_ARG', `value ${values[i]} at index ${i} is not an i32`)
    }
  }
  return Int32Array.from(values)
}

/** A tensor whose elements are not set yet. `tag` says what it is for in `device.stats()`. */
export function empty(
  shape: Shape,
  dtype: DType,
  on: Device,
  tag: MemoryTag = 'activations',
): Tensor {
  return make('empty', shape, dtype, on, tag)
}

function make(op: string, shape: Shape, dtype: DType, on: Device, tag: MemoryTag): Tensor {
  checkShape(shape, `${op}: shape`)
  checkDType(dtype, `${op}: dtype`)
  checkDevice(on, `${op}: on`)
  checkTag(tag, `${op}: tag`)
  return new Tensor(on.allocate(dtype, sizeOf(shape), tag), [...shape], dtype, on)
}

/** A tensor with these elements, copied to the device. */
export function fromArray(
  values: ArrayLike<number>,
  shape: Shape,
  dtype: DType,
  on: Device,
  tag: MemoryTag = 'activations',
): Tensor {
  const tensor = make('fromArray', shape, dtype, on, tag)
  try {
    writeValues('fromArray', tensor, values)
  } catch (error) {
    tensor.dispose()
    throw error
  }
  return tensor
}
