import { describe, expect, it } from 'vitest'
import { openCpu } from '../../src/device/device.js'
import { type GemmOptions, gemm } from '../../src/ops/gemm.js'
import type { DType } from '../../src/tensor/dtype.js'
import { fromArray } from '../../src/tensor/tensor.js'
import * as reference from '../reference/gemm.js'
import { devices, named } from '../support/devices.js'
import { exact, expectAsExactAsBf16, expectExactF32 } from '../support/exactness.js'
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

  it('has the same bits on one thread as on three, and from run to run', async () => {
    const [M, N, K] = [203, 177, 530]
    const a = normal(M * K, 1)
    const b = normal(N * K, 2)
    const c = normal(M * N, 3)
    const results = []
    for (const threads of [1, 3, 3]) {
      using other = openCpu({ isa: device.isa, threads })
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
