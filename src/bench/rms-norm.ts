import type { Device } from '../device/device.js'
import type { ModelDType } from '../model/model.js'
import { fill, rmsNorm, rmsNormBackward } from '../ops/index.js'
import { scope } from '../tensor/scope.js'
import { empty } from '../tensor/tensor.js'
import type { BenchCase } from './harness.js'
import { type BenchInput, bytesOf, copiesFor, normalInput, SampledError, spread } from './inputs.js'
import type { BenchModel } from './models.js'

const eps = 1e-5

/**
 * The norm of T rows, alone and with the residual that a transformer block adds before it. Bytes an element:
 * forward x and y, with a residual also that and the sum; backward dy, the sum and dx, with one also dresidual.
 * Tensors belong to the caller's scope.
 */
export function rmsNormCases(
  { hidden: C }: BenchModel,
  T: number,
  device: Device,
  dtype: ModelDType,
): BenchCase[] {
  const N = T * C
  const copies = copiesFor(device, bytesOf(dtype, N))
  const rows = (seed: number) => normalInput([T, C], dtype, device, { seed, copies })
  const [x, residual, dy] = [rows(1), rows(2), rows(3)]
  const weight = normalInput([C], dtype, device, { seed: 4 })
  const dweight = empty([C], 'f32', device)
  fill(dweight, 0)
  const { rstd } = rmsNorm(x.tensor, weight.tensor, eps)
  const truth = new Truth(T, C, x.values, weight.values)
  const shared = {
    kernel: 'rms_norm',
    shape: `T=${T} C=${C}`,
    x: { name: 'T', label: 'tokens', value: T },
    flops: 0,
    // f32 sums of a row; a result in bf16 is also rounded to 8 bits.
    bound: dtype === 'f32' ? 1e-5 : 2 ** -8,
  }
  const forward = (beside?: BenchInput): BenchCase => {
    const norm = (turn: number) => rmsNorm(x.at(turn), weight.tensor, eps, beside?.at(turn))
    return {
      ...shared,
      mode: beside ? 'forward residual' : 'forward',
      bytes: bytesOf(dtype, (beside ? 4 : 2) * N),
      run: inScope(norm),
      error: async () => {
        using _ = scope()
        const { y, sum } = norm(0)
        return truth.forwardError(await sum.read(), await y.read(), beside?.values)
      },
    }
  }
  const backward = (beside?: BenchInput): BenchCase => {
    const gradient = (turn: number) =>
      rmsNormBackward(
        ...([dy.at(turn), x.at(turn), weight.tensor, rstd, dweight] as const),
        beside?.at(turn),
      )
    return {
      ...shared,
      mode: beside ? 'backward residual' : 'backward',
      bytes: bytesOf(dtype, (beside ? 4 : 3) * N),
      run: inScope(gradient),
      error: async () => {
        using _ = scope()
        fill(dweight, 0)
        const dx = await gradient(0).read()
        return truth.backwardError(dx, await dweight.read(), dy.values, beside?.values)
      },
    }
  }
  return [forward(), forward(residual), backward(), backward(residual)]
}

function inScope(op: (turn: number) => unknown): (turn: number) => void {
  return (turn) => {
    using _ = scope()
    op(turn)
  }
}

/** Sampled rows and columns in float64. */
class Truth {
  constructor(
    readonly T: number,
    readonly C: number,
    readonly x: Float32Array,
    readonly weight: Float32Array,
  ) {}

  /** Of the sum, and of y given the sum. */
  forwardError(
    sum: ArrayLike<number>,
    y: ArrayLike<number>,
    residual: ArrayLike<number> | undefined,
  ): number {
    const [ofSum, ofY] = [new SampledError(), new SampledError()]
    for (const t of spread(this.T, 9)) {
      const rstd = this.#rstd(sum, t)
      for (let c = 0, i = t * this.C; c < this.C; c++, i++) {
        ofSum.add(sum[i]!, this.x[i]! + (residual?.[i] ?? 0))
        ofY.add(y[i]!, this.weight[c]! * sum[i]! * rstd)
      }
    }
    return Math.max(ofSum.relative, ofY.relative)
  }

  backwardError(
    dx: ArrayLike<number>,
    dweight: ArrayLike<number>,
    dy: ArrayLike<number>,
    dresidual: ArrayLike<number> | undefined,
  ): number {
    const [ofRows, ofWeight] = [new SampledError(), new SampledError()]
    for (const t of spread(this.T, 9)) {
      const rstd = this.#rstd(this.x, t)
      const g = (c: number) => dy[t * this.C + c]! * this.weight[c]!
      let dot = 0
      for (let c = 0; c < this.C; c++) dot += g(c) * this.x[t * this.C + c]!
      for (let c = 0, i = t * this.C; c < this.C; c++, i++) {
        const d = rstd * (g(c) - (this.x[i]! * rstd * rstd * dot) / this.C)
        ofRows.add(dx[i]!, d + (dresidual?.[i] ?? 0))
      }
    }
    const rstds = Float64Array.from({ length: this.T }, (_, t) => this.#rstd(this.x, t))
    for (const c of spread(this.C, 9)) {
      let sum = 0
      for (let t = 0, i = c; t < this.T; t++, i += this.C) sum += dy[i]! * this.x[i]! * rstds[t]!
      ofWeight.add(dweight[c]!, sum)
    }
    return Math.max(ofRows.relative, ofWeight.relative)
  }

  #rstd(sum: ArrayLike<number>, t: number): number {
    let squares = 0
    for (let c = 0; c < this.C; c++) squares += sum[t * this.C + c]! ** 2
    return 1 / Math.sqrt(squares / this.C + eps)
  }
}
