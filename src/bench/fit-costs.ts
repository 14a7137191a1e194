import { WestwindError } from '../errors.js'

export interface Fit {
  /** One for each term, none below zero. */
  coefficients: number[]
  /** What the formula gives for each point. */
  values: number[]
  /** How far the points are from the formula, relative to them: the mean and the most. */
  mean: number
  most: number
}

/**
 * Fits `y = Σ coefficient · term` by least squares of the relative errors, so that small and large points count alike.
 * Costs are not negative: a term that would be is left out, the most negative first.
 *
 * @param terms `[points][terms]`
 * @param y `[points]`, positive
 * @throws ERR_DATA where the points do not tell the terms apart
 */
export function fitCosts(terms: readonly (readonly number[])[], y: readonly number[]): Fit {
  const width = terms[0]?.length ?? 0
  let kept = Array.from({ length: width }, (_, k) => k)
  const coefficients = new Array<number>(width).fill(0)
  while (kept.length > 0) {
    const rows = terms.map((row, i) => kept.map((k) => row[k]! / y[i]!))
    const solved = leastSquares(rows)
    const lowest = solved.indexOf(Math.min(...solved))
    if (solved[lowest]! < 0) {
      kept = kept.filter((_, at) => at !== lowest)
      continue
    }
    for (const [at, k] of kept.entries()) coefficients[k] = solved[at]!
    break
  }
  const values = terms.map((row) => row.reduce((sum, x, k) => sum + x * coefficients[k]!, 0))
  const errors = values.map((value, i) => Math.abs(value / y[i]! - 1))
  return {
    ...{ coefficients, values, most: Math.max(...errors) },
    mean: errors.reduce((a, b) => a + b, 0) / errors.length,
  }
}

/** `x` of least `Σ (row · x − 1)²`, by the normal equations with columns scaled to one. */
function leastSquares(rows: readonly (readonly number[])[]): number[] {
  const n = rows[0]?.length ?? 0
  const norms = Array.from({ length: n }, (_, k) => Math.hypot(...rows.map((row) => row[k]!)))
  const at = (row: readonly number[], k: number) => row[k]! / norms[k]!
  const sum = (of: (row: readonly number[]) => number) => rows.reduce((s, row) => s + of(row), 0)
  const matrix = norms.map((_, i) => [
    ...norms.map((_, j) => sum((row) => at(row, i) * at(row, j))),
    sum((row) => at(row, i)),
  ])
  for (let k = 0; k < n; k++) {
    const pivots = matrix.map((row, i) => (i < k ? 0 : Math.abs(row[k]!)))
    const best = pivots.indexOf(Math.max(...pivots))
    if (!(pivots[best]! > 1e-12)) {
      throw new WestwindError('ERR_DATA', 'bench: the points do not tell the terms of a fit apart')
    }
    const pivot = matrix[best]!
    matrix[best] = matrix[k]!
    matrix[k] = pivot
    for (const [i, row] of matrix.entries()) {
      if (i === k) continue
      const factor = row[k]! / pivot[k]!
      for (let j = k; j <= n; j++) row[j]! -= factor * pivot[j]!
    }
  }
  return matrix.map((row, k) => row[n]! / row[k]! / norms[k]!)
}
