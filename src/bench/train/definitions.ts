import { WestwindError } from '../../errors.js'
import { quantile } from '../harness.js'
import type { BenchModel } from '../models.js'
import type { TrainBenchOptions, TrainBenchResult } from './options.js'

/**
 * Useful floating-point operations of a step: of every weight matrix but the embedding two per token and forward, the
 * head at `scored` positions only, causal attention 2·n²·H·D per layer and document of n tokens. Backward counts as
 * two forwards. A prompt of two completions counts twice, and nothing is added for padding or recomputation.
 *
 * @param lengths tokens of each document
 * @param passes forwards, backward counted as two
 */
export function usefulFlops(
  model: BenchModel,
  lengths: readonly number[],
  scored: number,
  passes: number,
): number {
  const { hidden, ffn, layers, heads, kvHeads, headDim, vocabulary } = model
  const perToken =
    layers *
    (hidden * (heads + 2 * kvHeads) * headDim + heads * headDim * hidden + 3 * hidden * ffn)
  const sum = (of: (n: number) => number) => lengths.reduce((total, n) => total + of(n), 0)
  const forward =
    2 * perToken * sum((n) => n) +
    2 * vocabulary * hidden * scored +
    layers * 2 * heads * headDim * sum((n) => n * n)
  return forward * passes
}

/** A step that was made. */
export interface StepTime {
  seconds: number
  /** Tokens that are no padding; of a pair both sequences, its prompt twice. */
  tokens: number
  flops: number
}

/**
 * Times `step` for each batch, the first `warmup` of them for nothing. A step ends when the device has done its work.
 *
 * @param step returns the loss, or undefined where there is none
 */
export async function timeSteps<B>(
  options: TrainBenchOptions,
  batches: readonly B[],
  describe: (batch: B) => { tokens: number; flops: number },
  step: (batch: B) => Promise<number | undefined>,
): Promise<{ times: StepTime[]; warmupSeconds: number; loss: number | undefined }> {
  const { device, warmup, signal } = options
  const times: StepTime[] = []
  let warmupSeconds = 0
  let loss: number | undefined
  for (const [i, batch] of batches.entries()) {
    if (signal?.aborted) throw new WestwindError('ERR_ABORTED', 'bench: stopped')
    const begin = performance.now()
    loss = await step(batch)
    await device.synchronize()
    const seconds = (performance.now() - begin) / 1000
    if (loss !== undefined && !Number.isFinite(loss)) {
      throw new WestwindError('ERR_DEVICE', `bench: the loss is ${loss}; a wrong step is not timed`)
    }
    if (i < warmup) warmupSeconds += seconds
    else times.push({ seconds, ...describe(batch) })
  }
  return { times, warmupSeconds, loss }
}

/** Rates are medians of each step's rate, for steps differ in their number of tokens. */
export function rates(times: readonly StepTime[]): TrainBenchResult {
  const median = (of: (time: StepTime) => number) => quantile(times.map(of), 0.5)
  const rate = ({ tokens, seconds }: StepTime) => tokens / seconds
  return {
    steps: times.length,
    s_per_step: median(({ seconds }) => seconds),
    s_per_step_min: Math.min(...times.map(({ seconds }) => seconds)),
    tokens_per_step: times.reduce((sum, { tokens }) => sum + tokens, 0) / times.length,
    tokens_per_s: median(rate),
    tokens_per_s_best: Math.max(...times.map(rate)),
    useful_tflops: median(({ flops, seconds }) => flops / seconds) / 1e12,
  }
}

/** Resident memory of the process, in MiB: the most so far. */
export function peakRss(): number {
  return process.resourceUsage().maxRSS / 1024
}

/** Resident memory of the process now, in MiB. */
export function currentRss(): number {
  return process.memoryUsage.rss() / 2 ** 20
}
