import type { Device } from '../device/device.js'
import type { ModelDType } from '../model/model.js'
import { gemm } from '../ops/index.js'
import { scope } from '../tensor/scope.js'
import { empty, type Tensor } from '../tensor/tensor.js'
import type { BenchCase } from './harness.js'
import { type BenchInput, normalInput, SampledError, spread } from './inputs.js'
import type { BenchModel } from './models.js'

/**
 * The three products of each linear layer of a model for T tokens, as training runs them: forward
 * y = x·wᵀ, dgrad dx = dy·w, and wgrad dw += dyᵀ·x, which adds to f32. 2·M·N·K operations each.
 * Tensors belong to the caller's scope.
 */
export function gemmCases(
  model: BenchModel,
  T: number,
  device: Device,
  dtype: ModelDType,
): BenchCase[] {
  const { hidden: C, ffn: F, heads, kvHeads, headDim: D } = model
  const layers: [name: string, inputs: number, outputs: number][] = [
    ['qkv', C, (heads + 2 * kvHeads) * D],
    ['out', heads * D, C],
    ['gate_up', C, 2 * F],
    ['down', F, C],
  ]
  return layers.flatMap(([name, inputs, outputs]) => {
    const x = normalInput([T, inputs], dtype, device, { seed: 1 })
    const w = normalInput([outputs, inputs], dtype, device, { seed: 2 })
    const dy = normalInput([T, outputs], dtype, device, { seed: 3 })
    const dw = empty([outputs, inputs], 'f32', device)
    return [
      product(`${name} forward`, x, w, { M: T, N: outputs, K: inputs, transB: true }),
      product(`${name} dgrad`, dy, w, { M: T, N: inputs, K: outputs }),
      product(`${name} wgrad`, dy, x, { M: outputs, N: inputs, K: T, transA: true, sum: dw }),
    ]
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
  mode: string,
  a: BenchInput,
  b: BenchInput,
  { M, N, K, transA = false, transB = false, sum }: Product,
): BenchCase {
  const multiply = (beta: number) =>
    gemm(a.tensor, b.tensor, { transA, transB, ...(sum && { beta, out: sum }) })
  return {
    kernel: 'gemm',
    mode,
    shape: `M=${M} N=${N} K=${K}`,
    flops: 2 * M * N * K,
    // f32 sums of K products; a result in bf16 is also rounded to 8 bits.
    bound: a.tensor.dtype === 'f32' || sum ? 2e-6 * Math.sqrt(K) : 2 ** -8,
    run: () => {
      using _ = scope()
      multiply(1)
    },
    error: async () => {
      using _ = scope()
      const actual = await multiply(0).read()
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
