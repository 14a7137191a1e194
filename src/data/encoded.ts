import type { EncodedChunk } from './encode-task.js'
import type { DataStatistics } from './statistics.js'

/** Examples as numbers: where each comes from and how long it is, at hand; its tokens, wherever they are. */
export interface Tokens {
  /** `[examples, 2 + parts]`: index of the row, 1 if truncated, then the length of each of its arrays. */
  index: Int32Array
  /** Arrays that an example has. */
  parts: number
  /** The arrays of one example, one after the other. */
  tokensOf: (example: number) => Int32Array
}

/** Examples and what is to be said of them. */
export interface Encoded extends Tokens {
  statistics: DataStatistics
}

type Index = Pick<Tokens, 'index' | 'parts'>

/** Examples of an index. */
export function count({ index, parts }: Index): number {
  return index.length / (2 + parts)
}

/** The row that each example comes from. */
export function rowsOf(of: Index): Int32Array {
  const rows = new Int32Array(count(of))
  for (let i = 0; i < rows.length; i++) rows[i] = of.index[i * (2 + of.parts)]!
  return rows
}

/** `[examples]` length of the first so many arrays of each example together. */
export function lengthsOf({ index, parts }: Index, arrays: number): Int32Array {
  const lengths = new Int32Array(count({ index, parts }))
  for (let i = 0; i < lengths.length; i++) {
    for (let part = 0; part < arrays; part++) lengths[i]! += index[i * (2 + parts) + 2 + part]!
  }
  return lengths
}

/** `[examples + 1]` where the tokens of each example begin among those of all; f64, for they pass 2^31. */
export function tokenStarts(of: Index): Float64Array {
  const lengths = lengthsOf(of, of.parts)
  const starts = new Float64Array(lengths.length + 1)
  for (let i = 0; i < lengths.length; i++) starts[i + 1] = starts[i]! + lengths[i]!
  return starts
}

export function isTruncated({ index, parts }: Index, example: number): boolean {
  return index[example * (2 + parts) + 1] === 1
}

/** An example as its arrays, views of its tokens. */
export function arraysOf({ index, parts, tokensOf }: Tokens, example: number): Int32Array[] {
  const first = example * (2 + parts) + 2
  const tokens = tokensOf(example)
  let end = 0
  return Array.from({ length: parts }, (_, part) => {
    const start = end
    end += index[first + part]!
    return tokens.subarray(start, end)
  })
}

/** Chunks in memory as one index and the tokens of each example. */
export function joinChunks(chunks: readonly EncodedChunk[], parts: number): Tokens {
  const index = new Int32Array(chunks.reduce((sum, { meta }) => sum + meta.length, 0))
  const tokens: Int32Array[] = []
  let end = 0
  for (const { meta, tokens: all } of chunks) {
    index.set(meta, end)
    end += meta.length
    const starts = tokenStarts({ index: meta, parts })
    for (let i = 0; i + 1 < starts.length; i++) {
      tokens.push(all.subarray(starts[i]!, starts[i + 1]!))
    }
  }
  return { index, parts, tokensOf: (example: number) => tokens[example]! }
}
