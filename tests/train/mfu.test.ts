import { describe, expect, it } from 'vitest'
import { forwardFlops, Throughput, trainFlops } from '../../src/train/mfu.js'

const mistral7b = {
  vocabSize: 32000,
  hiddenSize: 4096,
  intermediateSize: 14336,
  layers: 32,
  heads: 32,
  kvHeads: 8,
  headDim: 128,
  slidingWindow: 4096,
}
const small = { ...mistral7b, layers: 2, slidingWindow: 100 }

/** Documents of the given lengths, every position scored. */
const documents = (...lengths: number[]) => {
  const segStart = [0]
  for (const n of lengths) segStart.push(segStart.at(-1)! + n)
  return {
    segStart,
    segPrefix: lengths.map(() => -1),
    scoredRows: new Int32Array(segStart.at(-1)!),
  }
}

describe('trainFlops', () => {
  it.each([
    [1024, 43.5],
    [2048, 44.3],
  ])('Mistral-7B at %d tokens: %d GFLOP a token, as published', (n, gflop) => {
    expect(trainFlops(mistral7b, documents(n)) / n / 1e9).toBeCloseTo(gflop, 1)
  })
})

describe('forwardFlops', () => {
  it('adds over documents, and packing two saves their mutual attention', () => {
    const one = forwardFlops(small, documents(40))
    expect(forwardFlops(small, documents(40, 40))).toBe(2 * one)
    expect(forwardFlops(small, documents(80))).toBeGreaterThan(2 * one)
  })

  it('counts a shared prompt once, and what its completions see of it twice', () => {
    const shared = {
      segStart: [0, 30, 50, 60],
      segPrefix: [-1, 0, 0],
      scoredRows: new Int32Array(30),
    }
    const plain = { ...documents(50, 40), scoredRows: new Int32Array(30) }
    const prompt = { ...documents(30), scoredRows: [] }
    expect(forwardFlops(small, shared)).toBe(
      forwardFlops(small, plain) - forwardFlops(small, prompt),
    )
  })

  it('grows by the window, not by the length, beyond a sliding window', () => {
    const pairs = (n: number) =>
      forwardFlops(small, documents(n)) - forwardFlops({ ...small, slidingWindow: 1 }, documents(n))
    const full = (n: number) =>
      forwardFlops({ ...small, slidingWindow: null }, documents(n)) -
      forwardFlops({ ...small, slidingWindow: 1 }, documents(n))
    expect(pairs(100)).toBe(full(100))
    expect(pairs(400) - pairs(300)).toBe(pairs(300) - pairs(200))
    expect(pairs(300)).toBeLessThan(full(300))
  })

  it('charges the head for scored positions only', () => {
    const all = documents(64)
    const none = { ...all, scoredRows: [] }
    expect(forwardFlops(small, all) - forwardFlops(small, none)).toBe(2 * 64 * 32000 * 4096)
  })
})

describe('Throughput', () => {
  it('gives rates over all steps since the last call', () => {
    const throughput = new Throughput(1e9)
    throughput.addStep({ seconds: 1, tokens: 100, flops: 4e8, pairs: 4 })
    throughput.addStep({ seconds: 3, tokens: 500, flops: 8e8, pairs: 4 })
    expect(throughput.take()).toEqual({
      tokens_per_second: 150,
      seconds_per_step: 2,
      pairs_per_second: 2,
      mfu: 0.3,
    })
    expect(() => throughput.take()).toThrow('no step since the last call')
  })

  it('leaves out what is not known', () => {
    const throughput = new Throughput()
    throughput.addStep({ seconds: 2, tokens: 100, flops: 1 })
    expect(throughput.take()).toEqual({ tokens_per_second: 50, seconds_per_step: 2 })
  })
})
