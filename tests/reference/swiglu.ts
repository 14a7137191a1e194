import { exact, type Round } from '../support/exactness.js'

/** `silu(gate) · up` of rows `[gate (F), up (F)]`. */
export function swiglu(gateUp: ArrayLike<number>, F: number, round: Round = exact): Float64Array {
  const out = new Float64Array(gateUp.length / 2)
  for (let i = 0; i < out.length; i++) {
    const at = Math.floor(i / F) * 2 * F + (i % F)
    const gate = round(gateUp[at]!)
    out[i] = round((gate / (1 + Math.exp(-gate))) * round(gateUp[at + F]!))
  }
  return out
}

/** Gradient of Σ dout·out with respect to gateUp. */
export function swigluBackward(
  dout: ArrayLike<number>,
  gateUp: ArrayLike<number>,
  F: number,
  round: Round = exact,
): Float64Array {
  const out = new Float64Array(gateUp.length)
  for (let i = 0; i < dout.length; i++) {
    const at = Math.floor(i / F) * 2 * F + (i % F)
    const d = round(dout[i]!)
    const gate = round(gateUp[at]!)
    const up = round(gateUp[at + F]!)
    const sigmoid = 1 / (1 + Math.exp(-gate))
    out[at] = round(d * up * sigmoid * (1 + gate / (1 + Math.exp(gate))))
    out[at + F] = round(d * gate * sigmoid)
  }
  return out
}
