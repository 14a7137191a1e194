/** Rounds the result of every operation: the identity for the float64 truth, Math.fround for f32 arithmetic. */
type Arithmetic = (x: number) => number

export interface State {
  w: Float64Array
  m: Float64Array
  v: Float64Array
}

interface Options {
  lr: number
  beta1: number
  beta2: number
  eps: number
  weightDecay: number
  gradScale: number
}

/** torch.optim.AdamW, one update, operation by operation. `step` counts from 1. */
export function adamw(s: State, grad: ArrayLike<number>, o: Options, step: number, f: Arithmetic) {
  const stepSize = f(o.lr / (1 - o.beta1 ** step))
  const rootBias2 = f(Math.sqrt(1 - o.beta2 ** step))
  for (let i = 0; i < s.w.length; i++) {
    const g = f(grad[i]! * f(o.gradScale))
    const w = f(s.w[i]! * f(1 - o.lr * o.weightDecay))
    const m = f(s.m[i]! + f(f(g - s.m[i]!) * f(1 - o.beta1)))
    const v = f(f(s.v[i]! * f(o.beta2)) + f(f(f(1 - o.beta2) * g) * g))
    s.m[i] = m
    s.v[i] = v
    s.w[i] = f(w - f(f(stepSize * m) / f(f(f(Math.sqrt(v)) / rootBias2) + f(o.eps))))
  }
}

/** torch.optim.RMSprop without momentum, not centred; `beta2` is its alpha. */
export function rmsprop(s: State, grad: ArrayLike<number>, o: Options, f: Arithmetic) {
  for (let i = 0; i < s.w.length; i++) {
    const g = f(f(grad[i]! * f(o.gradScale)) + f(f(o.weightDecay) * s.w[i]!))
    const v = f(f(s.v[i]! * f(o.beta2)) + f(f(f(1 - o.beta2) * g) * g))
    s.v[i] = v
    s.w[i] = f(s.w[i]! - f(f(f(o.lr) * g) / f(f(Math.sqrt(v)) + f(o.eps))))
  }
}
