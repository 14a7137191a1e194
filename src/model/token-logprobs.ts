import { sample, tokenLogps } from '../ops/index.js'
import { keep, scope } from '../tensor/scope.js'
import { fromArray, type Tensor } from '../tensor/tensor.js'

/** How likely a token was, in nats, and what else was likely. */
export interface TokenLogprob {
  id: number
  logprob: number
  /** The likeliest tokens, the first of equals first. */
  top: { id: number; logprob: number }[]
}

/** A token whose log-prob is asked for, with so many alternatives. */
export interface AskedLogprob {
  id: number
  top: number
}

/** Logits looked at by the host at a time, 1 to 2 ms of work. */
const kHostLogits = 1 << 19

/**
 * Log-probs of a token after each row of logits, and the likeliest others. All of them are made by
 * `tokenLogps`: that of a token is the same float wherever it is told.
 *
 * @param logits `[n, V]` f32
 * @param asked one for each row
 */
export async function tokenLogprobs(
  logits: Tensor,
  asked: readonly AskedLogprob[],
): Promise<TokenLogprob[]> {
  using _ = scope()
  const put = (ids: number[]) => fromArray(ids, [ids.length], 'i32', logits.device)
  const most = asked.reduce((most, { top }) => Math.max(most, top), 0)
  const best =
    most === 0 ? [] : most === 1 ? [greedy(logits)] : (await likeliest(logits, most)).map(put)
  const told = [put(asked.map(({ id }) => id)), ...best].map(async (ids) => {
    const { logps } = tokenLogps(logits, ids)
    return { ids: await ids.read(), logps: await logps.read() }
  })
  const [own, ...others] = await Promise.all(told)
  return asked.map(({ id, top }, row) => {
    const alternatives = others.slice(0, top).map(({ ids, logps }) => {
      return { id: ids[row]!, logprob: logps[row]! }
    })
    return { id, logprob: own!.logps[row]!, top: alternatives }
  })
}

/** `[n]` i32: the most likely token of each row, the first of equals. */
function greedy(logits: Tensor): Tensor {
  using _ = scope()
  const n = logits.shape[0]!
  const unused = fromArray(new Float32Array(n), [n], 'f32', logits.device)
  return keep(sample(logits, unused, { temperature: 0, topK: 0, topP: 1 }))
}

/** The ids of the `count` largest logits of each row: first those of the largest, one for each row. */
async function likeliest(logits: Tensor, count: number): Promise<number[][]> {
  const [n, V] = [logits.shape[0]!, logits.shape[1]!]
  const columns = Array.from({ length: Math.min(count, V) }, (): number[] => [])
  const step = Math.max(1, Math.floor(kHostLogits / V))
  for (let first = 0; first < n; first += step) {
    using part = logits.rows(first, Math.min(step, n - first))
    const values = await part.read()
    for (let at = 0; at < values.length; at += V) {
      const ids = largest(values.subarray(at, at + V), columns.length)
      for (const [j, id] of ids.entries()) columns[j]!.push(id)
    }
  }
  return columns
}

/** Indices of the `count` largest values, the first of equals first. */
function largest(values: ArrayLike<number>, count: number): number[] {
  const ids: number[] = []
  for (let i = 0; i < values.length; i++) {
    if (ids.length === count && !(values[i]! > values[ids[count - 1]!]!)) continue
    let at = ids.length
    while (at > 0 && values[i]! > values[ids[at - 1]!]!) at--
    ids.splice(at, 0, i)
    if (ids.length > count) ids.pop()
  }
  return ids
}
