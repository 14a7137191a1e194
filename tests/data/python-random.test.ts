import { describe, expect, it } from 'vitest'
import { PythonRandom } from '../../src/data/python-random.js'

function draws(seed: number, size: number, count: number): number[] {
  const random = new PythonRandom(seed)
  return Array.from({ length: count }, () => random.below(size))
}

// [random.choice(range(size)) for _ in range(12)] after random.seed(seed), from CPython 3.11
it.each([
  [42, 2, [0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0]],
  [42, 3, [2, 0, 0, 2, 1, 0, 0, 0, 2, 0, 2, 2]],
  [42, 4, [0, 0, 2, 1, 1, 1, 0, 0, 3, 0, 0, 0]],
  [42, 5, [0, 0, 2, 1, 1, 1, 0, 4, 0, 4, 3, 0]],
  [42, 7, [5, 0, 0, 5, 2, 1, 1, 1, 5, 0, 5, 5]],
  [42, 8, [1, 0, 4, 3, 3, 2, 1, 1, 6, 0, 0, 1]],
  [0, 4, [3, 3, 0, 2, 3, 3, 2, 3, 2, 1, 1, 2]],
  [4294967295, 1000, [650, 634, 208, 220, 621, 534, 298, 617, 348, 984, 390, 688]],
])('seed %i, %i items: draws as CPython does', (seed, size, expected) => {
  expect(draws(seed, size, expected.length)).toEqual(expected)
})

it('draws as CPython does after the state was renewed several times', () => {
  expect(draws(7, 10, 5000).slice(4990)).toEqual([1, 9, 1, 6, 4, 1, 1, 1, 8, 0])
})

const range = (n: number) => Array.from({ length: n }, (_, i) => i)

describe('PythonRandom', () => {
  // random.Random(seed): sample(range(1000), 5), sample(range(30), 6), sample(range(7), 7), sample(range(10**5), 26)[-3:]
  const drawn: [number, number[], number[], number[], number[]][] = [
    [
      1234,
      [989, 796, 451, 119, 7],
      [2, 25, 18, 1, 21, 22],
      [0, 6, 2, 1, 5, 4, 3],
      [67507, 75891, 6024],
    ],
    [
      0,
      [864, 394, 776, 911, 430],
      [1, 8, 16, 15, 12, 9],
      [3, 2, 4, 1, 5, 0, 6],
      [26801, 72420, 62522],
    ],
    [
      42,
      [654, 114, 25, 759, 281],
      [7, 29, 4, 23, 3, 21],
      [5, 4, 0, 3, 6, 2, 1],
      [20379, 28221, 44118],
    ],
    [
      2 ** 40 + 7,
      [628, 765, 834, 960, 967],
      [20, 18, 22, 15, 8, 19],
      [1, 4, 3, 2, 6, 5, 0],
      [74112, 19775, 6878],
    ],
  ]

  it.each(drawn)(
    'seed %d: draws what Python draws, one sample after another',
    (seed, a, b, c, d) => {
      const random = new PythonRandom(seed)
      expect(random.sample(range(1000), 5)).toEqual(a)
      expect(random.sample(range(30), 6)).toEqual(b)
      expect(random.sample(range(7), 7)).toEqual(c)
      expect(random.sample(range(100_000), 26).slice(-3)).toEqual(d)
    },
  )

  it('makes the 32-bit numbers of MT19937, also behind the first 624', () => {
    const random = new PythonRandom(1234)
    const numbers = range(1300).map(() => random.below(2 ** 32 - 1))
    expect([0, 623, 624, 1299].map((i) => numbers[i])).toEqual([
      4150886329, 152069139, 3715477445, 2861468013,
    ])
  })

  it('a sample has distinct items of the list, and no more than there are', () => {
    const random = new PythonRandom(7)
    for (const [n, k] of [
      [1, 1],
      [21, 5],
      [22, 5],
      [300, 40],
      [90, 90],
    ] as const) {
      const sample = random.sample(range(n), k)
      expect(new Set(sample).size).toBe(k)
      expect(sample.every((x) => x >= 0 && x < n)).toBe(true)
    }
    expect(() => random.sample([1], 2)).toThrow('2 of 1')
  })
})
