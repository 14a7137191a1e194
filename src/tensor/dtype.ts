/** Element types of tensors. `bf16` is the upper half of an `f32`. */
export type DType = 'f32' | 'bf16' | 'i32'

/** What `read()` gives: bf16 is read as f32 values. */
export type TypedArray = Float32Array | Int32Array

export const dtypeCode: Record<DType, number> = { f32: 0, bf16: 1, i32: 2 }

/** Bytes of one element. */
export const dtypeBytes: Record<DType, number> = { f32: 4, bf16: 2, i32: 4 }

const scratch = new Float32Array(1)
const scratchBits = new Uint32Array(scratch.buffer)

/** The bf16 bits nearest to x (ties to even); NaN stays NaN. */
export function toBf16Bits(x: number): number {
  scratch[0] = x
  const bits = scratchBits[0]!
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff
}

/** x rounded to the nearest bf16. */
export function roundToBf16(x: number): number {
  scratchBits[0] = toBf16Bits(x) << 16
  return scratch[0]!
}

/** bf16 bits as f32 values. */
export function bf16ToFloat32(bits: Uint16Array): Float32Array {
  const out = new Float32Array(bits.length)
  const words = new Uint32Array(out.buffer)
  for (let i = 0; i < bits.length; i++) words[i] = bits[i]! << 16
  return out
}

/** f32 values as bf16 bits. */
export function float32ToBf16(values: ArrayLike<number>): Uint16Array {
  const out = new Uint16Array(values.length)
  for (let i = 0; i < values.length; i++) out[i] = toBf16Bits(values[i]!)
  return out
}
