import type { PairExample } from './encode-pair.js'
import type { SftExample } from './encode-sft.js'

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

type Counts = { rows: number; dropped: Record<string, number>; eosId?: number | undefined }

/** Statistics of SFT examples. A label at position 0 does not count as scored: nothing predicts it. */
export function sftStatistics(examples: readonly SftExample[], counts: Counts): DataStatistics {
  let scoredTokens = 0
  let withEos = 0
  for (const { labels } of examples) {
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
    ...common(examples, counts),
    tokens: examples.reduce((sum, { ids }) => sum + ids.length, 0),
    scoredTokens,
    ...(counts.eosId !== undefined && { eosInLoss: withEos / examples.length }),
    lengths: { document: lengthStatistics(examples.map(({ ids }) => ids.length)) },
  }
}

/** Statistics of preference pairs. */
export function pairStatistics(examples: readonly PairExample[], counts: Counts): DataStatistics {
  const { eosId } = counts
  const of = (part: 'promptIds' | 'chosenIds' | 'rejectedIds') =>
    examples.map((example) => example[part].length)
  const sum = (lengths: readonly number[]) => lengths.reduce((a, b) => a + b, 0)
  const lengths = { prompt: of('promptIds'), chosen: of('chosenIds'), rejected: of('rejectedIds') }
  const scoredTokens = sum(lengths.chosen) + sum(lengths.rejected)
  const completions = examples.flatMap(({ chosenIds, rejectedIds }) => [chosenIds, rejectedIds])
  return {
    ...common(examples, counts),
    tokens: sum(lengths.prompt) + scoredTokens,
    scoredTokens,
    ...(eosId !== undefined && {
      eosInLoss: completions.filter((ids) => ids.includes(eosId)).length / completions.length,
    }),
    lengths: {
      prompt: lengthStatistics(lengths.prompt),
      chosen: lengthStatistics(lengths.chosen),
      rejected: lengthStatistics(lengths.rejected),
    },
  }
}

function common(examples: readonly { truncated?: boolean }[], { rows, dropped }: Counts) {
  const truncated = examples.filter((example) => example.truncated).length
  return { rows, examples: examples.length, dropped, truncated }
}

/** Of at least one length. */
export function lengthStatistics(lengths: readonly number[]): LengthStatistics {
  const sorted = Float64Array.from(lengths).sort()
  const quantile = (q: number) => sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)]!
  return {
    mean: lengths.reduce((a, b) => a + b, 0) / lengths.length,
    min: quantile(0),
    p50: quantile(0.5),
    p90: quantile(0.9),
    p99: quantile(0.99),
    max: quantile(1),
  }
}
