import { readFileSync } from 'node:fs'
import { inflateRawSync } from 'node:zlib'

/** A float32 array of an `.npz` file. */
export interface NpyArray {
  shape: number[]
  values: Float32Array
}

/** Arrays of an `.npz` file (ZIP, stored or deflated, no ZIP64) by name; little-endian float32 only. */
export function readNpz(file: string): Map<string, NpyArray> {
  const zip = readFileSync(file)
  const end = zip.lastIndexOf(Buffer.from('PK\x05\x06', 'latin1'))
  if (end < 0) throw new Error(`${file}: no ZIP directory`)
  const arrays = new Map<string, NpyArray>()
  let at = zip.readUInt32LE(end + 16)
  for (let n = zip.readUInt16LE(end + 10); n > 0; n--) {
    const method = zip.readUInt16LE(at + 10)
    const bytes = zip.readUInt32LE(at + 20)
    const nameLength = zip.readUInt16LE(at + 28)
    const name = zip.toString('latin1', at + 46, at + 46 + nameLength)
    const local = zip.readUInt32LE(at + 42)
    const data = local + 30 + zip.readUInt16LE(local + 26) + zip.readUInt16LE(local + 28)
    const stored = zip.subarray(data, data + bytes)
    const npy = method === 0 ? stored : inflateRawSync(stored)
    arrays.set(name.replace(/\.npy$/, ''), parseNpy(npy, `${file}: ${name}`))
    at += 46 + nameLength + zip.readUInt16LE(at + 30) + zip.readUInt16LE(at + 32)
  }
  return arrays
}

function parseNpy(npy: Buffer, where: string): NpyArray {
  const version = npy[6]
  const start = version === 1 ? 10 : 12
  const length = version === 1 ? npy.readUInt16LE(8) : npy.readUInt32LE(8)
  const header = npy.toString('latin1', start, start + length)
  if (!/'descr': '<f4'/.test(header) || !/'fortran_order': False/.test(header)) {
    throw new Error(`${where}: expected little-endian float32 in C order, got ${header}`)
  }
  const shape = (/'shape': \(([^)]*)\)/.exec(header)?.[1] ?? '').split(',').filter((x) => x.trim())
  const bytes = Uint8Array.from(npy.subarray(start + length))
  return { shape: shape.map(Number), values: new Float32Array(bytes.buffer) }
}
