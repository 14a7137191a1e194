import { z } from 'zod'
import type { PairExample } from './encode-pair.js'
import type { SftExample } from './encode-sft.js'
import type { Items } from './items.js'

/** Lengths in tokens: mean, smallest, quantiles (nearest rank), largest. */
export interface LengthStatistics {
  mean: number
  min: number
  p50: number
  p90: number
  p99: number
  max: number
}

/** What a prepared data set is made of. */
export interface DataStatistics {
  /** rows read */
  rows: number
  /** rows kept */
  examples: number
  /** tokens of the examples; a pair's prompt counts once */
  tokens: number
  /** tokens that the loss counts */
  scoredTokens: number
  /** rows not kept, by reason */
  dropped: Record<string, number>
  /** examples cut to the maximum length */
  truncated: number
  /** share of examples whose loss includes EOS (of pairs: share of completions); undefined without a tokenizer */
  eosInLoss?: number
  /** of `document`, or of `prompt`, `chosen` and `rejected` */
  lengths: Record<string, LengthStatistics>
}

const numbers = z.record(z.string(), z.number())

/** Of statistics that come from a file. */
export const statisticsSchema: z.ZodType<DataStatistics> = z.object({
  ...{ rows: z.number(), examples: z.number(), tokens: z.number(), scoredTokens: z.number() },
  dropped: numbers,
  truncated: z.number(),
  eosInLoss: z.number().exactOptional(),
  lengths: z.record(
    z.string(),
    z.object({
      ...{ mean: z.number(), min: z.number(), p50: z.number() },
      ...{ p90: z.number(), p99: z.number(), max: z.number() },
    }),
  ),
})

export type Counts = { rows: number; dropped: Record<string, number>; eosId?: number | undefined }

/** Statistics of SFT examples. A label at position 0 does not count as scored: nothing predicts it. */
export function sftStatistics(examples: Items<SftExample>, counts: Counts): DataStatistics {
  const document = new Float64Array(examples.length)
  let scoredTokens = 0
  let withEos = 0
  let truncated = 0
  for (let i = 0; i < examples.length; i++) {
    const example = examples.at(i)!
    const { ids, labels } = example
    document[i] = ids.length
    if (example.truncated) truncated++
    let eos = false
    for (let t = 1; t < labels.length; t++) {
      const label = labels[t]!
      if (label === -100) continue
      scoredTokens++
      if (label === counts.eosId) eos = true
    }
    if (eos) withEos++
  }
  return {
    ...{ rows: counts.rows, examples: examples.length, dropped: counts.dropped, truncated },
    tokens: sum(document),
    scoredTokens,
    ...(counts.eosId !== undefined && { eosInLoss: withEos / examples.length }),
    lengths: { document: lengthStatistics(document) },
  }
}

/** Statistics of preference pairs. */
export function pairStatistics(examples: Items<PairExample>, counts: Counts): DataStatistics {
  const { eosId } = counts
  const n = examples.length
  const prompt = new Float64Array(n)
  const chosen = new Float64Array(n)
  const rejected = new Float64Array(n)
  let withEos = 0
  let truncated = 0
  for (let i = 0; i < n; i++) {
    const example = examples.at(i)!
    prompt[i] = example.promptIds.length
    chosen[i] = example.chosenIds.length
    rejected[i] = example.rejectedIds.length
    if (example.truncated) truncated++
    if (eosId === undefined) continue
    for (const ids of [example.chosenIds, example.rejectedIds]) if (ids.includes(eosId)) withEos++
  }
  const scoredTokens = sum(chosen) + sum(rejected)
  return {
    ...{ rows: counts.rows, examples: n, dropped: counts.dropped, truncated },
    tokens: sum(prompt) + scoredTokens,
    scoredTokens,
    ...(eosId !== undefined && { eosInLoss: withEos / (2 * n) }),
    lengths: {
      prompt: lengthStatistics(prompt),
      chosen: lengthStatistics(chosen),
      rejected: lengthStatistics(rejected),
    },
  }
}

/** Of at least one length. */
export function lengthStatistics(lengths: ArrayLike<number>): LengthStatistics {
  const sorted = Float64Array.from(lengths).sort()
  const quantile = (q: number) => sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)]!
  return {
    mean: sum(sorted) / sorted.length,
    min: quantile(0),
    p50: quantile(0.5),
    p90: quantile(0.9),
    p99: quantile(0.99),
    max: quantile(1),
  }
}

function sum(values: Float64Array): number {
  return values.reduce((a, b) => a + b, 0)
}
