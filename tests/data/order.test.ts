import { describe, expect, it } from 'vitest'
import { epochOrder, permutation } from '../../src/data/order.js'

describe('epochOrder', () => {
  it('is a permutation, the same for the same arguments, another for another seed or epoch', () => {
    const order = epochOrder(1000, 42, 0)
    expect([...order].sort((a, b) => a - b)).toEqual([...Array(1000).keys()])
    expect(epochOrder(1000, 42, 0)).toEqual(order)
    expect(epochOrder(1000, 42, 1)).not.toEqual(order)
    expect(epochOrder(1000, 43, 0)).not.toEqual(order)
    expect(epochOrder(1000, 42 + 2 ** 32, 0)).not.toEqual(order)
    expect(epochOrder(1000, -42, 0)).not.toEqual(order)
  })

  it('keeps its values from release to release, or a run could not be resumed', () => {
    expect([...epochOrder(8, 42, 0)]).toEqual([3, 7, 4, 2, 6, 5, 0, 1])
  })

  it('keeps the order of the file when sequential', () => {
    expect([...epochOrder(5, 42, 3, 'sequential')]).toEqual([0, 1, 2, 3, 4])
  })

  it('has no favourite place', () => {
    // 6 places, 6000 draws: an expected count of 1000 has a standard deviation of 29
    const counts = new Int32Array(6)
    for (let seed = 0; seed < 6000; seed++) counts[permutation(6, seed).indexOf(0)]!++
    for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(5 * 29)
  })

  it('takes n of 0 and 1, refuses a seed that is no integer', () => {
    expect([...epochOrder(0, 1, 0)]).toEqual([])
    expect([...epochOrder(1, 1, 0)]).toEqual([0])
    expect(() => epochOrder(3, 0.5, 0)).toThrow('seed must be an integer, got 0.5')
  })
})
