import { WestwindError } from '../errors.js'
import type { SftExample } from './encode-sft.js'

/** Examples a best-fit pass sees at a time: TRL packs inside `datasets.map`, whose batches are 1000 rows. */
const chunkSize = 1000

/**
 * Packs documents into rows of at most `maxLength` tokens by best fit decreasing, as TRL 1.13 does (`bfd`): documents
 * never see each other. Each chunk of 1000 examples is packed on its own. Every document is cut to `maxLength`, empty
 * ones are dropped; longest first (equal lengths in file order), each goes into the row with the smallest space that
 * suffices, among equal spaces the row that got that space first, else into a new row.
 *
 * @returns rows in the order of their creation, each with its documents in the order of their insertion
 */
export function packBfd(examples: readonly SftExample[], maxLength: number): SftExample[][] {
  checkLength(maxLength)
  const rows: SftExample[][] = []
  for (let start = 0; start < examples.length; start += chunkSize) {
    const documents = examples
      .slice(start, start + chunkSize)
      .map((example) => truncate(example, maxLength))
      .filter((example) => example.ids.length > 0)
      .sort((a, b) => b.ids.length - a.ids.length) // stable
    rows.push(...bestFit(documents, maxLength))
  }
  return rows
}

function bestFit(documents: readonly SftExample[], maxLength: number): SftExample[][] {
  const rows: SftExample[][] = []
  const rowsBySpace = new Map<number, SftExample[][]>() // queues; a key without rows is absent
  const spaces: number[] = [] // the keys, ascending
  for (const document of documents) {
    const length = document.ids.length
    const at = lowerBound(spaces, length)
    const space = spaces[at]
    let row: SftExample[] = []
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
  examples: readonly SftExample[],
  maxLength: number,
  options: { eosBetween?: number | undefined } = {},
): SftExample[][] {
  checkLength(maxLength)
  const { eosBetween } = options
  const separator = eosBetween === undefined ? [] : [eosBetween]
  const total = examples.reduce((sum, { ids }) => sum + ids.length + separator.length, 0)
  const ids = new Int32Array(total)
  const labels = new Int32Array(total)
  let end = 0
  for (const example of examples) {
    ids.set(example.ids, end)
    labels.set(example.labels, end)
    end += example.ids.length
    ids.set(separator, end)
    labels.set(separator, end)
    end += separator.length
  }
  const rows: SftExample[][] = []
  for (let start = 0; start < total; start += maxLength) {
    const stop = start + maxLength
    rows.push([{ ids: ids.subarray(start, stop), labels: labels.subarray(start, stop) }])
  }
  return rows
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
function lowerBound(ascending: readonly number[], value: number): number {
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
