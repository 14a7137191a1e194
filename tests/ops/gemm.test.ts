import { describe, expect, it } from 'vitest'
import { native } from '../../src/native/addon.js'
import { type GemmOptions, gemm } from '../../src/ops/gemm.js'
import type { DType } from '../../src/tensor/dtype.js'
import { empty, fromArray } from '../../src/tensor/tensor.js'
import * as reference from '../reference/gemm.js'
import { another, devices, named } from '../support/devices.js'
import { exact, expectAsExactAsBf16, expectExactF32 } from '../support/exactness.js'
import { tensorCoreShapes } from '../support/gemm-shapes.js'
import { integers, normal } from '../support/random.js'

// Around the edges of tiles (4, 6, 14 by 8, 16, 32), of registers, of blocks of rows, columns and K (256, 2048).
const Ms = [1, 2, 5, 6, 7, 15, 97, 131]
const Ns = [1, 3, 8, 17, 33, 130]
const Ks = [1, 5, 8, 31, 255, 256, 257, 600]
const types: DType[] = ['f32', 'bf16']

const pick = integers(24 * 9, 1 << 20, 7)
const cases = Array.from({ length: 24 }, (_, i) => {
  const at = <T>(list: readonly T[], j: number): T => list[pick[i * 9 + j]! % list.length]!
  return {
    M: at(Ms, 0),
    N: at(Ns, 1),
    K: i === 0 ? 2100 : at(Ks, 2),
    transA: at([false, true], 3),
    transB: at([false, true], 4),
    aType: at(types, 5),
    bType: at(types, 6),
    cType: at(types, 7),
    ...at([{}, { alpha: 0.375, beta: -0.5 }, { beta: 1 }], 8),
  }
})

/** Rows of op(a), or columns of op(b), by number, stored as the whole is. */
function linesOf(
  x: ArrayLike<number>,
  lines: number[],
  all: number,
  K: number,
  contiguous: boolean,
): Float32Array {
  const out = new Float32Array(lines.length * K)
  for (const [i, line] of lines.entries()) {
    for (let k = 0; k < K; k++) {
      out[contiguous ? i * K + k : k * lines.length + i] =
        x[contiguous ? line * K + k : k * all + line]!
    }
  }
  return out
}

describe.each(devices.map(named))('gemm on %s', (_, device) => {
  it.each(cases)(
    '$M x $N x $K, a $aType $transA, b $bType $transB, c $cType, beta $beta: as exact as its dtypes',
    async (it) => {
      const { M, N, K } = it
      const a = normal(M * K, 1)
      const b = normal(N * K, 2)
      const c = normal(M * N, 3)
      using x = fromArray(a, it.transA ? [K, M] : [M, K], it.aType, device)
      using y = fromArray(b, it.transB ? [N, K] : [K, N], it.bType, device)
      using out = fromArray(c, [M, N], it.cType, device)
      gemm(x, y, { ...it, out })
      const got = await out.read()
      if ([it.aType, it.bType, it.cType].includes('bf16')) {
        expectAsExactAsBf16(got, (round) => reference.gemm(a, b, it, round, c))
      } else {
        expectExactF32(got, reference.gemm(a, b, it, exact, c))
      }
    },
  )

  it('sums bf16 products in f32 and rounds once, whatever the length of K', async () => {
    const K = 3000
    using a = fromArray(new Float32Array(K).fill(1), [1, K], 'bf16', device)
    using b = fromArray(new Float32Array(K).fill(1), [1, K], 'bf16', device)
    using c = gemm(a, b, { transB: true })
    expect(await c.read()).toEqual(new Float32Array([3008])) // the bf16 number next to 3000
  })

  it.each([
    { M: 1030, N: 40, K: 300, type: 'bf16' },
    { M: 45, N: 77, K: 304, type: 'bf16' },
    { M: 40, N: 400, K: 300, type: 'f32' },
    { M: 40, N: 30, K: 2500, type: 'f32' },
  ] as const)(
    '$M x $N x $K: a row or column alone has the same bits as in the whole',
    async (it) => {
      const { M, N, K, type } = it
      const a = normal(M * K, 1)
      const b = normal(N * K, 2)
      using x = fromArray(a, [M, K], type, device)
      using y = fromArray(b, [N, K], type, device)
      using whole = gemm(x, y, { transB: true })
      const all = await whole.read()
      for (const m of [0, 7, M - 1]) {
        using row = x.rows(m, 1)
        using alone = gemm(row, y, { transB: true })
        expect(await alone.read()).toEqual(all.slice(m * N, (m + 1) * N))
      }
      for (const n of [0, 13, N - 1]) {
        using column = y.rows(n, 1)
        using alone = gemm(x, column, { transB: true })
        const expected = Float32Array.from({ length: M }, (_, m) => all[m * N + n]!)
        expect(await alone.read()).toEqual(expected)
      }
    },
  )

  it.each(tensorCoreShapes)(
    '$M x $N x $K, $transA, $transB, $type: eight rows alone and in the whole are as exact and the same',
    async ({ M, N, K, transA, transB, type, ...scaling }) => {
      const a = normal(M * K, 1)
      const b = normal(N * K, 2)
      const c = normal(M * N, 3)
      const rows = [...Array(8).keys()].map((i) => Math.floor((i * (M - 1)) / 7))
      const few = linesOf(a, rows, M, K, !transA)
      const old = linesOf(c, rows, M, N, true)
      using x = fromArray(a, transA ? [K, M] : [M, K], 'bf16', device)
      using y = fromArray(b, transB ? [N, K] : [K, N], 'bf16', device)
      using out = fromArray(c, [M, N], type, device)
      gemm(x, y, { transA, transB, ...scaling, out })
      using eight = fromArray(few, transA ? [K, 8] : [8, K], 'bf16', device)
      using alone = fromArray(old, [8, N], type, device)
      gemm(eight, y, { transA, transB, ...scaling, out: alone })
      const got = await alone.read()
      expect(linesOf(await out.read(), rows, M, N, true)).toEqual(got)
      const shape = { M: 8, N, K, transA, transB, ...scaling }
      expectAsExactAsBf16(got, (round) => reference.gemm(few, b, shape, round, old))
    },
  )

  it.each([
    { M: 16, N: 40, K: 16424, type: 'bf16' },
    { M: 5, N: 9, K: 8200, type: 'f32' },
  ] as const)(
    '$M x $N x $K of $type, f32 out: the bits of its parts of 8192, added one by one',
    async ({ M, N, K, type }) => {
      using x = fromArray(normal(K * M, 1), [K, M], type, device)
      using y = fromArray(normal(K * N, 2), [K, N], type, device)
      const c = normal(M * N, 3)
      using whole = fromArray(c, [M, N], 'f32', device)
      using parts = fromArray(c, [M, N], 'f32', device)
      gemm(x, y, { transA: true, alpha: 0.375, beta: -0.5, out: whole })
      for (let k = 0; k < K; k += 8192) {
        using a = x.rows(k, Math.min(8192, K - k))
        using b = y.rows(k, Math.min(8192, K - k))
        gemm(a, b, { transA: true, alpha: 0.375, beta: k === 0 ? -0.5 : 1, out: parts })
      }
      expect(await whole.read()).toEqual(await parts.read())
    },
  )

  it('has the same bits where a GPU gives each part of K a block as where one walks them', async () => {
    const [M, N, K] = [8, 3520, 8232] // on 108 or 132 multiprocessors, 3520 columns are enough blocks and 24 are not
    const numbers = integers(9001, 0x100, 1).map((bits) => 0x3f00 | bits) // bf16 from 0.5 to 2
    const filled = (rows: number) => {
      const out = empty([rows, K], 'bf16', device)
      const bits = new Uint16Array(rows * K)
      for (let i = 0; i < bits.length; i += 9001) {
        bits.set(numbers.subarray(0, Math.min(9001, bits.length - i)), i)
      }
      out.handle.write(bits)
      return out
    }
    using x = filled(M)
    using y = filled(N)
    using few = y.rows(0, 24)
    using whole = gemm(x, y, { transB: true, dtype: 'f32' })
    using alone = gemm(x, few, { transB: true, dtype: 'f32' })
    const got = await whole.read()
    const expected = Float32Array.from(
      { length: M * 24 },
      (_, i) => got[Math.floor(i / 24) * N + (i % 24)]!,
    )
    expect(await alone.read()).toEqual(expected)
  })

  it.each([
    { transA: false, transB: true },
    { transA: false, transB: false },
    { transA: true, transB: false },
    { transA: true, transB: true },
  ])(
    'a transposed $transA, b transposed $transB: strides beyond the rows, and bases off a boundary',
    async ({ transA, transB }) => {
      const [M, N, K] = [75, 43, 205]
      const a = normal(M * K, 1)
      const b = normal(N * K, 2)
      const results = []
      for (const [extra, offset] of [
        [[0, 0, 0], 0],
        [[3, 5, 1], 0], // rows on 16 bytes, or not, and more of them than a tile has
        [[13, 13, 13], 8],
        [[3, 5, 1], 1],
      ] as const) {
        const strided = (x: Float64Array, rows: number, columns: number, ld: number) => {
          const out = new Float32Array(rows * ld + offset).fill(Number.NaN)
          for (let i = 0; i < rows; i++) {
            out.set(x.subarray(i * columns, (i + 1) * columns), offset + i * ld)
          }
          return out.subarray(0, offset + (rows - 1) * ld + columns)
        }
        const [aColumns, bColumns] = [transA ? M : K, transB ? K : N]
        // 208 and 80, 48: multiples of 8 where `extra` is [3, 5, 1].
        const lda = aColumns + (aColumns === K ? extra[0] : extra[1])
        const ldb = bColumns + (bColumns === K ? extra[0] : extra[1])
        const ldc = N + extra[2]
        const wideA = strided(a, (M * K) / aColumns, aColumns, lda)
        const wideB = strided(b, (N * K) / bColumns, bColumns, ldb)
        const wideC = strided(new Float64Array(M * N), M, N, ldc)
        using x = fromArray(wideA, [wideA.length, 1], 'bf16', device)
        using y = fromArray(wideB, [wideB.length, 1], 'bf16', device)
        using out = fromArray(wideC, [wideC.length, 1], 'bf16', device)
        using from = x.rows(offset, wideA.length - offset)
        using by = y.rows(offset, wideB.length - offset)
        using to = out.rows(offset, wideC.length - offset)
        native().gemm(
          ...([from.handle, by.handle, to.handle, M, N, K, lda, ldb, ldc] as const),
          ...([transA, transB, 1, 0] as const),
        )
        const got = await to.read()
        results.push(
          Float32Array.from({ length: M * N }, (_, i) => got[Math.floor(i / N) * ldc + (i % N)]!),
        )
        // What lies between the rows of C is as it was.
        expect([...got].filter(Number.isNaN).length).toBe((M - 1) * (ldc - N))
      }
      for (const result of results) {
        const shape = { M, N, K, transA, transB }
        expectAsExactAsBf16(result, (round) => reference.gemm(a, b, shape, round))
      }
    },
  )

  it('has the same bits on one thread as on three, and from run to run', async () => {
    const [M, N, K] = [203, 177, 530]
    const a = normal(M * K, 1)
    const b = normal(N * K, 2)
    const c = normal(M * N, 3)
    const results = []
    for (const threads of [1, 3, 3]) {
      using other = another(device, threads)
      for (const options of [{ transA: true }, { transB: true, beta: 1 }] satisfies GemmOptions[]) {
        using x = fromArray(a, 'transA' in options ? [K, M] : [M, K], 'bf16', other)
        using y = fromArray(b, 'transB' in options ? [N, K] : [K, N], 'f32', other)
        using out = fromArray(c, [M, N], 'f32', other)
        gemm(x, y, { ...options, out })
        results.push(await out.read())
      }
    }
    expect(results[2]).toEqual(results[0])
    expect(results[3]).toEqual(results[1])
    expect(results.slice(4)).toEqual(results.slice(2, 4))
  })

  it.each([
    ['bf16', 'bf16', 1, 133, 600],
    ['f32', 'bf16', 0, 72, 264],
    ['bf16', 'f32', 1, 31, 519],
    ['f32', 'f32', 0, 130, 257],
  ] as const)(
    'rows of %s times %s, beta %d: one to nine alone have the bits they have among forty',
    async (aType, bType, beta, N, K) => {
      const a = normal(40 * K, 1)
      const b = normal(N * K, 2)
      const c = normal(40 * N, 3)
      using y = fromArray(b, [N, K], bType, device)
      const rows = async (M: number): Promise<number[]> => {
        using x = fromArray(a.subarray(0, M * K), [M, K], aType, device)
        using out = fromArray(c.subarray(0, M * N), [M, N], aType, device)
        gemm(x, y, { transB: true, alpha: 0.7, beta, out })
        return [...(await out.read())]
      }
      const all = await rows(40)
      for (let M = 1; M < 10; M++) expect(await rows(M)).toEqual(all.slice(0, M * N))
    },
  )

  it('gives beta · C where K is 0, and nothing where M or N is 0', async () => {
    using a = fromArray([], [2, 0], 'f32', device)
    using b = fromArray([], [0, 3], 'f32', device)
    using out = fromArray([1, 2, 3, 4, 5, 6], [2, 3], 'bf16', device)
    gemm(a, b, { beta: 0.5, out })
    expect([...(await out.read())]).toEqual([0.5, 1, 1.5, 2, 2.5, 3])
    gemm(a, b, { out })
    expect([...(await out.read())]).toEqual([0, 0, 0, 0, 0, 0])
    using nothing = gemm(b, a, { transA: true, transB: true, dtype: 'f32' })
    expect((await nothing.read()).length).toBe(6)
    using empty = fromArray([], [0, 2], 'f32', device)
    using c = gemm(empty, out.reshape([2, 3]))
    expect(c.shape).toEqual([0, 3])
    expect((await c.read()).length).toBe(0)
  })

  it('does not read C where beta is 0, and keeps NaN and infinities of the inputs', async () => {
    using a = fromArray([1, 2, Number.NaN, 4], [2, 2], 'f32', device)
    using b = fromArray([1, 0, 0, Number.POSITIVE_INFINITY], [2, 2], 'f32', device)
    using out = fromArray([Number.NaN, Number.NaN, Number.NaN, Number.NaN], [2, 2], 'f32', device)
    gemm(a, b, { out })
    const [x, y, z, w] = await out.read()
    expect([x, y, z, w]).toEqual([1, Number.POSITIVE_INFINITY, Number.NaN, Number.NaN])
  })

  it('refuses shapes that do not fit, by name', () => {
    using a = fromArray(normal(6, 1), [2, 3], 'f32', device)
    using b = fromArray(normal(8, 1), [4, 2], 'f32', device)
    expect(() => gemm(a, b)).toThrow('gemm: b must be [K=3, N], got [4, 2]')
    expect(() => gemm(b, a, { out: b })).toThrow('gemm: out must be [M=4, N=3], got [4, 2]')
    expect(() => gemm(b, a, { beta: 1 })).toThrow('gemm: beta needs out, got 1')
  })
})
