import type { Device } from '../device/device.js'
import { WestwindError } from '../errors.js'

/** What a case grows along, in a plot of several sizes. */
export interface Axis {
  name: string
  label: string
  value: number
}

/** One thing to time. */
export interface BenchCase {
  /** The op and the variant: `gemm`, `forward`. */
  kernel: string
  /** Who computes it, where it is not westwind. */
  provider?: string
  mode: string
  shape: string
  x: Axis
  /** Tokens of each document, where the op knows documents. */
  lengths?: readonly number[]
  /** Useful floating-point operations of one run; 0 where memory is the only limit. */
  flops: number
  /** Bytes that one run has to move: every input read once, every output written once. */
  bytes: number
  /** Enqueues one run and disposes what it makes. Runs of other turns may read other copies of the inputs. */
  run: (turn: number) => void
  /** Largest error of a sample of one run's results against float64, relative to the largest value. */
  error: () => Promise<number>
  /** What the error may be. */
  bound: number
}

export interface BenchResult {
  kernel: string
  provider: string
  mode: string
  shape: string
  x: Axis
  dtype: string
  error: number
  /** Milliseconds: median, and the 20th and 80th percentile. */
  ms: number
  ms20: number
  ms80: number
  gflops: number
  gbs: number
  /** Share of the roofline, see {@link ofRoofline}; null where the peak that counts is not known. */
  ofPeak: number | null
}

/** FLOP/s and bytes per second of a device. */
export interface Roofline {
  flops: number
  /** Not known for every device. */
  memory?: number | undefined
}

export interface BenchOptions {
  device: Device
  dtype: string
  /** Timed runs of each case; the cases take turns. */
  repetitions: number
  peaks: Roofline
  signal?: AbortSignal | undefined
  /** Told why a case of another provider is left out. */
  remark?: (text: string) => void
}

/** Time that a GPU is given between two looks at its clock, and the most runs for it: short runs are timed together. */
const leastMs = 1
const mostRuns = 20

/**
 * Checks every case, then times them in turns by the device's clock, so that a disturbance hits all alike.
 * On a GPU untimed runs go ahead of the timed ones: these are enqueued before it gets to them.
 *
 * @throws ERR_DEVICE where a result of ours is wrong: a wrong result is not timed
 */
export async function measure(
  given: readonly BenchCase[],
  options: BenchOptions,
): Promise<BenchResult[]> {
  const { device, dtype, repetitions, peaks, signal } = options
  const cases = await checked(given, options)
  const onGpu = device.name !== 'cpu'
  const timed: { runs: number; turn: number; times: number[] }[] = []
  for (const { each } of cases) {
    const warmUp = await device.time(() => each.run(0))
    const runs = onGpu ? Math.min(mostRuns, Math.ceil(leastMs / Math.max(warmUp, 1e-3))) : 1
    timed.push({ runs, turn: 1, times: [] })
  }
  for (let repetition = 0; repetition < repetitions; repetition++) {
    for (const [i, { each }] of cases.entries()) {
      if (signal?.aborted) throw new WestwindError('ERR_ABORTED', 'bench: stopped')
      const state = timed[i]!
      const enqueue = () => {
        for (let k = 0; k < state.runs; k++) each.run(state.turn++)
      }
      if (onGpu) enqueue()
      state.times.push((await device.time(enqueue)) / state.runs)
    }
  }
  return cases.map(({ each, error }, i) => {
    const { kernel, provider = 'westwind', mode, shape, x, flops, bytes } = each
    const [ms20, ms, ms80] = [0.2, 0.5, 0.8].map((q) => quantile(timed[i]!.times, q))
    const rates = { gflops: flops / ms! / 1e6, gbs: bytes / ms! / 1e6 }
    const ofPeak = ofRoofline(each, ms!, peaks)
    const times = { ms: ms!, ms20: ms20!, ms80: ms80! }
    return { kernel, provider, mode, shape, x, dtype, error, ...times, ...rates, ofPeak }
  })
}

/** The cases that are right, with their errors. */
async function checked(given: readonly BenchCase[], { remark }: BenchOptions) {
  const right: { each: BenchCase; error: number }[] = []
  for (const each of given) {
    try {
      right.push({ each, error: await check(each) })
    } catch (error) {
      if (each.provider === undefined) throw error
      remark?.(`${each.provider} is left out: ${error instanceof Error ? error.message : error}`)
    }
  }
  return right
}

/**
 * The error of a case.
 *
 * @throws ERR_DEVICE where it is more than the case allows
 */
export async function check(each: BenchCase): Promise<number> {
  const { kernel, mode, shape, error, bound } = each
  const measured = await error()
  if (measured <= bound) return measured
  throw new WestwindError(
    'ERR_DEVICE',
    `bench: ${kernel} ${mode} ${shape} is wrong: relative error ${measured.toExponential(1)}, at most ${bound} is right`,
  )
}

/**
 * Attained over min(peak FLOP/s, FLOPs per byte × peak bytes per second), said in times: the least time that
 * the peaks allow over the time it took. A peak that is not known does not bound.
 */
export function ofRoofline(
  { flops, bytes }: Pick<BenchCase, 'flops' | 'bytes'>,
  ms: number,
  peaks: Roofline,
): number | null {
  const memory = peaks.memory === undefined ? 0 : bytes / peaks.memory
  const least = Math.max(flops / peaks.flops, memory)
  return least === 0 ? null : (1000 * least) / ms
}

/** The value below which a share `q` of the values lies. */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!
}
