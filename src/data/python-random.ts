const size = 624
const middle = 397

/**
 * Python's `random.Random(seed)`: MT19937 (Matsumoto and Nishimura, 1998), seeded by `init_by_array` with the seed's
 * 32-bit digits. Same seed, same examples drawn as in Python 3.
 */
export class PythonRandom {
  readonly #state = new Uint32Array(size)
  #next = size

  /** @param seed an integer; its sign does not count, as in Python */
  constructor(seed: number) {
    const key: number[] = []
    for (let rest = Math.abs(seed); rest > 0; rest = Math.floor(rest / 2 ** 32)) {
      key.push(rest % 2 ** 32)
    }
    this.#seed(key.length === 0 ? [0] : key)
  }

  /** `k` of the items, without repeats, in the order Python's `random.sample` draws them. */
  sample<T>(items: readonly T[], k: number): T[] {
    const n = items.length
    if (k < 0 || k > n) throw new RangeError(`sample: ${k} of ${n}`)
    // Python keeps a list of what is left where that is smaller than a set of what was taken.
    const setSize = 21 + (k > 5 ? 4 ** Math.ceil(Math.log(k * 3) / Math.log(4)) : 0)
    if (n > setSize) {
      const taken = new Set<number>()
      while (taken.size < k) taken.add(this.below(n))
      return Array.from(taken, (i) => items[i]!)
    }
    const pool = [...items]
    return Array.from({ length: k }, (_, i) => {
      const j = this.below(n - i)
      const drawn = pool[j]!
      pool[j] = pool[n - i - 1]!
      return drawn
    })
  }

  /** An integer in [0, n), n at most 2^32: the first draw of as many bits as n has that is below n. */
  below(n: number): number {
    const bits = 32 - Math.clz32(n)
    for (;;) {
      const r = this.#uint32() >>> (32 - bits)
      if (r < n) return r
    }
  }

  #seed(key: readonly number[]): void {
    const s = this.#state
    s[0] = 19650218
    for (let i = 1; i < size; i++) s[i] = Math.imul(mixed(s[i - 1]!), 1812433253) + i
    let i = 1
    const step = (value: number) => {
      s[i] = value
      if (++i < size) return
      s[0] = s[size - 1]!
      i = 1
    }
    for (let k = 0; k < Math.max(size, key.length); k++) {
      const j = k % key.length
      step((s[i]! ^ Math.imul(mixed(s[i - 1]!), 1664525)) + key[j]! + j)
    }
    for (let k = 1; k < size; k++) step((s[i]! ^ Math.imul(mixed(s[i - 1]!), 1566083941)) - i)
    s[0] = 0x80000000
  }

  #uint32(): number {
    if (this.#next === size) this.#twist()
    let y = this.#state[this.#next++]!
    y ^= y >>> 11
    y ^= (y << 7) & 0x9d2c5680
    y ^= (y << 15) & 0xefc60000
    return (y ^ (y >>> 18)) >>> 0
  }

  #twist(): void {
    const s = this.#state
    for (let i = 0; i < size; i++) {
      const y = (s[i]! & 0x80000000) | (s[(i + 1) % size]! & 0x7fffffff)
      s[i] = s[(i + middle) % size]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0)
    }
    this.#next = 0
  }
}

function mixed(x: number): number {
  return x ^ (x >>> 30)
}
