import { describe, expect, it } from 'vitest'
import { embedding, embeddingBackward, scatterAddRows } from '../../src/ops/embedding.js'
import { scope } from '../../src/tensor/scope.js'
import { fromArray } from '../../src/tensor/tensor.js'
import * as reference from '../reference/embedding.js'
import { expectSameBits } from '../support/determinism.js'
import { devices, named } from '../support/devices.js'
import { expectAsExactAsBf16, expectExactF32 } from '../support/exactness.js'
import { integers, normal } from '../support/random.js'

const shapes = [
  { T: 1, V: 1, C: 1 },
  { T: 77, V: 11, C: 131 }, // every id several times; a tail at every register width
  { T: 5, V: 300, C: 64 },
  { T: 40, V: 3, C: 1100 }, // more columns than one block takes
  { T: 5000, V: 40, C: 3 }, // more ids than one block sorts
]

describe.each(devices.map(named))('embedding on %s', (_, device) => {
  it.each(shapes)('T=$T V=$V C=$C: copies rows bit for bit', async ({ T, V, C }) => {
    using _scope = scope()
    const ids = integers(T, V, 1)
    const tids = fromArray(ids, [T], 'i32', device)
    for (const dtype of ['f32', 'bf16'] as const) {
      const table = fromArray(normal(V * C, 2), [V, C], dtype, device)
      const stored = await table.read()
      const out = await embedding(table, tids).read()
      expect(out).toEqual(Float32Array.from(reference.embedding(stored, ids, C)))
    }
  })

  it.each(shapes)('T=$T V=$V C=$C: adds the gradients of equal ids', async ({ T, V, C }) => {
    using _scope = scope()
    const ids = integers(T, V, 1)
    const tids = fromArray(ids, [T], 'i32', device)
    const dout = normal(T * C, 3)
    const before = normal(V * C, 4)
    const after = (round = (x: number) => x) =>
      reference.scatterAddRows(dout.map(round), ids, V, C).map((d, i) => d + before[i]!)
    for (const dtype of ['f32', 'bf16'] as const) {
      const td = fromArray(dout, [T, C], dtype, device)
      const dtable = fromArray(before, [V, C], 'f32', device)
      embeddingBackward(td, tids, dtable)
      if (dtype === 'f32') expectExactF32(await dtable.read(), after(), 1e-6)
      else expectAsExactAsBf16(await dtable.read(), after)
    }
  })

  it.each(shapes)('T=$T V=$V C=$C: scatterAddRows writes every row', async ({ T, V, C }) => {
    using _scope = scope()
    const index = integers(T, V, 5).map((r) => (r === 3 ? 0 : r)) // row 3 gets nothing
    const tindex = fromArray(index, [T], 'i32', device)
    const x = normal(T * C, 6)
    const sums = (round = (x: number) => x) => reference.scatterAddRows(x, index, V, C, round)
    const f32 = scatterAddRows(fromArray(x, [T, C], 'f32', device), tindex, V)
    expectExactF32(await f32.read(), sums(), 1e-6)
    const bf16 = scatterAddRows(fromArray(x, [T, C], 'bf16', device), tindex, V)
    expectAsExactAsBf16(await bf16.read(), sums)
  })

  it('adds one row after the other, in ascending order, in f32', async () => {
    using _scope = scope()
    const [T, V, C] = [300, 4, 5]
    const ids = integers(T, V, 9)
    const [x, before] = [normal(T * C, 10), normal(V * C, 11)]
    const inOrder = (start: ArrayLike<number>) => {
      const sums = Float32Array.from(start)
      ids.forEach((id, t) => {
        for (let c = 0; c < C; c++) sums[id * C + c]! += x[t * C + c]!
      })
      return sums
    }
    const [tx, tids] = [fromArray(x, [T, C], 'f32', device), fromArray(ids, [T], 'i32', device)]
    const dtable = fromArray(before, [V, C], 'f32', device)
    embeddingBackward(tx, tids, dtable)
    expect(await dtable.read()).toEqual(inOrder(before))
    expect(await scatterAddRows(tx, tids, V).read()).toEqual(inOrder(new Float32Array(V * C)))
  })

  it('gives the same bits on any number of threads', async () => {
    const [T, V, C] = [500, 20, 200]
    const ids = integers(T, V, 7)
    const x = normal(T * C, 8)
    await expectSameBits(device, (on) => {
      const tids = fromArray(ids, [T], 'i32', on)
      const tx = fromArray(x, [T, C], 'bf16', on)
      const dtable = fromArray(new Float32Array(V * C), [V, C], 'f32', on)
      embeddingBackward(tx, tids, dtable)
      return [dtable, scatterAddRows(tx, tids, V)]
    })
  })

  it.each([-1, 4, 2147483647, -2147483648])('refuses row %i of 4 by its index', async (bad) => {
    using _scope = scope()
    const ids = fromArray([0, 3, bad], [3], 'i32', device)
    const x = fromArray(normal(6, 1), [3, 2], 'f32', device)
    const table = fromArray(normal(8, 1), [4, 2], 'f32', device)
    const before = await table.read()
    const where = `must be 0 <= row < 4, got ${bad} at index 2`
    embedding(table, ids)
    await expect(device.synchronize()).rejects.toThrow(`ids ${where}`)
    embeddingBackward(x, ids, table)
    await expect(device.synchronize()).rejects.toThrow(`ids ${where}`)
    scatterAddRows(x, ids, 4)
    await expect(device.synchronize()).rejects.toThrow(`index ${where}`)
    expect(await table.read()).toEqual(before)
  })

  it('takes no ids, and an empty table only with no ids', async () => {
    using _scope = scope()
    const none = fromArray([], [0], 'i32', device)
    const nothing = fromArray([], [0, 3], 'f32', device)
    expect((await embedding(nothing, none).read()).length).toBe(0)
    expect(await scatterAddRows(nothing, none, 2).read()).toEqual(new Float32Array(6))
    embedding(nothing, fromArray([0], [1], 'i32', device))
    await expect(device.synchronize()).rejects.toThrow('0 <= row < 0, got 0 at index 0')
  })
})
