import { WestwindError } from '../errors.js'
import type { ModelConfig } from '../model/config.js'

/** What of a model decides its arithmetic; a `ModelConfig` is one. */
export type ModelShape = Pick<
  ModelConfig,
  | 'vocabSize'
  | 'hiddenSize'
  | 'intermediateSize'
  | 'layers'
  | 'heads'
  | 'kvHeads'
  | 'headDim'
  | 'slidingWindow'
>

/** What of a packed row decides its arithmetic; a `SegmentBatch` is one. */
export interface RowShape {
  /** `[S+1]` */
  segStart: ArrayLike<number>
  /** `[S]`, index of the segment seen as prefix, or -1 */
  segPrefix: ArrayLike<number>
  /** `[N]`; only its length counts: positions that go through the vocabulary head */
  scoredRows: ArrayLike<number>
}

/**
 * Useful floating-point operations of one forward pass over a packed row:
 *
 *     2 · T · (weights of all matrices but embedding and head)      a multiply and an add per weight and token
 *   + 2 · N · V · C                                                 the head, at the N scored positions only
 *   + 4 · layers · Hq · D · (visible query-key pairs)               q·k and p·v; n²/2 pairs for a document of n
 *
 * A prompt that two completions share counts once, as it is computed once. Norms, softmax, RoPE and the optimizer
 * count nothing, nor do padding and recomputation. Backward is twice the forward.
 */
export function forwardFlops(model: ModelShape, row: RowShape): number {
  const { hiddenSize: C, intermediateSize: F, heads, kvHeads, headDim: D } = model
  const perLayer = C * (heads + 2 * kvHeads) * D + heads * D * C + 3 * C * F
  const segments = row.segPrefix.length
  const tokens = row.segStart[segments]!
  let pairs = 0
  for (let s = 0; s < segments; s++) {
    const length = row.segStart[s + 1]! - row.segStart[s]!
    const prefix = row.segPrefix[s]!
    const start = prefix < 0 ? 0 : row.segStart[prefix + 1]! - row.segStart[prefix]!
    pairs +=
      visiblePairs(start + length, model.slidingWindow) - visiblePairs(start, model.slidingWindow)
  }
  return (
    2 * tokens * model.layers * perLayer +
    2 * row.scoredRows.length * model.vocabSize * C +
    4 * model.layers * heads * D * pairs
  )
}

/** Forward and backward: three times the forward. */
export function trainFlops(model: ModelShape, row: RowShape): number {
  return 3 * forwardFlops(model, row)
}

/** Query-key pairs of the first n tokens of a document under causal attention, half a token per diagonal entry. */
function visiblePairs(n: number, window: number | null): number {
  if (window === null || n <= window) return (n * n) / 2
  return (window * window) / 2 + window * (n - window)
}

/** Speed between two log lines. */
export class Throughput {
  readonly #peakFlops: number | undefined
  #seconds = 0
  #steps = 0
  #tokens = 0
  #pairs = 0
  #flops = 0

  /** @param peakFlops measured GEMM peak of the device in FLOP/s; without it there is no `mfu` */
  constructor(peakFlops?: number) {
    if (peakFlops !== undefined && !(peakFlops > 0))
      throw new WestwindError(
        'ERR_INVALID_ARG',
        `Throughput: peakFlops must be above 0, got ${peakFlops}`,
      )
    this.#peakFlops = peakFlops
  }

  /** One optimizer step: wall-clock seconds, input tokens as in `num_tokens`, useful operations, pairs (DPO). */
  addStep(step: { seconds: number; tokens: number; flops: number; pairs?: number }): void {
    this.#seconds += step.seconds
    this.#steps += 1
    this.#tokens += step.tokens
    this.#flops += step.flops
    this.#pairs += step.pairs ?? 0
  }

  /** `tokens_per_second`, `seconds_per_step`, and `pairs_per_second` and `mfu` where known; starts anew. */
  take(): Record<string, number> {
    if (this.#steps === 0)
      throw new WestwindError('ERR_INVALID_ARG', 'Throughput.take: no step since the last call')
    const record: Record<string, number> = {
      tokens_per_second: this.#tokens / this.#seconds,
      seconds_per_step: this.#seconds / this.#steps,
    }
    if (this.#pairs > 0) record.pairs_per_second = this.#pairs / this.#seconds
    if (this.#peakFlops !== undefined) record.mfu = this.#flops / this.#seconds / this.#peakFlops
    this.#seconds = this.#steps = this.#tokens = this.#pairs = this.#flops = 0
    return record
  }
}
