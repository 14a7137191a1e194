import type { Metric } from './results.js'

/** A mean and its standard error; null where one value or none allows no estimate. */
export interface Estimate {
  value: number
  stderr: number | null
}

/** Mean of the values and the sample standard deviation over sqrt(n), as lm-evaluation-harness has it. */
export function estimate(values: readonly number[]): Estimate {
  const n = values.length
  const value = mean(values)
  if (n < 2) return { value, stderr: null }
  const squares = values.reduce((sum, x) => sum + (x - value) ** 2, 0)
  return { value, stderr: Math.sqrt(squares / (n - 1)) / Math.sqrt(n) }
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, x) => sum + x, 0) / values.length
}

/**
 * The mean over groups, weighted by their sizes, with the pooled standard error (the variance within the groups alone):
 * sqrt(Σ (n_g - 1) s_g² / (N - G) / N), where s_g² = stderr_g² n_g.
 */
export function pooled(groups: readonly (Estimate & { n: number })[]): Estimate {
  const total = groups.reduce((sum, { n }) => sum + n, 0)
  const value = groups.reduce((sum, group) => sum + group.value * group.n, 0) / total
  let within = 0
  for (const { stderr, n } of groups) {
    if (stderr === null) return { value, stderr: null }
    within += (n - 1) * stderr ** 2 * n
  }
  return { value, stderr: Math.sqrt(within / (total - groups.length) / total) }
}

/** Items by key, both in the order of their first appearance. */
export function groupBy<T, K>(items: Iterable<T>, key: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>()
  for (const item of items) {
    const group = groups.get(key(item))
    if (group) group.push(item)
    else groups.set(key(item), [item])
  }
  return groups
}

/** An estimate as results have it: the value alone where there is no standard error. */
export function metricOf({ value, stderr }: Estimate): Metric {
  return stderr === null ? value : { value, stderr }
}
