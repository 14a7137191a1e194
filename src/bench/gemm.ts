import type { Device } from '../device/device.js'
import type { ModelDType } from '../model/model.js'
import { gemm } from '../ops/index.js'
import { scope } from '../tensor/scope.js'
import { empty, type Tensor } from '../tensor/tensor.js'
import { cublasLtGemm } from './cublaslt.js'
import type { BenchCase } from './harness.js'
import { type BenchInput, bytesOf, copiesFor, normalInput, SampledError, spread } from './inputs.js'
import type { BenchModel } from './models.js'

/**
 * The three products of each linear layer of a model for T tokens, as training runs them: forward
 * y = x·wᵀ, dgrad dx = dy·w, and wgrad dw += dyᵀ·x, which adds to f32. 2·M·N·K operations each.
 * Tensors belong to the caller's scope.
 *
 * @param cublasLt each product by that library, too
 */
export function gemmCases(
  model: BenchModel,
  T: number,
  device: Device,
  dtype: ModelDType,
  { cublasLt = false }: { cublasLt?: boolean } = {},
): BenchCase[] {
  const { hidden: C, ffn: F, heads, kvHeads, headDim: D } = model
  const layers: [name: string, inputs: number, outputs: number][] = [
    ['qkv', C, (heads + 2 * kvHeads) * D],
    ['out', heads * D, C],
    ['gate_up', C, 2 * F],
    ['down', F, C],
  ]
  return layers.flatMap(([name, inputs, outputs]) => {
    const sizes = [T * inputs, outputs * inputs, T * outputs]
    // A product reads two of the three.
    const least = bytesOf(dtype, ...sizes) - bytesOf(dtype, Math.max(...sizes))
    const copies = copiesFor(device, least)
    const x = normalInput([T, inputs], dtype, device, { seed: 1, copies })
    const w = normalInput([outputs, inputs], dtype, device, { seed: 2, copies })
    const dy = normalInput([T, outputs], dtype, device, { seed: 3, copies })
    const dw = empty([outputs, inputs], 'f32', device)
    const products: [string, BenchInput, BenchInput, Product][] = [
      [`${name} forward`, x, w, { M: T, N: outputs, K: inputs, transB: true }],
      [`${name} dgrad`, dy, w, { M: T, N: inputs, K: outputs }],
      [`${name} wgrad`, dy, x, { M: outputs, N: inputs, K: T, transA: true, sum: dw }],
    ]
    return products.flatMap(([mode, a, b, how]) => {
      const shared = { mode, x: { name: 'T', label: 'tokens', value: T } }
      const ours = { ...shared, ...product(a, b, how, gemm) }
      if (!cublasLt) return [ours]
      return [ours, { ...shared, ...product(a, b, how, cublasLtGemm), provider: 'cublasLt' }]
    })
  })
}

interface Product {
  M: number
  N: number
  K: number
  transA?: boolean
  transB?: boolean
  /** Added to, instead of a new output. */
  sum?: Tensor
}

function product(
  a: BenchInput,
  b: BenchInput,
  { M, N, K, transA = false, transB = false, sum }: Product,
  by: typeof gemm,
): Omit<BenchCase, 'mode' | 'x'> {
  const { dtype } = a.tensor
  const multiply = (turn: number, beta: number) =>
    by(a.at(turn), b.at(turn), { transA, transB, ...(sum && { beta, out: sum }) })
  const inputs = a.tensor.size + b.tensor.size
  const wide = dtype === 'f32' ? 4 : 2
  return {
    kernel: 'gemm',
    shape: `M=${M} N=${N} K=${K}`,
    flops: 2 * M * N * K,
    bytes: wide * inputs + (sum ? 2 * 4 : wide) * M * N,
    // f32 sums of K products; a result in bf16 is also rounded to 8 bits.
    bound: dtype === 'f32' || sum ? 2e-6 * Math.sqrt(K) : 2 ** -8,
    run: (turn) => {
      using _ = scope()
      multiply(turn, 1)
    },
    error: async () => {
      using _ = scope()
      const actual = await multiply(0, 0).read()
      const error = new SampledError()
      for (const m of spread(M, 9)) {
        for (const n of spread(N, 9)) {
          let truth = 0
          for (let k = 0; k < K; k++) {
            const left = a.values[transA ? k * M + m : m * K + k]!
            truth += left * b.values[transB ? n * K + k : k * N + n]!
          }
          error.add(actual[m * N + n]!, truth)
        }
      }
      return error.relative
    },
  }
}
