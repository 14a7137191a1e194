import { exact, type Round } from '../support/exactness.js'

/** Rotates the pairs (i, i + D/2) of the first `heads` heads by `sign · position · theta^(−2i/D)`. */
export function rope(
  x: ArrayLike<number>,
  positions: ArrayLike<number>,
  shape: { heads: number; rowHeads: number; D: number; theta: number; sign: number },
  round: Round = exact,
): Float64Array {
  const { heads, rowHeads, D, theta, sign } = shape
  const out = Float64Array.from(x, round)
  for (let t = 0; t < positions.length; t++) {
    for (let head = 0; head < heads; head++) {
      for (let i = 0; i < D / 2; i++) {
        const angle = sign * positions[t]! * theta ** ((-2 * i) / D)
        const low = (t * rowHeads + head) * D + i
        const high = low + D / 2
        const [a, b] = [out[low]!, out[high]!]
        out[low] = round(a * Math.cos(angle) - b * Math.sin(angle))
        out[high] = round(b * Math.cos(angle) + a * Math.sin(angle))
      }
    }
  }
  return out
}
