import { native } from '../native/addon.js'
import { checkTensor, empty, type Tensor } from '../tensor/tensor.js'
import { check, checkArgs, floats } from './check.js'

/**
 * `silu(gate) · up` (arXiv:2002.05202).
 *
 * @param gateUp `[T, 2F]`: gate in the first F columns, up in the last F
 * @returns `[T, F]`
 */
export function swiglu(gateUp: Tensor): Tensor {
  const { T, W, device } = checkArgs<'T' | 'W'>('swiglu', { gateUp: [gateUp, floats, ['T', 'W']] })
  check('swiglu', W % 2 === 0, 'gateUp must have an even number of columns', W)
  const out = empty([T, W / 2], gateUp.dtype, device)
  native().swiglu(gateUp.handle, out.handle, T, W / 2)
  return out
}

/**
 * Gradient of {@link swiglu}.
 *
 * @param dout `[T, F]`
 * @param gateUp `[T, 2F]` as in forward
 * @returns `[T, 2F]`
 */
export function swigluBackward(dout: Tensor, gateUp: Tensor): Tensor {
  checkTensor(dout, 'swigluBackward: dout')
  const { T, F, device } = checkArgs<'T' | 'F'>('swigluBackward', {
    dout: [dout, floats, ['T', 'F']],
    gateUp: [gateUp, 'like dout', ['T', (dout.shape[1] ?? 0) * 2]],
  })
  const dgateUp = empty([T, 2 * F], dout.dtype, device)
  native().swigluBackward(dout.handle, gateUp.handle, dgateUp.handle, T, F)
  return dgateUp
}
