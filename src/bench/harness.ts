import type { Device } from '../device/device.js'
import { WestwindError } from '../errors.js'

/** One thing to time. */
export interface BenchCase {
  /** The op and the variant: `gemm`, `forward`. */
  kernel: string
  mode: string
  shape: string
  /** Tokens of each document, where the op knows documents. */
  lengths?: readonly number[]
  /** Useful floating-point operations of one run. */
  flops: number
  /** Enqueues one run and disposes what it makes. */
  run: () => void
  /** Largest error of a sample of one run's results against float64, relative to the largest value. */
  error: () => Promise<number>
  /** What the error may be. */
  bound: number
}

export interface BenchResult {
  kernel: string
  mode: string
  shape: string
  dtype: string
  error: number
  /** Milliseconds: median, and the 20th and 80th percentile. */
  ms: number
  ms20: number
  ms80: number
  gflops: number
  /** Share of the best GEMM of 1024×1024 matrices measured in the same run. */
  ofPeak: number
}

export interface BenchOptions {
  device: Device
  dtype: string
  /** Timed runs of each case; the cases take turns. */
  repetitions: number
  /** FLOP/s that `ofPeak` refers to. */
  peakFlops: number
  signal?: AbortSignal | undefined
}

/**
 * Checks every case, then times them in turns, so that a disturbance hits all alike.
 *
 * @throws ERR_DEVICE where a result is wrong: a wrong result is not timed
 */
export async function measure(
  cases: readonly BenchCase[],
  options: BenchOptions,
): Promise<BenchResult[]> {
  const { device, dtype, repetitions, peakFlops, signal } = options
  const errors: number[] = []
  for (const each of cases) errors.push(await check(each))
  const times = cases.map((): number[] => [])
  for (let repetition = -1; repetition < repetitions; repetition++) {
    for (const [i, { run }] of cases.entries()) {
      if (signal?.aborted) throw new WestwindError('ERR_ABORTED', 'bench: stopped')
      const ms = await milliseconds(run, device)
      if (repetition >= 0) times[i]!.push(ms) // the first is the warm-up
    }
  }
  return cases.map(({ kernel, mode, shape, flops }, i) => {
    const ms = quantile(times[i]!, 0.5)
    const gflops = flops / ms / 1e6
    const spread = { ms20: quantile(times[i]!, 0.2), ms80: quantile(times[i]!, 0.8) }
    const ofPeak = (gflops * 1e9) / peakFlops
    return { kernel, mode, shape, dtype, error: errors[i]!, ms, ...spread, gflops, ofPeak }
  })
}

/**
 * The error of a case.
 *
 * @throws ERR_DEVICE where it is more than the case allows
 */
export async function check({ kernel, mode, shape, error, bound }: BenchCase): Promise<number> {
  const measured = await error()
  if (measured <= bound) return measured
  throw new WestwindError(
    'ERR_DEVICE',
    `bench: ${kernel} ${mode} ${shape} is wrong: relative error ${measured.toExponential(1)}, at most ${bound} is right`,
  )
}

/** How long one run takes. */
export async function milliseconds(run: () => void, device: Device): Promise<number> {
  await device.synchronize()
  const begin = performance.now()
  run()
  await device.synchronize()
  return performance.now() - begin
}

/** The value below which a share `q` of the values lies. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!
}
