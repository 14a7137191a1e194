import { type FileHandle, open } from 'node:fs/promises'
import { WestwindError } from '../errors.js'
import { isRecord, reason, showJson } from '../json.js'

// The format (https://github.com/huggingface/safetensors): u64 length of the header, little
// endian; the header, a JSON object of name -> { dtype, shape, data_offsets } and
// "__metadata__"; then the bytes of all tensors, without gaps.

/** Bytes per element of every dtype that can be stored. */
export const dtypeBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
} as const

export type SafetensorsDtype = keyof typeof dtypeBytes

export interface TensorEntry {
  dtype: SafetensorsDtype
  shape: number[]
  /** First byte in the file. */
  begin: number
  /** One past the last byte in the file. */
  end: number
}

export interface SafetensorsFile {
  file: string
  tensors: Map<string, TensorEntry>
  metadata: Record<string, string>
}

/** The bound of the reference implementation; a header of a 1000-layer model has a few MB. */
const maxHeaderBytes = 100_000_000

/**
 * Reads and checks the header of a safetensors file; no tensor data is read. The header is hostile
 * input: every entry that is returned lies within the file, has exactly the bytes its dtype and
 * shape need, and overlaps no other.
 *
 * @throws ERR_CHECKPOINT naming file, tensor and what is wrong
 */
export async function openSafetensors(file: string): Promise<SafetensorsFile> {
  let handle: FileHandle
  try {
    handle = await open(file, 'r')
  } catch (cause) {
    throw damaged(file, `could not be opened: ${reason(cause)}`, cause)
  }
  try {
    const stat = await handle.stat()
    if (!stat.isFile()) throw damaged(file, 'is not a file')
    const prefix = await readExactly(handle, file, 0, Math.min(8, stat.size))
    const headerBytes = headerLength(prefix, stat.size, file)
    const header = await readExactly(handle, file, 8, headerBytes)
    return { file, ...parseHeader(header, stat.size, file) }
  } finally {
    await handle.close()
  }
}

function headerLength(prefix: Buffer, fileBytes: number, file: string): number {
  if (prefix.length < 8) throw damaged(file, `has ${fileBytes} bytes, too few for a header`)
  const length = prefix.readBigUInt64LE(0)
  if (length > BigInt(maxHeaderBytes)) {
    throw damaged(file, `claims a header of ${length} bytes; at most ${maxHeaderBytes} are read`)
  }
  if (length > BigInt(fileBytes - 8)) {
    throw damaged(
      file,
      `claims a header of ${length} bytes, but has only ${fileBytes} in all; it is cut short or not safetensors`,
    )
  }
  return Number(length)
}

function parseHeader(
  bytes: Buffer,
  fileBytes: number,
  file: string,
): { tensors: Map<string, TensorEntry>; metadata: Record<string, string> } {
  let header: unknown
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    header = JSON.parse(text)
  } catch (cause) {
    throw damaged(file, `has a header that is not JSON: ${reason(cause)}`, cause)
  }
  if (!isRecord(header)) {
    throw damaged(file, `must have an object as header, got ${showJson(header)}`)
  }
  const duplicate = duplicateKey(text)
  if (duplicate !== undefined) {
    throw damaged(file, `has the key ${showJson(duplicate)} twice in its header`)
  }
  const dataStart = 8 + bytes.length
  const tensors = new Map<string, TensorEntry>()
  for (const [name, value] of Object.entries(header)) {
    if (name === '__metadata__') continue
    tensors.set(name, parseEntry(name, value, dataStart, fileBytes, file))
  }
  checkCover(tensors, dataStart, fileBytes, file)
  return { tensors, metadata: parseMetadata(header.__metadata__, file) }
}

function parseMetadata(value: unknown, file: string): Record<string, string> {
  if (value === undefined) return {}
  if (!isRecord(value)) throw damaged(file, `has a __metadata__ that is not an object`)
  const pairs: [string, string][] = []
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') {
      throw damaged(file, `must have text as __metadata__.${key}, got ${showJson(text)}`)
    }
    pairs.push([key, text])
  }
  return Object.fromEntries(pairs)
}

function parseEntry(
  name: string,
  value: unknown,
  dataStart: number,
  fileBytes: number,
  file: string,
): TensorEntry {
  const wrong = (message: string) => damaged(file, `tensor ${showJson(name)}: ${message}`)
  if (!isRecord(value)) throw wrong(`expected an object, got ${showJson(value)}`)
  const { dtype, shape, data_offsets: offsets } = value
  if (!isDtype(dtype)) {
    throw wrong(`dtype ${showJson(dtype)} is not one of ${Object.keys(dtypeBytes).join(', ')}`)
  }
  if (!isSizes(shape)) {
    throw wrong(`shape must be a list of sizes, got ${showJson(shape)}`)
  }
  if (!isSizes(offsets) || offsets.length !== 2) {
    throw wrong(`data_offsets must be two byte offsets, got ${showJson(offsets)}`)
  }
  const begin = dataStart + (offsets[0] ?? 0)
  const end = dataStart + (offsets[1] ?? 0)
  if (begin > end) throw wrong(`data_offsets end before they begin: ${showJson(offsets)}`)
  if (end > fileBytes) {
    throw wrong(
      `ends at byte ${end} of a file of ${fileBytes} bytes; the file is cut short, fetch or copy it again`,
    )
  }
  const need = byteLength(dtype, shape)
  if (end - begin !== need) {
    throw wrong(`${dtype} ${showJson(shape)} needs ${need} bytes, data_offsets give ${end - begin}`)
  }
  return { dtype, shape, begin, end }
}

/** The data must be covered without gap or overlap, as the format demands. */
function checkCover(
  tensors: Map<string, TensorEntry>,
  dataStart: number,
  fileBytes: number,
  file: string,
): void {
  const sorted = [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)
  let position = dataStart
  for (const [name, entry] of sorted) {
    if (entry.begin !== position) {
      const what = entry.begin < position ? 'overlaps the tensor before it' : 'follows a gap'
      throw damaged(file, `tensor ${showJson(name)} ${what} at byte ${entry.begin}`)
    }
    position = entry.end
  }
  if (position !== fileBytes) {
    throw damaged(file, `has ${fileBytes - position} bytes after its last tensor`)
  }
}

/**
 * A key that occurs twice in the header or in one of its entries; JSON.parse would keep the last
 * one silently. The text is already known to be JSON with an object at the top.
 */
function duplicateKey(text: string): string | undefined {
  const open: (Set<string> | undefined)[] = [] // keys per open object, undefined per open list
  for (let at = 0; at < text.length; at++) {
    const found = text[at]
    if (found === '{') open.push(new Set())
    else if (found === '[') open.push(undefined)
    else if (found === '}' || found === ']') open.pop()
    else if (found === '"') {
      const start = at
      for (at++; text[at] !== '"'; at++) if (text[at] === '\\') at++
      let next = at + 1
      while (isSpace(text[next])) next++
      const keys = open.at(-1)
      if (text[next] !== ':' || !keys) continue
      const key = String(JSON.parse(text.slice(start, at + 1)))
      if (keys.has(key)) return key
      keys.add(key)
    }
  }
  return undefined
}

function isSpace(char: string | undefined): boolean {
  return char === ' ' || char === '\n' || char === '\t' || char === '\r'
}

/** Bytes of a tensor; Infinity where the product of the shape is not an exact integer. */
export function byteLength(dtype: SafetensorsDtype, shape: readonly number[]): number {
  if (shape.includes(0)) return 0
  const bytes = shape.reduce((product, size) => product * size, dtypeBytes[dtype])
  return Number.isSafeInteger(bytes) ? bytes : Number.POSITIVE_INFINITY
}

function isDtype(value: unknown): value is SafetensorsDtype {
  return typeof value === 'string' && Object.hasOwn(dtypeBytes, value)
}

function isSizes(value: unknown): value is number[] {
  return (
    Array.isArray(value) &&
    value.every((size: unknown) => Number.isSafeInteger(size) && Number(size) >= 0)
  )
}

/** A tensor to be written; `bytes` is called when its turn comes, so one is in memory at a time. */
export interface TensorSource {
  name: string
  dtype: SafetensorsDtype
  shape: readonly number[]
  /** Little-endian elements, row by row. */
  bytes: () => Promise<Uint8Array>
}

/**
 * Writes a safetensors file and returns once it is on the disk (fsync). Wider elements are written
 * first, so that each tensor is aligned to its element; otherwise the order is that of `entries`.
 *
 * @throws ERR_INVALID_ARG for a repeated name or bytes that do not fit dtype and shape
 */
export async function writeSafetensors(
  file: string,
  entries: Iterable<TensorSource>,
  metadata: Record<string, string> = { format: 'pt' },
): Promise<void> {
  const sorted = [...entries].sort((a, b) => dtypeBytes[b.dtype] - dtypeBytes[a.dtype])
  const handle = await open(file, 'w')
  try {
    await writeAll(handle, encodeHeader(file, sorted, metadata))
    for (const entry of sorted) {
      const bytes = await entry.bytes()
      const expected = byteLength(entry.dtype, entry.shape)
      if (bytes.byteLength !== expected) {
        throw new WestwindError(
          'ERR_INVALID_ARG',
          `${file}: tensor ${entry.name}: ${entry.dtype} [${entry.shape.join(', ')}] needs ${expected} bytes, got ${bytes.byteLength}`,
        )
      }
      await writeAll(handle, bytes)
    }
    await handle.sync()
  } finally {
    await handle.close()
  }
}

function encodeHeader(
  file: string,
  entries: readonly TensorSource[],
  metadata: Record<string, string>,
): Buffer {
  const names = new Set<string>()
  const header: [string, unknown][] = [['__metadata__', metadata]]
  let offset = 0
  for (const { name, dtype, shape } of entries) {
    if (names.has(name) || name === '__metadata__') {
      throw new WestwindError('ERR_INVALID_ARG', `${file}: the tensor name ${name} is taken`)
    }
    names.add(name)
    const end = offset + byteLength(dtype, shape)
    header.push([name, { dtype, shape, data_offsets: [offset, end] }])
    offset = end
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(header)))
  const padded = Math.ceil(json.length / 8) * 8 // the data starts 8-byte aligned
  const bytes = Buffer.alloc(8 + padded, ' ')
  bytes.writeBigUInt64LE(BigInt(padded), 0)
  json.copy(bytes, 8)
  return bytes
}

/** One write(2) moves at most 2 GiB; node may also write less than asked. */
async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  const chunk = 2 ** 28
  for (let at = 0; at < bytes.byteLength; ) {
    const length = Math.min(chunk, bytes.byteLength - at)
    at += (await handle.write(bytes, at, length)).bytesWritten
  }
}

/** A tensor as JavaScript numbers. */
export type TensorValues = Float32Array | Float64Array | Int32Array | Uint8Array

/**
 * Reads one tensor to the JavaScript heap: F32, BF16 and F16 as Float32Array (exact), I64 as
 * Float64Array (exact up to 2^53), F64, I32, U8 and BOOL as the array of that type. For small files;
 * weights go to the device directly.
 */
export async function readTensor(file: string, entry: TensorEntry): Promise<TensorValues> {
  const handle = await open(file, 'r')
  try {
    const bytes = await readExactly(handle, file, entry.begin, entry.end - entry.begin)
    const copy = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength)
    switch (entry.dtype) {
      case 'F32':
        return new Float32Array(copy)
      case 'F64':
        return new Float64Array(copy)
      case 'I32':
        return new Int32Array(copy)
      case 'I64':
        return Float64Array.from(new BigInt64Array(copy), Number)
      case 'U8':
      case 'BOOL':
        return new Uint8Array(copy)
      case 'BF16':
        return new Float32Array(
          Uint32Array.from(new Uint16Array(copy), (bits) => bits << 16).buffer,
        )
      case 'F16':
        return Float32Array.from(new Uint16Array(copy), halfToFloat)
      default:
        throw new WestwindError(
          'ERR_UNSUPPORTED',
          `${file}: reading ${entry.dtype} is not supported`,
        )
    }
  } finally {
    await handle.close()
  }
}

function halfToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = bits & 1023
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return sign * (1024 + fraction) * 2 ** (exponent - 25)
}

async function readExactly(
  handle: FileHandle,
  file: string,
  position: number,
  length: number,
): Promise<Buffer> {
  const buffer = Buffer.alloc(length)
  for (let at = 0; at < length; ) {
    const want = Math.min(2 ** 28, length - at)
    const { bytesRead } = await handle.read(buffer, at, want, position + at)
    if (bytesRead === 0) throw damaged(file, `ended at byte ${position + at} while it was read`)
    at += bytesRead
  }
  return buffer
}

function damaged(file: string, message: string, cause?: unknown): WestwindError {
  return new WestwindError('ERR_CHECKPOINT', `${file} ${message}`, { cause })
}
