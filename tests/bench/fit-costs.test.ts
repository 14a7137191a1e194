import { describe, expect, it } from 'vitest'
import { fitCosts } from '../../src/bench/fit-costs.js'

const sizes = [512, 1024, 2048, 4096, 8192, 16384]
const terms = sizes.map((T) => [1, T, T * T])

describe('fitCosts', () => {
  it('finds the coefficients of points that follow the formula, whatever their scale', () => {
    const exact = [0.02, 3e-4, 5e-9]
    const y = terms.map((row) => row.reduce((sum, x, k) => sum + x * exact[k]!, 0))
    const { coefficients, values, most } = fitCosts(terms, y)
    for (const [k, value] of exact.entries()) expect(coefficients[k]! / value).toBeCloseTo(1, 6)
    for (const [i, value] of y.entries()) expect(values[i]! / value).toBeCloseTo(1, 9)
    expect(most).toBeLessThan(1e-9)
  })

  it('leaves out a term that would be negative', () => {
    const { coefficients } = fitCosts(
      terms,
      sizes.map((T) => 3e-4 * T - 1e-9 * T * T),
    )
    expect(coefficients.every((c) => c >= 0)).toBe(true)
    expect(coefficients[2]).toBe(0)
    expect(coefficients[1]).toBeGreaterThan(2.8e-4)
  })

  it('says how far points are from the formula', () => {
    const { mean, most } = fitCosts(
      [[1], [1]],
      [1, 1.1], // relative errors r1² + r2² are least at 1.0498
    )
    expect(most).toBeCloseTo(0.0498, 3)
    expect(mean).toBeCloseTo((0.0498 + 0.0457) / 2, 3)
  })

  it('refuses points that do not tell terms apart', () => {
    expect(() =>
      fitCosts(
        [
          [1, 2],
          [2, 4],
        ],
        [1, 2],
      ),
    ).toThrow('do not tell the terms')
  })
})
