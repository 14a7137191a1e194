import { describe, expect, it } from 'vitest'
import { add, cast, fill, scale } from '../../src/ops/elementwise.js'
import { roundToBf16 } from '../../src/tensor/dtype.js'
import { scope } from '../../src/tensor/scope.js'
import { empty, fromArray } from '../../src/tensor/tensor.js'
import { devices, named } from '../support/devices.js'
import { normal } from '../support/random.js'

const sizes = [0, 1, 7, 33, 70_001] // tails; more than one parallel range
const rounding = { f32: Math.fround, bf16: roundToBf16 }

const bits = (values: Float32Array | Int32Array) => Buffer.from(values.buffer).toString('base64')

describe.each(devices.map(named))('element-wise ops on %s', (_, device) => {
  it.each(sizes)('n=%i: scale and add round once', async (n) => {
    using _scope = scope()
    for (const dtype of ['f32', 'bf16'] as const) {
      const round = rounding[dtype]
      const [a, b] = [normal(n, 1).map(round), normal(n, 2).map(round)]
      const [ta, tb] = [a, b].map((v) => fromArray(v, [n], dtype, device))
      const sums = a.map((x, i) => round(Math.fround(x + b[i]!)))
      expect(bits(await add(ta!, tb!).read())).toBe(bits(Float32Array.from(sums)))
      scale(ta!, 1 / 3)
      const products = a.map((x) => round(Math.fround(x * Math.fround(1 / 3))))
      expect(bits(await ta!.read())).toBe(bits(Float32Array.from(products)))
    }
  })

  it.each(sizes)('n=%i: fill sets every element', async (n) => {
    using _scope = scope()
    for (const dtype of ['f32', 'bf16', 'i32'] as const) {
      const x = empty([n], dtype, device)
      fill(x, -2.5)
      const expected = dtype === 'i32' ? new Int32Array(n).fill(-2) : new Float32Array(n).fill(-2.5)
      expect(bits(await x.read())).toBe(bits(expected))
    }
  })

  it('cast rounds to nearest even, keeps infinities and NaN, and back is exact', async () => {
    using _scope = scope()
    const special = [
      1 + 2 ** -8,
      1 + 3 * 2 ** -8,
      3.4e38,
      Infinity,
      -Infinity,
      Number.NaN,
      -0,
      1e-40,
    ]
    const values = Float32Array.from([...special, ...normal(50, 1)])
    const x = fromArray(values, [values.length], 'f32', device)
    const rounded = values.map(roundToBf16)
    const half = cast(x, 'bf16')
    expect(await half.read()).toEqual(rounded)
    expect(await cast(half, 'f32').read()).toEqual(rounded)
  })

  it('a cast to the same dtype is a copy of its own', async () => {
    using _scope = scope()
    for (const dtype of ['f32', 'bf16'] as const) {
      const x = fromArray(normal(70_001, 1), [70_001], dtype, device)
      const before = await x.read()
      const copy = cast(x, dtype)
      fill(x, 0)
      expect(bits(await copy.read())).toBe(bits(before))
    }
  })

  it('refuses i32 where it has no meaning, and shapes that differ', async () => {
    using _scope = scope()
    const x = fromArray([1, 2], [2], 'i32', device)
    expect(() => scale(x, 2)).toThrow('scale: x must be f32 or bf16, got i32')
    expect(() => add(x, x)).toThrow('add: a must be f32 or bf16, got i32')
    expect(() => cast(x, 'f32')).toThrow('cast: x must be f32 or bf16, got i32')
    const [a, b] = [fromArray([1], [1], 'f32', device), fromArray([1, 2], [2], 'f32', device)]
    expect(() => add(a, b)).toThrow('add: b must be [1], got [2]')
    fill(x, 1e10)
    await expect(device.synchronize()).rejects.toThrow('value must fit i32, got 1e+10')
  })
})
