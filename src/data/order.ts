import { WestwindError } from '../errors.js'

/** `random` draws a new order for every epoch; `sequential` keeps the order of the file. */
export type SamplingStrategy = 'random' | 'sequential'

/**
 * Order in which an epoch visits `n` examples: `order[i]` is the index of the i-th one. A pure function of its
 * arguments, the same on every machine, so that a resumed run needs nothing but its step number.
 *
 * @param epoch 0-based
 * @returns `[n]` i32, a permutation of `0 … n-1`
 */
export function epochOrder(
  n: number,
  seed: number,
  epoch: number,
  strategy: SamplingStrategy = 'random',
): Int32Array {
  return strategy === 'sequential'
    ? Int32Array.from({ length: n }, (_, i) => i)
    : permutation(n, seed, epoch)
}

/**
 * Random permutation of `0 … n-1` (Fisher-Yates). The generator is westwind's own: it cannot repeat the shuffles
 * of numpy or torch, only its own.
 *
 * @param seed any safe integer
 * @param stream separates uses of one seed, e.g. the epoch
 */
export function permutation(n: number, seed: number, stream = 0): Int32Array {
  if (!Number.isSafeInteger(seed)) {
    throw new WestwindError('ERR_INVALID_ARG', `seed must be an integer, got ${seed}`)
  }
  const next = xoshiro128(seed, stream)
  const order = Int32Array.from({ length: n }, (_, i) => i)
  for (let i = n - 1; i > 0; i--) {
    // 53 random bits: the bias of the product is below n / 2^53.
    const j = Math.floor((((next() >>> 5) * 2 ** 26 + (next() >>> 6)) / 2 ** 53) * (i + 1))
    const swap = order[i]!
    order[i] = order[j]!
    order[j] = swap
  }
  return order
}

/** xoshiro128** (Blackman, Vigna 2018), 32 bits a call; splitmix32 spreads the seed over its state. */
function xoshiro128(seed: number, stream: number): () => number {
  let mix = 0
  const absorb = (word: number) => {
    mix = (mix ^ word) | 0
    return splitmix()
  }
  const splitmix = () => {
    mix = (mix + 0x9e3779b9) | 0
    let z = Math.imul(mix ^ (mix >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return (z ^ (z >>> 15)) >>> 0
  }
  // low and high half: seeds above 2^32 and negative ones count in full
  let a = absorb(seed | 0)
  let b = absorb(Math.floor(seed / 2 ** 32) | 0)
  let c = absorb(stream | 0)
  let d = splitmix() | 1 // the state is never all zero
  return () => {
    const x = Math.imul(b, 5)
    const result = Math.imul((x << 7) | (x >>> 25), 9) >>> 0
    const t = b << 9
    c ^= a
    d ^= b
    b ^= c
    a ^= d
    c ^= t
    d = (d << 11) | (d >>> 21)
    return result
  }
}
