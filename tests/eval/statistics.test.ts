import { describe, expect, it } from 'vitest'
import { estimate, groupBy, metricOf, pooled } from '../../src/eval/statistics.js'
import { uniform } from '../support/random.js'

describe('estimate', () => {
  it('is the mean and the sample deviation over sqrt(n)', () => {
    expect(estimate([1, 0, 0, 1])).toEqual({ value: 0.5, stderr: Math.sqrt(1 / 3) / 2 })
  })

  it('of one value has no error', () => {
    expect(metricOf(estimate([3]))).toBe(3)
    expect(metricOf(estimate([3, 3]))).toEqual({ value: 3, stderr: 0 })
  })
})

describe('pooled', () => {
  const next = uniform(3)
  const groups = [7, 2, 30].map((n) => Array.from({ length: n }, next))
  const parts = groups.map((values) => ({ ...estimate(values), n: values.length }))

  it('has the mean of all values', () => {
    expect(pooled(parts).value).toBeCloseTo(estimate(groups.flat()).value, 14)
  })

  it('has the error of the deviations from the means of their groups', () => {
    const squares = groups.flatMap((values) => {
      const { value } = estimate(values)
      return values.map((x) => (x - value) ** 2)
    })
    const variance = squares.reduce((a, b) => a + b) / (39 - 3)
    expect(pooled(parts).stderr).toBeCloseTo(Math.sqrt(variance / 39), 14)
  })

  it('of one group is that group, and has no error where a group has none', () => {
    expect(pooled([parts[0]!]).stderr).toBeCloseTo(parts[0]!.stderr!, 14)
    expect(pooled([...parts, { value: 1, stderr: null, n: 1 }]).stderr).toBe(null)
  })
})

it('groupBy keeps the order of groups and of items', () => {
  expect([...groupBy([5, 2, 7, 4], (x) => x % 2)]).toEqual([
    [1, [5, 7]],
    [0, [2, 4]],
  ])
})
