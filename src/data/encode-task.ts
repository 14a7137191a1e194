import { WestwindError } from '../errors.js'
import { type ChatTemplate, compileTemplate } from './chat-template.js'
import type { Dropped, EncodeOptions } from './encode.js'
import { encodePair, type PairExample } from './encode-pair.js'
import { encodeSft, type SftExample } from './encode-sft.js'
import type { Row } from './read-rows.js'
import { pairSource, sftSource } from './rows.js'
import { type Tokenizer, tokenizerFromFiles } from './tokenizer/tokenizer.js'

/** How rows are encoded, in a form that another thread can receive. */
export interface EncodeTask {
  kind: 'sft' | 'pairs'
  /** What errors call the data, e.g. `train`. */
  name: string
  options: EncodeOptions
  tokenizerFiles?: Tokenizer['files'] | undefined
  templateSource?: string | undefined
}

/** Examples of consecutive rows as two arrays: cheap to send to another thread and to keep in a file. */
export interface EncodedChunk {
  /** For each example: index of its row, 1 if truncated, then the length of each of its arrays. */
  meta: Int32Array<ArrayBuffer>
  /** The arrays of all examples, one after the other. */
  tokens: Int32Array<ArrayBuffer>
  /** Rows not kept, by reason. */
  dropped: Record<string, number>
}

/** Columns that encoding reads, the named one as `text`; nothing else goes to other threads or counts for the cache. */
export function usedColumns(row: Row, textField: string): Row {
  const used: Row = {}
  for (const name of columns) if (row[name] !== undefined) used[name] = row[name]
  if (textField !== 'text' && row[textField] !== undefined) used.text = row[textField]
  return used
}

const columns = [
  'messages',
  'prompt',
  'completion',
  'chosen',
  'rejected',
  'text',
  'input_ids',
  'labels',
  'prompt_ids',
  'chosen_ids',
  'rejected_ids',
]

/**
 * Makes the function that encodes rows for a task. `first` is the index of the first of them.
 *
 * @throws ERR_DATA naming data and row (counted from 1) of one that is malformed
 */
export function createEncoder(
  task: EncodeTask,
  tokenizer = task.tokenizerFiles && tokenizerFromFiles(task.tokenizerFiles),
): (rows: readonly Row[], first: number) => EncodedChunk {
  const template =
    task.templateSource === undefined ? undefined : compileTemplate(task.templateSource)
  return (rows, first) => {
    const meta: number[] = []
    const arrays: Int32Array[] = []
    const dropped: Record<string, number> = {}
    for (const [i, row] of rows.entries()) {
      const result = encodeRow(task, tokenizer, template, row, first + i)
      if ('dropped' in result) {
        dropped[result.dropped] = (dropped[result.dropped] ?? 0) + 1
        continue
      }
      const parts = partsOf(result)
      meta.push(first + i, result.truncated ? 1 : 0, ...parts.map(({ length }) => length))
      arrays.push(...parts)
    }
    return { meta: Int32Array.from(meta), tokens: concatenate(arrays), dropped }
  }
}

function encodeRow(
  { kind, name, options }: EncodeTask,
  tokenizer: Tokenizer | undefined,
  template: ChatTemplate | undefined,
  row: Row,
  index: number,
): SftExample | PairExample | Dropped {
  const where = `${name}, row ${index + 1}`
  try {
    return kind === 'sft'
      ? encodeSft(tokenizer, template, sftSource(row, where), options)
      : encodePair(tokenizer, template, pairSource(row, where), options)
  } catch (cause) {
    if (!(cause instanceof WestwindError) || cause.message.startsWith(where)) throw cause
    throw new WestwindError(cause.code, `${where}: ${cause.message}`, { cause })
  }
}

function partsOf(example: SftExample | PairExample): Int32Array[] {
  return 'ids' in example
    ? [example.ids, example.labels]
    : [example.promptIds, example.chosenIds, example.rejectedIds]
}

function concatenate(arrays: readonly Int32Array[]): Int32Array<ArrayBuffer> {
  const all = new Int32Array(arrays.reduce((sum, { length }) => sum + length, 0))
  let end = 0
  for (const array of arrays) {
    all.set(array, end)
    end += array.length
  }
  return all
}
