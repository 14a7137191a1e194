import { WestwindError } from '../errors.js'
import { quantile } from './harness.js'

/** Times of one case in two programs, taken one right after the other, in milliseconds. */
export interface Pair {
  ours: number
  /** The peer's, by form: the ways to compute it that were tried. */
  peer: Readonly<Record<string, number>>
  /** Processors that other programs kept busy meanwhile. */
  others: number
}

export interface Comparison {
  /** The peer's fastest form, and its time over ours: above 1, ours is the faster. Median. */
  form: string
  ratio: number
  /** The 20th and 80th percentile of the ratio. */
  low: number
  high: number
  /** Median milliseconds. */
  ours: number
  peer: number
}

/** The pairs that count: the half that other programs disturbed least, at least three of them. */
export function quietPairs(pairs: readonly Pair[]): Pair[] {
  const count = Math.max(3, Math.ceil(pairs.length / 2))
  return [...pairs].sort((a, b) => a.others - b.others).slice(0, count)
}

/**
 * Ratio of two programs at one case. It is taken within each pair, since the speed of the machine drifts
 * from one pair to the next.
 *
 * @throws ERR_DATA where there is nothing to compare
 */
export function compare(pairs: readonly Pair[]): Comparison {
  const quiet = quietPairs(pairs)
  const times = (form: string) => quiet.map(({ peer }) => peer[form] ?? Number.NaN)
  const forms = Object.keys(quiet[0]?.peer ?? {})
  const medians = forms.map((form) => ({ form, peer: quantile(times(form), 0.5) }))
  const fastest = medians.sort((a, b) => a.peer - b.peer)[0]
  if (
    !fastest ||
    !quiet.every(({ ours }) => ours > 0) ||
    !forms.every((f) => times(f).every((t) => t > 0))
  ) {
    throw new WestwindError('ERR_DATA', 'bench: a pair lacks a time of one of the programs')
  }
  const ratios = quiet.map(({ ours, peer }) => peer[fastest.form]! / ours)
  return {
    ...fastest,
    ratio: quantile(ratios, 0.5),
    low: quantile(ratios, 0.2),
    high: quantile(ratios, 0.8),
    ours: quantile(
      quiet.map(({ ours }) => ours),
      0.5,
    ),
  }
}

export function markdownTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  return [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n')
}
