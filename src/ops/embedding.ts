import { type Check, integer, maxSize } from '../arguments.js'
import { native } from '../native/addon.js'
import { empty, type Tensor } from '../tensor/tensor.js'
import { checkArgs, floats } from './check.js'

const checkRows: Check<number> = integer(0, maxSize)

/**
 * Rows of a table: `out[t] = table[ids[t]]`. Also gathers the rows of any matrix.
 *
 * @param table `[V, C]`
 * @param ids `[T]` i32
 * @returns `[T, C]`
 * @throws at the next wait, if an id is not in `0 .. V − 1`
 */
export function embedding(table: Tensor, ids: Tensor): Tensor {
  const { T, V, C, device } = checkArgs<'T' | 'V' | 'C'>('embedding', {
    table: [table, floats, ['V', 'C']],
    ids: [ids, 'i32', ['T']],
  })
  const out = empty([T, C], table.dtype, device)
  native().embedding(table.handle, ids.handle, out.handle, T, V, C)
  return out
}

/**
 * Gradient of {@link embedding}: `dtable[ids[t]] += dout[t]`, in ascending t, so always the same bits.
 *
 * @param dout `[T, C]`
 * @param ids `[T]` i32
 * @param dtable `[V, C]` f32, accumulated
 */
export function embeddingBackward(dout: Tensor, ids: Tensor, dtable: Tensor): void {
  const { T, V, C } = checkArgs<'T' | 'V' | 'C'>('embeddingBackward', {
    dout: [dout, floats, ['T', 'C']],
    ids: [ids, 'i32', ['T']],
    dtable: [dtable, 'f32', ['V', 'C']],
  })
  native().embeddingBackward(dout.handle, ids.handle, dtable.handle, T, V, C)
}

/**
 * The transpose of gathering rows: `out[r] = Σ x[n]` over the n with `index[n] = r`, 0 where there is none.
 *
 * @param x `[N, C]`
 * @param index `[N]` i32, below `rows`
 * @returns `[rows, C]`
 */
export function scatterAddRows(x: Tensor, index: Tensor, rows: number): Tensor {
  const { N, C, device } = checkArgs<'N' | 'C'>('scatterAddRows', {
    x: [x, floats, ['N', 'C']],
    index: [index, 'i32', ['N']],
  })
  checkRows(rows, 'scatterAddRows: rows')
  const out = empty([rows, C], x.dtype, device)
  native().scatterAddRows(x.handle, index.handle, out.handle, N, rows, C)
  return out
}
