import { describe, expect, it } from 'vitest'
import type { Device } from '../../src/device/device.js'
import { linearLogps, linearLogpsBackward } from '../../src/ops/linear-logps.js'
import { type DType, roundToBf16 } from '../../src/tensor/dtype.js'
import { fromArray } from '../../src/tensor/tensor.js'
import { linearLogps as formula, type LinearCase } from '../reference/linear-logps.js'
import { another, devices, named } from '../support/devices.js'
import { exact, expectAsExactAsBf16, expectExactF32, type Round } from '../support/exactness.js'
import { integers, normal } from '../support/random.js'

const roundsGradient = (device: Device) => device.name !== 'cpu' || device.isa === 'amx'

function inputs({ N, C, V }: LinearCase, dtype: DType) {
  const round = dtype === 'bf16' ? roundToBf16 : Math.fround
  const dlogps = normal(N, 4)
  if (N > 2) dlogps[2] = 0
  return {
    hidden: normal(N * C, 1).map(round),
    weight: normal(V * C, 2).map((x) => round((2 * x) / Math.sqrt(C))),
    target: integers(N, V, 3),
    dlogps,
    dweight: normal(V * C, 5),
  }
}

/** Forward, forward with backward in one pass, and backward alone, over the same inputs. */
async function run(
  of: ReturnType<typeof inputs>,
  { N, C, V }: LinearCase,
  dtype: DType,
  on: Device,
) {
  using hidden = fromArray(of.hidden, [N, C], dtype, on)
  using weight = fromArray(of.weight, [V, C], dtype, on)
  using target = fromArray(of.target, [N], 'i32', on)
  using dlogps = fromArray(of.dlogps, [N], 'f32', on)
  using dweight = fromArray(of.dweight, [V, C], 'f32', on)
  using dweightAlone = fromArray(of.dweight, [V, C], 'f32', on)
  const plain = linearLogps(hidden, weight, target)
  const one = linearLogps(hidden, weight, target, { statistics: true, dlogps, dweight })
  using dhidden = linearLogpsBackward(hidden, weight, target, plain.lse, dlogps, dweightAlone)
  const read = async (tensor = dhidden) => {
    const values = await tensor.read()
    if (tensor !== dhidden) tensor.dispose()
    return values
  }
  return {
    plain: { logps: await read(plain.logps), lse: await read(plain.lse) },
    one: {
      logps: await read(one.logps),
      lse: await read(one.lse),
      entropy: await read(one.entropy),
      hit: await read(one.hit),
      dhidden: await read(one.dhidden),
      dweight: await dweight.read(),
    },
    alone: { dhidden: await dhidden.read(), dweight: await dweightAlone.read() },
  }
}

describe.each(devices.map(named))('linearLogps on %s', (_, device) => {
  const cases = [
    { N: 5, C: 33, V: 1031 },
    { N: 300, C: 16, V: 50 }, // more than one chunk of tokens
    { N: 70, C: 7, V: 1 },
    { N: 1, C: 64, V: 257 },
    { N: 3, C: 8, V: 9001 }, // a row is longer than what a block of a GPU reads at once
  ]

  it.each(cases)('N=$N C=$C V=$V f32: everything within 1e-5 of float64', async (size) => {
    const of = inputs(size, 'f32')
    const got = await run(of, size, 'f32', device)
    const truth = formula(of.hidden, of.weight, of.target, of.dlogps, size, exact)
    expectExactF32(got.one.logps, truth.logps)
    expectExactF32(got.one.lse, truth.lse)
    expectExactF32(got.one.entropy, truth.entropy)
    expect([...got.one.hit]).toEqual([...truth.hit])
    expectExactF32(got.one.dhidden, truth.dhidden)
    expectExactF32(
      got.one.dweight,
      truth.dweight.map((x, i) => x + of.dweight[i]!),
    )
  })

  it.each(cases)(
    'N=$N C=$C V=$V bf16: logits and softmax stay f32; gradients are as exact as those of bf16',
    async (size) => {
      const of = inputs(size, 'bf16')
      const got = await run(of, size, 'bf16', device)
      const truth = formula(of.hidden, of.weight, of.target, of.dlogps, size, exact)
      expectExactF32(got.one.logps, truth.logps)
      expectExactF32(got.one.entropy, truth.entropy)
      const gradients = (round: Round) =>
        formula(of.hidden, of.weight, of.target, of.dlogps, size, round, round)
      expectAsExactAsBf16(got.one.dhidden, (round) => gradients(round).dhidden)
      const added = got.one.dweight.map((x, i) => x - of.dweight[i]!)
      expectAsExactAsBf16(added, (round) => gradients(round).dweight)
      // The gradient by the logits is rounded for what multiplies bf16 alone: tensor cores and tiles.
      if (!roundsGradient(device))
        expectExactF32(
          got.one.dweight,
          truth.dweight.map((x, i) => x + of.dweight[i]!),
        )
    },
  )

  it.each(['f32', 'bf16'] as const)(
    '%s: one pass has the bits of forward and backward apart',
    async (dtype) => {
      const size = { N: 270, C: 24, V: 99 }
      const got = await run(inputs(size, dtype), size, dtype, device)
      expect(got.one.logps).toEqual(got.plain.logps)
      expect(got.one.lse).toEqual(got.plain.lse)
      expect(got.alone.dhidden).toEqual(got.one.dhidden)
      expect(got.alone.dweight).toEqual(got.one.dweight)
    },
  )

  it('over several chunks of tokens dweight has the sum of all, and the last row the bits it has alone', async () => {
    const size = { N: 2100, C: 8, V: 9 }
    const of = inputs(size, 'bf16')
    const got = await run(of, size, 'bf16', device)
    expect(got.alone).toEqual({ dhidden: got.one.dhidden, dweight: got.one.dweight })
    const truth = formula(of.hidden, of.weight, of.target, of.dlogps, size, exact, (x) =>
      roundsGradient(device) ? roundToBf16(x) : x,
    )
    expectExactF32(got.one.logps, truth.logps)
    expectExactF32(
      got.one.dweight,
      truth.dweight.map((x, i) => x + of.dweight[i]!),
      1e-4, // a few gradients round the other way from f32
    )
    const n = size.N - 1
    const single = {
      ...of,
      hidden: of.hidden.slice(n * size.C),
      target: of.target.slice(n),
      dlogps: of.dlogps.slice(n),
    }
    const { one } = await run(single, { ...size, N: 1 }, 'bf16', device)
    expect(one.logps[0]).toBe(got.one.logps[n])
    expect(one.dhidden).toEqual(got.one.dhidden.slice(n * size.C))
  })

  const companies = [
    { N: 600, C: 40, V: 333 },
    { N: 27, C: 8, V: 5001 }, // a sum in every warp of a block
  ]
  it.each(companies)(
    'a row has the same bits alone as among $N with V=$V, and one thread the bits of three',
    async (size) => {
      const of = inputs(size, 'bf16')
      const all = await run(of, size, 'bf16', device)
      for (const n of [0, size.N >> 1, size.N - 1]) {
        const single = {
          ...of,
          hidden: of.hidden.slice(n * size.C, (n + 1) * size.C),
          target: of.target.slice(n, n + 1),
          dlogps: of.dlogps.slice(n, n + 1),
        }
        const { one } = await run(single, { ...size, N: 1 }, 'bf16', device)
        expect(one.logps[0]).toBe(all.one.logps[n])
        expect(one.entropy[0]).toBe(all.one.entropy[n])
        expect(one.dhidden).toEqual(all.one.dhidden.slice(n * size.C, (n + 1) * size.C))
      }
      for (const threads of [1, 3]) {
        using other = another(device, threads)
        expect(await run(of, size, 'bf16', other)).toEqual(all)
      }
    },
  )

  it('a position with dlogps 0 gives dhidden 0 and adds nothing to dweight', async () => {
    const size = { N: 3, C: 8, V: 20 }
    const of = inputs(size, 'f32')
    of.dlogps.fill(0)
    const { one } = await run(of, size, 'f32', device)
    expect(one.dhidden).toEqual(new Float32Array(3 * 8))
    expect(one.dweight).toEqual(Float32Array.from(of.dweight))
  })

  it('hits only where the target is the first of equal maxima', async () => {
    using hidden = fromArray([1, 1], [2, 1], 'f32', device)
    using weight = fromArray([0, 2, 2, 1], [4, 1], 'f32', device)
    using target = fromArray([1, 2], [2], 'i32', device)
    const { hit } = linearLogps(hidden, weight, target, { statistics: true })
    expect([...(await hit!.read())]).toEqual([1, 0])
  })

  it('N=0 is nothing; a target outside the vocabulary is refused by index', async () => {
    using none = fromArray([], [0, 4], 'f32', device)
    using noTarget = fromArray([], [0], 'i32', device)
    using weight = fromArray(normal(12, 1), [3, 4], 'f32', device)
    expect((await linearLogps(none, weight, noTarget).logps.read()).length).toBe(0)
    using hidden = fromArray(normal(8, 1), [2, 4], 'f32', device)
    using d = fromArray([1, 1], [2], 'f32', device)
    for (const wrong of [-1, 3]) {
      using target = fromArray([0, wrong], [2], 'i32', device)
      const message = `target must be from 0 to V-1=2, got ${wrong} at index 1`
      await expect(linearLogps(hidden, weight, target).logps.read()).rejects.toThrow(message)
      await expect(linearLogpsBackward(hidden, weight, target, d, d).read()).rejects.toThrow(
        message,
      )
    }
  })
})
