import { describe, expect, it } from 'vitest'
import { native } from '../../src/native/addon.js'
import type { GemmConfig, GemmShape } from '../../src/native/addon-types.js'
import { tensorCoreShapes } from '../support/gemm-shapes.js'

const { gemmConfig, cudaKernels } = native()
if (!gemmConfig) console.log('gemm-config: skipped, this build of the addon has no CUDA kernels')

// Arch, multiprocessors and bytes of shared memory for a block.
type Gpu = 'A100' | 'A10' | 'L40S' | 'H100'
const gpus: Record<Gpu, [arch: number, sms: number, sharedBytes: number]> = {
  A100: [80, 108, 163 << 10],
  A10: [86, 72, 99 << 10],
  L40S: [89, 142, 99 << 10],
  H100: [90, 132, 227 << 10],
}

const choose = (gpu: Gpu, shape: GemmShape): GemmConfig => gemmConfig!(shape, ...gpus[gpu])
const tensorCores = (gpu: Gpu) => (gpu === 'H100' ? 'gemm_bf16_sm90' : 'gemm_bf16_sm80')
const tilesOf = (c: GemmConfig, { M, N }: GemmShape) =>
  Math.ceil(M / c.blockM) * Math.ceil(N / c.blockN)

const sizes = [1, 8, 16, 17, 33, 100, 128, 1000, 4096, 32000]
const Ks = [1, 100, 4096, 8192, 8193, 131072]
const kinds = [
  { tensorCores: true },
  { tensorCores: true, transA: true },
  { tensorCores: true, transB: true, f32Out: true },
  { tensorCores: true, transA: true, transB: true, f32Out: true },
  { tensorCores: true, ragged: true, f32Out: true },
  { f32Out: true },
  { transB: true },
]
const shapes: GemmShape[] = sizes.flatMap((M) =>
  sizes.flatMap((N) => Ks.flatMap((K) => kinds.map((kind) => ({ M, N, K, ...kind })))),
)

describe.runIf(gemmConfig).each(Object.keys(gpus) as Gpu[])('gemm on a %s', (gpu) => {
  it('is a kernel of the addon that fits its shared memory, for every shape', () => {
    const kernels = new Set(cudaKernels)
    for (const shape of shapes) {
      const c = choose(gpu, shape)
      const fits = c.sharedBytes <= gpus[gpu][2] && c.threads <= 384 && c.chunk % c.blockK === 0
      if (!kernels.has(c.kernel) || !fits) expect.fail(JSON.stringify({ shape, c }))
    }
  })

  it('takes the tensor cores for what lies on 16 bytes, whatever the shape, and only for that', () => {
    for (const shape of shapes) {
      const c = choose(gpu, shape)
      const layout = `${shape.transA ? 't' : 'n'}${shape.transB ? 't' : 'n'}`
      const family = shape.tensorCores ? `${tensorCores(gpu)}_${layout}_` : 'gemm_any_'
      expect(c.kernel.startsWith(family)).toBe(true)
      expect(c.kernel.endsWith('_ragged')).toBe(shape.ragged === true && gpu !== 'H100')
    }
  })

  it('sums chunks of 8192 of K for an f32 result, and all of K for one that would be rounded', () => {
    for (const shape of shapes) {
      const { chunk } = choose(gpu, shape)
      if (shape.f32Out) expect(chunk).toBe(8192)
      else expect(chunk).toBeGreaterThanOrEqual(shape.K)
    }
  })

  it('splits K only where sums may be kept, K is long and tiles are fewer than multiprocessors', () => {
    let splits = 0
    for (const shape of shapes) {
      const c = choose(gpu, shape)
      if (c.split === 1) continue
      splits++
      expect(shape).toMatchObject({ f32Out: true })
      expect(c.split).toBe(Math.ceil(shape.K / 8192))
      expect(tilesOf(c, shape)).toBeLessThan(gpus[gpu][1])
      expect(c.split * shape.M * shape.N * 4).toBeLessThanOrEqual(64 << 20)
    }
    expect(splits).toBeGreaterThan(0)
  })

  it('takes thin tiles for the few rows of decoding, and no tile that is half empty', () => {
    for (const shape of shapes) {
      if (!shape.tensorCores || shape.ragged) continue
      const { blockM } = choose(gpu, shape)
      const thin = gpu === 'H100' ? 64 : 16 // wgmma has 64 rows
      if (shape.M <= thin) expect(blockM).toBe(thin)
      else expect(blockM).toBeLessThan(2 * shape.M)
    }
  })

  it('takes a big tile for a big product, and small ones where big ones would leave it idle', () => {
    for (const transA of [false, true]) {
      const big = choose(gpu, { M: 16384, N: 16384, K: 4096, transA, tensorCores: true })
      expect(big.blockM * big.blockN).toBeGreaterThanOrEqual(128 * 128)
      const small = { M: 512, N: 512, K: 512, transA, tensorCores: true }
      const c = choose(gpu, small)
      expect(c.blockM * c.blockN).toBeLessThanOrEqual(64 * 64)
    }
  })
})

describe.runIf(gemmConfig)('the shapes of the gemm tests', () => {
  it.each(['A100', 'H100'] as const)(
    'reach every tile of the tensor-core kernels on an %s, and its stages more than once',
    (gpu) => {
      const family = `${tensorCores(gpu)}_nn_`
      const tile = (kernel: string) => kernel.slice(family.length)
      const all = cudaKernels.filter((name) => name.startsWith(family)).map(tile)
      const reached = tensorCoreShapes.flatMap((shape) => {
        const c = choose(gpu, { ...shape, tensorCores: true, f32Out: shape.type === 'f32' })
        const atOnce = Math.floor(gpus[gpu][1] / c.cluster)
        const tiles = c.cluster > 0 ? Math.ceil(tilesOf(c, shape) / atOnce) : 1 // of a block
        // The stages come round again.
        return tiles * Math.ceil(shape.K / c.blockK) > c.stages ? [tile(c.kernel)] : []
      })
      expect([...new Set(reached)].sort()).toEqual(
        all.filter((name) => !name.includes('ragged')).sort(),
      )
    },
  )
})
