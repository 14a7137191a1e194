import { WestwindError } from '../errors.js'
import type { SftExample } from './encode-sft.js'
import { type Items, items } from './items.js'

/** Examples a best-fit pass sees at a time: TRL packs inside `datasets.map`, whose batches are 1000 rows. */
const chunkSize = 1000

/** What is packed: by its lengths alone, so that tokens are read when a row is asked for. */
export interface Documents {
  examples: Items<SftExample>
  /** `[examples]` tokens of each one. */
  lengths: ArrayLike<number>
}

/** Examples that are at hand, as what is packed. */
export function documents(examples: readonly SftExample[]): Documents {
  return { examples, lengths: examples.map(({ ids }) => ids.length) }
}

/**
 * Packs documents into rows of at most `maxLength` tokens by best fit decreasing, as TRL 1.13 does (`bfd`): documents
 * never see each other. Each chunk of 1000 examples is packed on its own. Every document is cut to `maxLength`, empty
 * ones are dropped; longest first (equal lengths in file order), each goes into the row with the smallest space that
 * suffices, among equal spaces the row that got that space first, else into a new row.
 *
 * @returns rows in the order of their creation, each with its documents in the order of their insertion
 */
export function packBfd({ examples, lengths }: Documents, maxLength: number): Items<SftExample[]> {
  checkLength(maxLength)
  const cut = Int32Array.from(lengths, (n) => Math.min(n, maxLength))
  const rows: number[][] = []
  for (let start = 0; start < cut.length; start += chunkSize) {
    const chunk: number[] = []
    for (let i = start; i < Math.min(start + chunkSize, cut.length); i++) {
      if (cut[i]! > 0) chunk.push(i)
    }
    chunk.sort((a, b) => cut[b]! - cut[a]!) // stable
    for (const row of bestFit(chunk, cut, maxLength)) rows.push(row)
  }
  return items(rows.length, (i) => rows[i]!.map((at) => truncate(examples.at(at)!, maxLength)))
}

/** Rows of documents, each named by its index into `lengths`. */
function bestFit(order: readonly number[], lengths: Int32Array, maxLength: number): number[][] {
  const rows: number[][] = []
  const rowsBySpace = new Map<number, number[][]>() // queues; a key without rows is absent
  const spaces: number[] = [] // the keys, ascending
  for (const document of order) {
    const length = lengths[document]!
    const at = lowerBound(spaces, length)
    const space = spaces[at]
    let row: number[] = []
    if (space === undefined) {
      rows.push(row)
    } else {
      const queue = rowsBySpace.get(space)!
      row = queue.shift()!
      if (queue.length === 0) {
        rowsBySpace.delete(space)
        spaces.splice(at, 1)
      }
    }
    row.push(document)
    const left = (space ?? maxLength) - length
    if (left === 0) continue
    const queue = rowsBySpace.get(left)
    if (queue) queue.push(row)
    else {
      rowsBySpace.set(left, [row])
      spaces.splice(lowerBound(spaces, left), 0, left)
    }
  }
  return rows
}

/**
 * The packing of 2023 (`wrapped`): concatenates all documents and cuts the result every `maxLength` tokens; the last
 * row holds what remains. Each row is one document of its own, in which the original ones see each other and the first
 * token of each is predicted from the end of the one before.
 *
 * @param eosBetween id put after every document and scored, as TRL's ConstantLengthDataset did (`wrapped+eos`)
 * @returns rows of one document each, in file order
 */
export function packWrapped(
  { examples, lengths }: Documents,
  maxLength: number,
  options: { eosBetween?: number | undefined } = {},
): Items<SftExample[]> {
  checkLength(maxLength)
  const { eosBetween } = options
  const separator = eosBetween === undefined ? [] : [eosBetween]
  const starts = new Float64Array(examples.length + 1) // of each document in the stream
  for (let i = 0; i < examples.length; i++) {
    starts[i + 1] = starts[i]! + lengths[i]! + separator.length
  }
  const total = starts[examples.length]!
  return items(Math.ceil(total / maxLength), (row) => {
    const begin = row * maxLength
    const ids = new Int32Array(Math.min(maxLength, total - begin))
    const labels = new Int32Array(ids.length)
    const end = begin + ids.length
    for (let i = lowerBound(starts, begin + 1) - 1; i < examples.length && starts[i]! < end; i++) {
      const example = examples.at(i)!
      const from = Math.max(0, begin - starts[i]!)
      const at = Math.max(0, starts[i]! - begin)
      const to = from + ids.length - at
      ids.set(joined(example.ids, separator).subarray(from, to), at)
      labels.set(joined(example.labels, separator).subarray(from, to), at)
    }
    return [{ ids, labels }]
  })
}

function joined(tokens: Int32Array, end: readonly number[]): Int32Array {
  const all = new Int32Array(tokens.length + end.length)
  all.set(tokens)
  all.set(end, tokens.length)
  return all
}

function truncate(example: SftExample, maxLength: number): SftExample {
  if (example.ids.length <= maxLength) return example
  return {
    ids: example.ids.subarray(0, maxLength),
    labels: example.labels.subarray(0, maxLength),
    truncated: true,
  }
}

/** Index of the first element that is at least `value`. */
function lowerBound(ascending: ArrayLike<number>, value: number): number {
  let low = 0
  let high = ascending.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (ascending[middle]! < value) low = middle + 1
    else high = middle
  }
  return low
}

function checkLength(maxLength: number): void {
  if (Number.isSafeInteger(maxLength) && maxLength > 0) return
  throw new WestwindError(
    'ERR_INVALID_ARG',
    `packing: max_length must be a positive integer, got ${maxLength}`,
  )
}
