import { exact, type Round } from '../support/exactness.js'

type Numbers = ArrayLike<number>

/** `out[t] = table[ids[t]]`. */
export function embedding(
  table: Numbers,
  ids: Numbers,
  C: number,
  round: Round = exact,
): Float64Array {
  const out = new Float64Array(ids.length * C)
  for (let i = 0; i < out.length; i++) out[i] = round(table[ids[Math.floor(i / C)]! * C + (i % C)]!)
  return out
}

/** `out[index[n]] += x[n]`, from zero. */
export function scatterAddRows(
  x: Numbers,
  index: Numbers,
  rows: number,
  C: number,
  round: Round = exact,
): Float64Array {
  const out = new Float64Array(rows * C)
  for (let i = 0; i < x.length; i++) {
    const at = index[Math.floor(i / C)]! * C + (i % C)
    out[at] = out[at]! + round(x[i]!)
  }
  return out.map(round)
}
