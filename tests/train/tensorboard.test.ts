import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { crc32c, TensorBoardWriter } from '../../src/train/tensorboard.js'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'westwind-tensorboard-'))
})
afterEach(() => rmSync(dir, { recursive: true }))

type Field = { field: number; wire: number; value: bigint | Buffer }

/** A small reader of protocol buffers, written from the wire format's description. */
function fields(data: Buffer): Field[] {
  const out: Field[] = []
  let at = 0
  const readVarint = () => {
    let value = 0n
    for (let shift = 0n; ; shift += 7n) {
      const byte = data[at++]!
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
  }
  const take = (n: number) => {
    at += n
    return data.subarray(at - n, at)
  }
  while (at < data.length) {
    const key = Number(readVarint())
    const wire = key & 7
    const value =
      wire === 0 ? readVarint() : take(wire === 1 ? 8 : wire === 5 ? 4 : Number(readVarint()))
    out.push({ field: key >> 3, wire, value })
  }
  return out
}

function bytes(message: Buffer, field: number): Buffer[] {
  return fields(message).flatMap((f) =>
    f.field === field && Buffer.isBuffer(f.value) ? [f.value] : [],
  )
}

function integer(message: Buffer, field: number): number {
  const found = fields(message).find((f) => f.field === field)
  return typeof found?.value === 'bigint' ? Number(found.value) : 0
}

/** Frames of a file, each checksum verified bit by bit, without the writer's table. */
function frames(file: string): Buffer[] {
  const data = readFileSync(file)
  const out: Buffer[] = []
  for (let at = 0; at < data.length; ) {
    const length = Number(data.readBigUInt64LE(at))
    expect(data.readUInt32LE(at + 8)).toBe(masked(data.subarray(at, at + 8)))
    const body = data.subarray(at + 12, at + 12 + length)
    expect(data.readUInt32LE(at + 12 + length)).toBe(masked(body))
    out.push(body)
    at += 16 + length
  }
  return out
}

function masked(data: Buffer): number {
  let crc = 0xffffffffn
  for (const byte of data) {
    crc ^= BigInt(byte)
    for (let k = 0; k < 8; k++) crc = crc & 1n ? (crc >> 1n) ^ 0x82f63b78n : crc >> 1n
  }
  crc ^= 0xffffffffn
  const rotated = ((crc >> 15n) | (crc << 17n)) & 0xffffffffn
  return Number((rotated + 0xa282ead8n) & 0xffffffffn)
}

describe('crc32c', () => {
  it.each([
    ['123456789', 0xe3069283],
    ['', 0],
    ['\0'.repeat(32), 0x8a9136aa], // RFC 3720, B.4
  ])('of %j is the published value', (text, crc) => {
    expect(crc32c(Buffer.from(text))).toBe(crc)
  })
})

describe('TensorBoardWriter', () => {
  it('writes a version event, then one event per step with tagged values', async () => {
    const writer = await TensorBoardWriter.open(join(dir, 'runs'))
    await writer.write(300, { step: 300, loss: 0.5, 'rewards/margins': -2.25, eval_loss: 1.5 })
    await writer.close()

    const [version, point, ...rest] = frames(writer.path)
    expect(rest).toEqual([])
    expect(bytes(version!, 3).map(String)).toEqual(['brain.Event:2'])
    expect(integer(point!, 2)).toBe(300)
    const wallTime = bytes(point!, 1)[0]!.readDoubleLE()
    expect(Math.abs(wallTime - Date.now() / 1000)).toBeLessThan(60)
    const values = bytes(bytes(point!, 5)[0]!, 1).map((v) => [
      String(bytes(v, 1)[0]),
      bytes(v, 2)[0]!.readFloatLE(),
    ])
    expect(values).toEqual([
      ['train/loss', 0.5],
      ['train/rewards/margins', -2.25],
      ['eval/loss', 1.5],
    ])
  })

  it('on resume begins a new file that tells TensorBoard to forget later steps', async () => {
    const first = await TensorBoardWriter.open(dir)
    const second = await TensorBoardWriter.open(dir, { resumeStep: 20 })
    await first.close()
    await second.close()
    expect(readdirSync(dir)).toHaveLength(2)
    for (const name of readdirSync(dir)) expect(name).toMatch(/^events\.out\.tfevents\.\d+\./)
    const restart = frames(second.path)[1]!
    expect(integer(restart, 2)).toBe(21) // events from this step on are purged
    expect(integer(bytes(restart, 7)[0]!, 1)).toBe(1) // SessionLog.START
  })
})
