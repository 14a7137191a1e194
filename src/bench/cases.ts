import type { Device } from '../device/device.js'
import type { ModelDType } from '../model/model.js'
import { normalInto } from '../model/random.js'
import { attention, attentionBackward, gemm, linearLogps } from '../ops/index.js'
import { roundToBf16 } from '../tensor/dtype.js'
import { own, scope } from '../tensor/scope.js'
import { fromArray, type Tensor } from '../tensor/tensor.js'
import type { BenchCase } from './harness.js'
import type { BenchModel } from './models.js'

/** Cases with the tensors they hold; dispose them after use. */
export interface CaseSet {
  cases: BenchCase[]
  dispose: () => void
}

/** Rows or columns of a result that are compared with float64. */
const sampled = 4

class Inputs {
  readonly #made: Tensor[] = []
  #stream = 0

  constructor(
    readonly device: Device,
    readonly dtype: ModelDType,
  ) {}

  /** Normal numbers, as the device holds them. */
  matrix(rows: number, columns: number, deviation = 1): { tensor: Tensor; values: Float32Array } {
    const values = new Float32Array(rows * columns)
    normalInto(values, deviation, 1, this.#stream++)
    if (this.dtype === 'bf16')
      for (let i = 0; i < values.length; i++) values[i] = roundToBf16(values[i]!)
    const tensor = own(fromArray(values, [rows, columns], this.dtype, this.device))
    this.#made.push(tensor)
    return { tensor, values }
  }

  integers(values: Int32Array): Tensor {
    const tensor = own(fromArray(values, [values.length], 'i32', this.device))
    this.#made.push(tensor)
    return tensor
  }

  dispose(): void {
    for (const tensor of this.#made) tensor.dispose()
  }
}

/** f32: rounding of long sums. bf16: one rounding of the result, and of what it was computed from. */
function boundOf(dtype: ModelDType): number {
  return dtype === 'f32' ? 1e-5 : 2e-2
}

/** The three products of each linear layer of a model, and of its head, for T tokens. */
export function gemmCases(
  model: BenchModel,
  T: number,
  device: Device,
  dtype: ModelDType,
): CaseSet {
  const inputs = new Inputs(device, dtype)
  const { hidden: C, ffn: F, heads, kvHeads, headDim: D } = model
  const layers: [name: string, K: number, N: number][] = [
    ['qkv', C, (heads + 2 * kvHeads) * D],
    ['out', heads * D, C],
    ['gate_up', C, 2 * F],
    ['down', F, C],
  ]
  const cases = layers.flatMap(([name, K, N]) => {
    const x = inputs.matrix(T, K)
    const w = inputs.matrix(N, K)
    const dy = inputs.matrix(T, N)
    const flops = 2 * T * K * N
    return [
      product(`${name} forward`, x, w, { M: T, N, K, transA: false, transB: true }, flops, dtype),
      product(
        `${name} dgrad`,
        dy,
        w,
        { M: T, N: K, K: N, transA: false, transB: false },
        flops,
        dtype,
      ),
      product(
        `${name} wgrad`,
        dy,
        x,
        { M: N, N: K, K: T, transA: true, transB: false },
        flops,
        'f32',
      ),
    ]
  })
  return { cases, dispose: () => inputs.dispose() }
}

interface Sizes {
  M: number
  N: number
  K: number
  transA: boolean
  transB: boolean
}

type Matrix = ReturnType<Inputs['matrix']>

function product(
  mode: string,
  a: Matrix,
  b: Matrix,
  { M, N, K, transA, transB }: Sizes,
  flops: number,
  dtype: ModelDType,
): BenchCase {
  const multiply = () => gemm(a.tensor, b.tensor, { transA, transB, dtype })
  return {
    kernel: 'gemm',
    mode,
    shape: `M=${M} N=${N} K=${K}`,
    flops,
    run: () => multiply().dispose(),
    bound: a.tensor.dtype === 'f32' ? 1e-5 : dtype === 'f32' ? 1e-5 : 2e-2,
    error: async () => {
      using c = multiply()
      const actual = await c.read()
      const at = (m: number, n: number) => {
        let sum = 0
        for (let k = 0; k < K; k++) {
          const left = a.values[transA ? k * M + m : m * K + k]!
          sum += left * b.values[transB ? n * K + k : k * N + n]!
        }
        return sum
      }
      const places = Array.from({ length: sampled * 16 }, (_, i) => {
        return [(i * 7919) % M, (i * 104729) % N] as const
      })
      return worst(places.map(([m, n]) => [actual[m * N + n]!, at(m, n)]))
    },
  }
}

/** Largest difference, relative to the largest true value. */
function worst(pairs: readonly (readonly [actual: number, truth: number])[]): number {
  const scale = Math.max(...pairs.map(([, truth]) => Math.abs(truth)))
  return Math.max(...pairs.map(([actual, truth]) => Math.abs(actual - truth))) / scale
}

/** Causal attention of one document of T tokens. */
export function attentionCases(
  model: BenchModel,
  T: number,
  device: Device,
  dtype: ModelDType,
): CaseSet {
  const { heads, kvHeads, headDim: D } = model
  const inputs = new Inputs(device, dtype)
  const width = heads + 2 * kvHeads
  const flat = inputs.matrix(T, width * D)
  const qkv = own(flat.tensor.reshape([T, width, D]))
  const dout = own(inputs.matrix(T, heads * D).tensor.reshape([T, heads, D]))
  const segments = {
    start: inputs.integers(Int32Array.of(0, T)),
    prefix: inputs.integers(Int32Array.of(-1)),
    positions: inputs.integers(Int32Array.from({ length: T }, (_, t) => t)),
  }
  const options = { heads, kvHeads, window: null }
  const forward = attention(qkv, segments, options)
  const [out, lse] = [own(forward.out), own(forward.lse)]
  const shape = `T=${T} Hq=${heads} Hkv=${kvHeads} D=${D}`
  const pairs = (T * T) / 2
  const truth = (h: number, t: number) => attend(flat.values, { h, t, heads, kvHeads, D })
  const error = async () => {
    const actual = await out.read()
    const places = Array.from(
      { length: sampled },
      (_, i) => [(i * 3) % heads, (i * 997) % T] as const,
    )
    return worst(
      places.flatMap(([h, t]) => {
        return truth(h, t).map((value, d) => [actual[(t * heads + h) * D + d]!, value] as const)
      }),
    )
  }
  const cases: BenchCase[] = [
    {
      kernel: 'attention',
      mode: 'forward',
      shape,
      flops: 4 * heads * D * pairs,
      bound: boundOf(dtype),
      error,
      run: () => {
        using _ = scope()
        attention(qkv, segments, options)
      },
    },
    {
      kernel: 'attention',
      mode: 'backward',
      shape,
      flops: 10 * heads * D * pairs,
      bound: boundOf(dtype),
      error, // of the forward that it starts from; its own gradients are the op tests' business
      run: () => attentionBackward(dout, qkv, out, lse, segments, options).dispose(),
    },
  ]
  const dispose = () => {
    for (const tensor of [qkv, dout, out, lse]) tensor.dispose()
    inputs.dispose()
  }
  return { cases, dispose }
}

/** Attention of one head of one token, in float64. */
function attend(
  qkv: Float32Array,
  at: { h: number; t: number; heads: number; kvHeads: number; D: number },
): number[] {
  const { h, t, heads, kvHeads, D } = at
  const width = (heads + 2 * kvHeads) * D
  const kv = Math.floor(h / (heads / kvHeads))
  const scores = Array.from({ length: t + 1 }, (_, j) => {
    let score = 0
    for (let d = 0; d < D; d++) {
      score += qkv[t * width + h * D + d]! * qkv[j * width + (heads + kv) * D + d]!
    }
    return score / Math.sqrt(D)
  })
  const max = Math.max(...scores)
  const weights = scores.map((score) => Math.exp(score - max))
  const total = weights.reduce((a, b) => a + b, 0)
  return Array.from({ length: D }, (_, d) => {
    const v = (j: number) => qkv[j * width + (heads + kvHeads + kv) * D + d]!
    return weights.reduce((sum, weight, j) => sum + weight * v(j), 0) / total
  })
}

/** The vocabulary head over N scored positions: forward, and forward with backward in one pass. */
export function linearLogpsCases(
  model: BenchModel,
  N: number,
  device: Device,
  dtype: ModelDType,
): CaseSet {
  const inputs = new Inputs(device, dtype)
  const { hidden: C, vocabulary: V } = model
  const hidden = inputs.matrix(N, C)
  const weight = inputs.matrix(V, C, 0.02)
  const targets = Int32Array.from({ length: N }, (_, n) => (n * 7919) % V)
  const target = inputs.integers(targets)
  const dlogps = own(fromArray(new Float32Array(N).fill(-1 / N), [N], 'f32', device))
  const dweight = own(fromArray(new Float32Array(V * C), [V, C], 'f32', device))
  const truth = (n: number) => {
    const logits = Float64Array.from({ length: V }, (_, v) => {
      let sum = 0
      for (let c = 0; c < C; c++) sum += hidden.values[n * C + c]! * weight.values[v * C + c]!
      return sum
    })
    const max = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
    return (
      logits[targets[n]!]! - max - Math.log(logits.reduce((sum, x) => sum + Math.exp(x - max), 0))
    )
  }
  const error = async () => {
    using _ = scope()
    const actual = await linearLogps(hidden.tensor, weight.tensor, target).logps.read()
    const places = Array.from({ length: sampled }, (_, i) => (i * 997) % N)
    return worst(places.map((n) => [actual[n]!, truth(n)]))
  }
  const shape = `N=${N} C=${C} V=${V}`
  const shared = { kernel: 'linear_logps', shape, error, bound: 1e-5 }
  const cases: BenchCase[] = [
    {
      ...shared,
      mode: 'forward',
      flops: 2 * N * C * V,
      run: () => {
        using _ = scope()
        linearLogps(hidden.tensor, weight.tensor, target)
      },
    },
    {
      ...shared,
      mode: 'one pass',
      flops: 6 * N * C * V,
      run: () => {
        using _ = scope()
        linearLogps(hidden.tensor, weight.tensor, target, { dlogps, dweight })
      },
    },
  ]
  const dispose = () => {
    dlogps.dispose()
    dweight.dispose()
    inputs.dispose()
  }
  return { cases, dispose }
}
