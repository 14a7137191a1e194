import { type FileHandle, mkdir, open } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'

/**
 * Scalars in TensorBoard's event file format: TFRecord frames around `tensorflow.Event` protocol buffers
 * (tensorflow/core/util/event.proto), encoded by hand because five fields are all there is.
 */
export class TensorBoardWriter {
  readonly #file: FileHandle
  readonly path: string

  private constructor(file: FileHandle, path: string) {
    this.#file = file
    this.path = path
  }

  /**
   * A new event file in `dir`, one per process. With `resumeStep`, TensorBoard is told to forget what earlier files
   * in `dir` hold after that step.
   */
  static async open(
    dir: string,
    options: { resumeStep?: number } = {},
  ): Promise<TensorBoardWriter> {
    await mkdir(dir, { recursive: true })
    const seconds = Math.floor(Date.now() / 1000)
    const { file, path } = await createUnique(
      join(dir, `events.out.tfevents.${seconds}.${hostname()}.${process.pid}`),
    )
    const writer = new TensorBoardWriter(file, path)
    await writer.#append(event(0, stringField(3, 'brain.Event:2')))
    if (options.resumeStep !== undefined)
      await writer.#append(event(options.resumeStep + 1, bytesField(7, varintField(1, 1)))) // SessionLog.START
    return writer
  }

  /** One point per value, under the tags that transformers uses: `train/loss`, `eval/loss`, ... */
  async write(step: number, values: Record<string, number>): Promise<void> {
    const points = Object.entries(values)
      .filter(([name]) => name !== 'step')
      .map(([name, value]) =>
        bytesField(1, Buffer.concat([stringField(1, tagOf(name)), floatField(2, value)])),
      )
    await this.#append(event(step, bytesField(5, Buffer.concat(points))))
  }

  async close(): Promise<void> {
    await this.#file.close()
  }

  async #append(data: Buffer): Promise<void> {
    await this.#file.appendFile(frame(data))
  }
}

/** Two runs started within a second by one process get different files. */
async function createUnique(base: string): Promise<{ file: FileHandle; path: string }> {
  for (let n = 0; ; n++) {
    const path = `${base}.${n}`
    try {
      return { file: await open(path, 'ax'), path }
    } catch (cause) {
      if (!(cause instanceof Error && 'code' in cause && cause.code === 'EEXIST')) throw cause
    }
  }
}

function tagOf(name: string): string {
  return name.startsWith('eval_') ? `eval/${name.slice('eval_'.length)}` : `train/${name}`
}

function event(step: number, payload: Buffer): Buffer {
  return Buffer.concat([doubleField(1, Date.now() / 1000), varintField(2, step), payload])
}

/** TFRecord: length, its checksum, data, its checksum. */
function frame(data: Buffer): Buffer {
  const header = Buffer.alloc(12)
  header.writeBigUInt64LE(BigInt(data.length), 0)
  header.writeUInt32LE(maskedCrc32c(header.subarray(0, 8)), 8)
  const footer = Buffer.alloc(4)
  footer.writeUInt32LE(maskedCrc32c(data), 0)
  return Buffer.concat([header, data, footer])
}

// Protocol buffer wire types: 0 varint, 1 64-bit, 2 length-delimited, 5 32-bit.

function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = BigInt(value)
  do {
    const low = Number(rest & 0x7fn)
    rest >>= 7n
    bytes.push(rest > 0n ? low | 0x80 : low)
  } while (rest > 0n)
  return Buffer.from(bytes)
}

function varintField(field: number, value: number): Buffer {
  return Buffer.concat([varint(field << 3), varint(value)])
}

function doubleField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeDoubleLE(value)
  return Buffer.concat([varint((field << 3) | 1), bytes])
}

function floatField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeFloatLE(value)
  return Buffer.concat([varint((field << 3) | 5), bytes])
}

function bytesField(field: number, bytes: Buffer): Buffer {
  return Buffer.concat([varint((field << 3) | 2), varint(bytes.length), bytes])
}

function stringField(field: number, text: string): Buffer {
  return bytesField(field, Buffer.from(text, 'utf8'))
}

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  return crc >>> 0
})

/** CRC-32C (Castagnoli), as an unsigned 32-bit number. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) crc = crcTable[(crc ^ byte) & 0xff]! ^ (crc >>> 8)
  return (crc ^ 0xffffffff) >>> 0
}

/** TFRecord's mask: a checksum of data that holds checksums would otherwise be weak. */
function maskedCrc32c(bytes: Uint8Array): number {
  const crc = crc32c(bytes)
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
}
