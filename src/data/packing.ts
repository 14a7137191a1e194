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
  const rows: Rows = { first: [], next: new Int32Array(lengths.length).fill(-1) }
  for (let start = 0; start < lengths.length; start += chunkSize) {
    bestFit(longestFirst(lengths, start, maxLength), maxLength, rows)
  }
  return items(rows.first.length, (row) => {
    const documents: SftExample[] = []
    for (let at = rows.first[row]!; at >= 0; at = rows.next[at]!) {
      documents.push(truncate(examples.at(at)!, maxLength))
    }
    return documents
  })
}

/** Rows of documents as linked lists: a million documents make no million arrays. */
interface Rows {
  /** `[rows]` first document of each. */
  first: number[]
  /** `[documents]` the one after it in its row, -1 after the last. */
  next: Int32Array
}

/** The documents of a chunk that are not empty, as `[index, tokens]`, the longest first, equal ones in their order. */
function longestFirst(lengths: ArrayLike<number>, start: number, maxLength: number) {
  const count = Math.min(chunkSize, lengths.length - start)
  const keys = new Float64Array(count) // numbers that sort so: sorting by a comparison takes several times longer
  for (let i = 0; i < count; i++) {
    keys[i] = (maxLength - Math.min(lengths[start + i]!, maxLength)) * chunkSize + i
  }
  return Array.from(keys.sort(), (key): [number, number] => {
    const i = key % chunkSize
    return [start + i, maxLength - (key - i) / chunkSize]
  }).filter(([, tokens]) => tokens > 0)
}

/** Adds rows of these documents. A row that has space left is known by the last document in it. */
function bestFit(
  documents: readonly (readonly [number, number])[],
  maxLength: number,
  { first, next }: Rows,
): void {
  const lastBySpace = new Map<number, number[]>() // queues; a key without rows is absent
  const spaces: number[] = [] // the keys, ascending
  for (const [document, tokens] of documents) {
    const at = lowerBound(spaces, tokens)
    const space = spaces[at]
    if (space === undefined) {
      first.push(document)
    } else {
      const queue = lastBySpace.get(space)!
      next[queue.shift()!] = document
      if (queue.length === 0) {
        lastBySpace.delete(space)
        spaces.splice(at, 1)
      }
    }
    const left = (space ?? maxLength) - tokens
    if (left === 0) continue
    const queue = lastBySpace.get(left)
    if (queue) queue.push(document)
    else {
      lastBySpace.set(left, [document])
      spaces.splice(lowerBound(spaces, left), 0, left)
    }
  }
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
