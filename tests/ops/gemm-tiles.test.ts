import { describe, expect, it } from 'vitest'
import { gemm } from '../../src/ops/gemm.js'
import { roundToBf16 } from '../../src/tensor/dtype.js'
import { fromArray } from '../../src/tensor/tensor.js'
import { devices } from '../support/devices.js'
import { normal } from '../support/random.js'

const amx = devices.find(({ isa }) => isa === 'amx')

/** `[columns, rows]` of `[rows, columns]`. */
function transposed(x: Float64Array, rows: number, columns: number): Float64Array {
  return Float64Array.from({ length: x.length }, (_, i) => {
    return x[(i % rows) * columns + Math.floor(i / rows)]!
  })
}

/**
 * A row by a column as tiles multiply them: per 32 k two chains of fused multiply-adds, over the even and the odd k, whose
 * sum is added. The products of these numbers and an f32 sum are exact in f64, so rounding that is one rounding.
 */
function tileSum(row: Float64Array, column: Float64Array): number {
  let sum = 0
  for (let k = 0; k < row.length; k += 32) {
    const chains = [0, 0]
    for (let i = k; i < Math.min(k + 32, row.length); i++) {
      chains[i % 2] = Math.fround(chains[i % 2]! + row[i]! * column[i]!)
    }
    sum = Math.fround(sum + Math.fround(chains[0]! + chains[1]!))
  }
  return sum
}

describe.runIf(amx)('gemm of bf16 on tiles', () => {
  const device = amx!

  it.each([
    { M: 16, N: 16, K: 32 },
    { M: 5, N: 18, K: 100 },
    { M: 49, N: 65, K: 333 },
  ])('$M x $N x $K, stored in any way: the bits of the direct formula', async ({ M, N, K }) => {
    const a = normal(M * K, 1).map(roundToBf16)
    const b = normal(N * K, 2).map(roundToBf16)
    const expected = Float32Array.from({ length: M * N }, (_, i) => {
      const [m, n] = [Math.floor(i / N), i % N]
      return tileSum(a.subarray(m * K, (m + 1) * K), b.subarray(n * K, (n + 1) * K))
    })
    for (const transA of [false, true]) {
      for (const transB of [false, true]) {
        using x = fromArray(
          transA ? transposed(a, M, K) : a,
          transA ? [K, M] : [M, K],
          'bf16',
          device,
        )
        using y = fromArray(
          transB ? b : transposed(b, N, K),
          transB ? [N, K] : [K, N],
          'bf16',
          device,
        )
        using c = gemm(x, y, { transA, transB, dtype: 'f32' })
        expect(await c.read()).toEqual(expected)
      }
    }
  })

  it('takes subnormal numbers as 0, in the operands and in the sums', async () => {
    using a = fromArray([2 ** -130, 2 ** -70, 1, 1], [2, 2], 'bf16', device)
    using b = fromArray([2 ** 100, 2 ** -60, 2 ** -126, 2 ** -120], [2, 2], 'bf16', device)
    using c = gemm(a, b, { transB: true, dtype: 'f32' })
    const sum = Math.fround(2 ** -126 + 2 ** -120)
    expect([...(await c.read())]).toEqual([0, 0, Math.fround(2 ** 100), sum])
  })

  it.each([
    { N: 31, K: 70, type: 'bf16' },
    { N: 1100, K: 256, type: 'f32' },
    { N: 67, K: 8200, type: 'f32', alpha: 0.375, beta: -0.5 },
    { N: 40, K: 8200, type: 'bf16', beta: 1 },
  ] as const)(
    '1 to 33 rows by $N columns over $K into $type, columns read as they lie or packed: the same bits',
    async ({ N, K, type, ...scaling }) => {
      const a = normal(33 * K, 1)
      const b = normal(N * K, 2)
      const old = normal(33 * N, 3)
      using all = fromArray(a, [33, K], 'bf16', device)
      using lines = fromArray(b, [N, K], 'bf16', device)
      using across = fromArray(transposed(b, N, K), [K, N], 'bf16', device)
      using whole = fromArray(old, [33, N], type, device)
      gemm(all, lines, { transB: true, ...scaling, out: whole })
      const expected = await whole.read()
      for (const M of [1, 2, 8, 9, 16, 17, 32]) {
        using few = all.rows(0, M)
        using thin = fromArray(old.subarray(0, M * N), [M, N], type, device)
        using packed = fromArray(old.subarray(0, M * N), [M, N], type, device)
        gemm(few, lines, { transB: true, ...scaling, out: thin })
        gemm(few, across, { ...scaling, out: packed })
        expect(await thin.read()).toEqual(expected.slice(0, M * N))
        expect(await packed.read()).toEqual(expected.slice(0, M * N))
      }
    },
  )

  it('several blocks of rows, columns and K: the bits of every row and column alone', async () => {
    const [M, N, K] = [1100, 300, 520]
    const a = normal(M * K, 1)
    const b = normal(N * K, 2)
    using x = fromArray(a, [K, M], 'bf16', device)
    using y = fromArray(b, [K, N], 'bf16', device)
    using whole = gemm(x, y, { transA: true, dtype: 'f32' })
    const got = await whole.read()
    for (const m of [0, 511, 512, 1055, M - 1]) {
      const row = Float64Array.from({ length: K }, (_, k) => roundToBf16(a[k * M + m]!))
      for (const n of [0, 255, 256, N - 1]) {
        const column = Float64Array.from({ length: K }, (_, k) => roundToBf16(b[k * N + n]!))
        expect(got[m * N + n]).toBe(tileSum(row, column))
      }
    }
  })
})
