import { type Check, flag, integer } from '../arguments.js'
import { native } from '../native/addon.js'
import type { Tensor } from '../tensor/tensor.js'
import { check, checkArgs, floats } from './check.js'

const checkCount: Check<number> = integer(0)

/**
 * Rotary position embedding (arXiv:2104.09864, rotate-half pairing), in place on the first `heads`
 * heads of every row: q and k of a fused `qkv`. `inverse` rotates back, which is the backward.
 *
 * @param x `[T, H, D]`, D even
 * @param positions `[T]` i32
 * @param theta base of the frequencies `theta^(−2i/D)`
 */
export function rope(
  x: Tensor,
  positions: Tensor,
  heads: number,
  theta: number,
  inverse = false,
): void {
  const { T, H, D } = checkArgs<'T' | 'H' | 'D'>('rope', {
    x: [x, floats, ['T', 'H', 'D']],
    positions: [positions, 'i32', ['T']],
  })
  checkCount(heads, 'rope: heads')
  check('rope', heads <= H, `heads must be 0 to ${H}`, heads)
  check('rope', D % 2 === 0, 'D must be even', D)
  check('rope', Number.isFinite(theta) && theta > 0, 'theta must be positive', theta)
  flag(inverse, 'rope: inverse')
  native().rope(x.handle, positions.handle, T, heads, H, D, theta, inverse ? -1 : 1)
}
