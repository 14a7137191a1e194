import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  byteLength,
  openSafetensors,
  readTensor,
  type TensorSource,
  writeSafetensors,
} from '../../src/checkpoint/safetensors.js'
import { WestwindError } from '../../src/errors.js'
import { sharedPath } from '../support/shared.js'

const dir = mkdtempSync(join(tmpdir(), 'westwind-safetensors-'))
const file = join(dir, 'file.safetensors')
afterAll(() => rmSync(dir, { recursive: true }))

/** A file with the given header text (and length, if it is to lie) and data. */
function craft(header: string | Buffer, dataBytes: number, length?: bigint): void {
  const json = Buffer.from(header)
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(length ?? BigInt(json.length))
  writeFileSync(file, Buffer.concat([prefix, json, Buffer.alloc(dataBytes, 1)]))
}

async function refusal(): Promise<string> {
  try {
    await openSafetensors(file)
  } catch (error) {
    if (error instanceof WestwindError && error.code === 'ERR_CHECKPOINT') return error.message
    throw error
  }
  throw new Error('the file was accepted')
}

const entry = (dtype: string, shape: unknown, offsets: unknown) => ({
  dtype,
  shape,
  data_offsets: offsets,
})

function source(
  name: string,
  dtype: TensorSource['dtype'],
  data: ArrayBufferView,
  shape: number[],
) {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  return { name, dtype, shape, bytes: async () => bytes }
}

describe('writeSafetensors', () => {
  it('round-trips tensors of every readable dtype, 8-byte aligned', async () => {
    const cases = [
      source('u8', 'U8', Uint8Array.of(1, 2, 255), [3]),
      source('f32', 'F32', Float32Array.of(0.1, -2, 3e38, 4, 5, 6), [2, 3]),
      source('f64', 'F64', Float64Array.of(Math.PI), []),
      source('i32', 'I32', Int32Array.of(-7), [1, 1]),
      source('empty', 'F32', new Float32Array(0), [4, 0]),
    ]
    await writeSafetensors(file, cases, { format: 'pt', note: 'ünïcode' })
    const opened = await openSafetensors(file)
    expect(opened.metadata).toEqual({ format: 'pt', note: 'ünïcode' })
    expect(readFileSync(file).readBigUInt64LE(0) % 8n).toBe(0n)
    expect([...opened.tensors.keys()].sort()).toEqual(cases.map((c) => c.name).sort())
    for (const { name, dtype, shape, bytes } of cases) {
      const found = opened.tensors.get(name)!
      expect(found).toMatchObject({ dtype, shape })
      expect(found.begin % (byteLength(dtype, [1]) || 1)).toBe(0)
      const values = await readTensor(file, found)
      expect(new Uint8Array(values.buffer)).toEqual(new Uint8Array(await bytes()))
    }
  })

  it('reads bf16 and f16 as the exact floats they stand for', async () => {
    const half = Uint16Array.of(0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00, 0x8000, 0x3555)
    const brain = Uint16Array.of(0x3f80, 0xc000, 0x0001, 0x7f80)
    await writeSafetensors(file, [source('h', 'F16', half, [7]), source('b', 'BF16', brain, [4])])
    const { tensors } = await openSafetensors(file)
    expect([...(await readTensor(file, tensors.get('h')!))]).toEqual([
      1,
      -2,
      2 ** -24,
      65504,
      Number.POSITIVE_INFINITY,
      -0,
      0.333251953125,
    ])
    expect([...(await readTensor(file, tensors.get('b')!))]).toEqual([
      1,
      -2,
      2 ** -133,
      Number.POSITIVE_INFINITY,
    ])
  })

  it('reads i64 as numbers', async () => {
    const values = BigInt64Array.of(-(2n ** 53n), 0n, 7n)
    await writeSafetensors(file, [source('n', 'I64', values, [3])])
    const { tensors } = await openSafetensors(file)
    expect([...(await readTensor(file, tensors.get('n')!))]).toEqual([-(2 ** 53), 0, 7])
  })

  it('takes the bytes of one tensor at a time', async () => {
    let alive = 0
    const entries = [1, 2, 3].map((n) => ({
      name: `t${n}`,
      dtype: 'F32' as const,
      shape: [2],
      bytes: async () => {
        expect(++alive).toBe(1)
        queueMicrotask(() => alive--)
        return new Uint8Array(8)
      },
    }))
    await writeSafetensors(file, entries)
    expect((await openSafetensors(file)).tensors.size).toBe(3)
  })

  it('refuses bytes that do not fit the shape, and a name given twice', async () => {
    const short = { ...source('w', 'F32', new Float32Array(3), [4]) }
    await expect(writeSafetensors(file, [short])).rejects.toThrow(/w: F32 \[4\] needs 16.*got 12/)
    const fine = source('w', 'F32', new Float32Array(4), [4])
    await expect(writeSafetensors(file, [fine, fine])).rejects.toThrow(/name w is taken/)
  })
})

describe('openSafetensors', () => {
  it('names a missing file, and refuses a folder', async () => {
    rmSync(file, { force: true })
    expect(await refusal()).toContain(file)
    await expect(openSafetensors(dir)).rejects.toMatchObject({ code: 'ERR_CHECKPOINT' })
  })

  it.each([
    ['an empty file', Buffer.alloc(0), 'too few'],
    ['a header longer than the file', Buffer.from([9, 0, 0, 0, 0, 0, 0, 0, 123]), 'cut short'],
    ['a header length of 2^64-1', Buffer.alloc(64, 255), '18446744073709551615'],
  ])('refuses %s', async (_, bytes, message) => {
    writeFileSync(file, bytes)
    expect(await refusal()).toContain(message)
  })

  it.each([
    ['not JSON', '{"a":', 0, 'not JSON'],
    ['not UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]), 0, 'not JSON'],
    ['a list', '[]', 0, 'object as header'],
    ['an entry that is a number', '{"w":3}', 0, '"w": expected an object'],
    ['a key twice', '{"w":{},"\\u0077"  \n                 :{}}', 0, '"w" twice'],
    ['metadata that is not text', '{"__metadata__":{"n":1}}', 0, '__metadata__.n'],
  ])('refuses a header that is %s', async (_, header, bytes, message) => {
    craft(header, bytes)
    expect(await refusal()).toContain(message)
  })

  it.each([
    ['an unknown dtype', { w: entry('F8_E4M3', [4], [0, 4]) }, 4, 'F8_E4M3'],
    ['an inherited name as dtype', { w: entry('toString', [4], [0, 4]) }, 4, 'toString'],
    ['a negative size', { w: entry('F32', [-1], [0, 4]) }, 4, 'shape'],
    ['a fractional size', { w: entry('F32', [0.5], [0, 2]) }, 2, 'shape'],
    ['a shape that is no list', { w: entry('F32', '4', [0, 16]) }, 16, 'shape'],
    ['a product beyond 2^53', { w: entry('F32', [2 ** 40, 2 ** 40], [0, 4]) }, 4, 'Infinity'],
    ['three offsets', { w: entry('F32', [1], [0, 4, 8]) }, 8, 'data_offsets'],
    ['an end before the begin', { w: entry('F32', [0], [4, 0]) }, 4, 'end before'],
    ['bytes that do not fit', { w: entry('F32', [2], [0, 4]) }, 4, 'needs 8 bytes'],
    ['data past the end', { w: entry('F32', [2], [0, 8]) }, 4, 'cut short'],
    ['overlap', { a: entry('U8', [4], [0, 4]), b: entry('U8', [4], [2, 6]) }, 6, 'overlaps'],
    ['a gap', { a: entry('U8', [4], [0, 4]), b: entry('U8', [4], [6, 10]) }, 10, 'gap'],
    ['bytes nobody owns', { a: entry('U8', [4], [0, 4]) }, 6, '2 bytes after'],
  ])('refuses %s', async (_, header, bytes, message) => {
    craft(JSON.stringify(header), bytes)
    expect(await refusal()).toContain(message)
  })

  it('reads a tensor named like an inherited property', async () => {
    craft(`{"__proto__":${JSON.stringify(entry('U8', [2], [0, 2]))}}`, 2)
    expect([...(await openSafetensors(file)).tensors.keys()]).toEqual(['__proto__'])
  })

  it('refuses 100000 nested lists without overflowing', async () => {
    craft(`{"w":${'['.repeat(100_000)}${']'.repeat(100_000)}}`, 0)
    expect(await refusal()).toContain('"w"')
  })

  it('either parses or refuses any mutated header, and what it returns lies within the file', async () => {
    const header = JSON.stringify({
      __metadata__: { format: 'pt' },
      'model.norm.weight': entry('F32', [4], [0, 16]),
      'a.b': entry('BF16', [2, 4], [16, 32]),
    })
    let state = 12345
    const random = (n: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      return Math.floor((state / 2 ** 32) * n)
    }
    const tokens = [
      '{',
      '}',
      '[',
      ']',
      '"',
      ',',
      ':',
      '0',
      '9',
      '-',
      '1e9',
      'null',
      '\\',
      ' ',
      '\0',
    ]
    let accepted = 0
    for (let round = 0; round < 500; round++) {
      let text = header
      for (let edits = random(3) + 1; edits > 0; edits--) {
        const at = random(text.length)
        text =
          text.slice(0, at) + (tokens[random(tokens.length * 2)] ?? '') + text.slice(at + random(3))
      }
      craft(text, 32, random(8) === 0 ? BigInt(random(2 * text.length)) : undefined)
      const size = readFileSync(file).length
      try {
        for (const { begin, end, dtype, shape } of (await openSafetensors(file)).tensors.values()) {
          expect(begin >= 8 && begin <= end && end <= size).toBe(true)
          expect(end - begin).toBe(byteLength(dtype, shape))
        }
        accepted++
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_CHECKPOINT' })
      }
    }
    expect(accepted).toBeGreaterThan(0)
    expect(accepted).toBeLessThan(400)
  })
})

const golden = sharedPath('golden', 'models', 'h64d32_win16_tied')
describe.skipIf(!golden)('files written by the safetensors library', () => {
  it('open, and the bf16 model is the f32 one rounded to nearest even', async () => {
    const full = await openSafetensors(join(golden ?? '', 'f32', 'model.safetensors'))
    const short = await openSafetensors(join(golden ?? '', 'bf16', 'model.safetensors'))
    expect([...short.tensors.keys()].sort()).toEqual([...full.tensors.keys()].sort())
    for (const [name, entry] of full.tensors) {
      const exact = await readTensor(full.file, entry)
      const rounded = await readTensor(short.file, short.tensors.get(name)!)
      const bits = new Uint32Array(exact.buffer).map((x) => {
        return ((x + 0x7fff + ((x >>> 16) & 1)) & 0xffff0000) >>> 0
      })
      expect(rounded).toEqual(new Float32Array(bits.buffer))
    }
  })
})
