import { createWriteStream } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { fileWriter, ParquetWriter, type SchemaElement } from 'hyparquet-writer'
import { atomicFiles } from '../checkpoint/atomic.js'
import { hashFile } from '../checkpoint/hash-file.js'
import type { Message } from '../data/conversation.js'
import { inTurns } from './in-turns.js'
import type { Picked } from './pair-statistics.js'
import type { Removed } from './pick.js'

/** The splits, as ultrafeedback_binarized calls them. */
export interface PairSplits {
  train_prefs: Picked[]
  test_prefs: Picked[]
}

export const manifestName = 'manifest.json'
const removedName = 'removed.jsonl'

/** A row of ultrafeedback_binarized. */
interface PairRow {
  prompt: string
  prompt_id: string
  chosen: Message[]
  rejected: Message[]
  messages: Message[]
  score_chosen: number
  score_rejected: number
}

/**
 * Writes the splits as Parquet and JSON Lines, each with a companion of where its rows come from,
 * `removed.jsonl`, and the manifest with the hash of every file. Files of a run before go first and
 * the manifest comes last: a folder with a manifest is complete.
 */
export async function writePairs(
  out: string,
  splits: PairSplits,
  removed: readonly Removed[],
  manifest: object,
  signal: AbortSignal | undefined,
): Promise<void> {
  const names = Object.keys(splits).flatMap(filesOf)
  await atomicFiles(out, async (tmp) => {
    const files: Record<string, { rows: number; sha256: string }> = {}
    const add = async (name: string, rows: number, write: (file: string) => Promise<void>) => {
      const file = join(tmp, name)
      await write(file)
      files[name] = { rows, sha256: await hashFile(file) }
    }
    for (const [split, picked] of Object.entries(splits)) {
      if (picked.length === 0) continue
      const [parquet, jsonl, meta] = filesOf(split)
      await add(parquet, picked.length, (file) => writeParquet(file, picked, signal))
      await add(jsonl, picked.length, (file) => writeRows(file, picked, pairRow, signal))
      await add(meta, picked.length, (file) => writeRows(file, picked, origin, signal))
    }
    await add(removedName, removed.length, (file) => writeRows(file, removed, (row) => row, signal))
    await writeFile(join(tmp, manifestName), `${JSON.stringify({ ...manifest, files }, null, 2)}\n`)
    return {
      removeFirst: [manifestName, ...names, removedName],
      add: [...Object.keys(files), manifestName],
      removeLast: [],
    }
  })
}

function filesOf(split: string): [parquet: string, jsonl: string, meta: string] {
  return [`${split}.parquet`, `${split}.jsonl`, `${split}.meta.jsonl`]
}

function pairRow({ tuple: { prompt, promptId }, choice: { chosen, rejected } }: Picked): PairRow {
  const conversation = (answer: string): Message[] => [
    { content: prompt, role: 'user' },
    { content: answer, role: 'assistant' },
  ]
  return {
    prompt,
    prompt_id: promptId,
    chosen: conversation(chosen.response),
    rejected: conversation(rejected.response),
    messages: conversation(chosen.response),
    score_chosen: chosen.score,
    score_rejected: rejected.score,
  }
}

/** Where a pair comes from; the counts say how many aspects of an answer were not N/A. */
function origin({ tuple, choice: { chosen, rejected } }: Picked): object {
  return {
    row: tuple.row,
    prompt_id: tuple.promptId,
    model_chosen: chosen.model,
    model_rejected: rejected.model,
    margin: chosen.score - rejected.score,
    aspects_chosen: chosen.aspects.size,
    aspects_rejected: rejected.aspects.size,
  }
}

async function writeRows<T>(
  file: string,
  items: readonly T[],
  row: (item: T) => object,
  signal: AbortSignal | undefined,
): Promise<void> {
  async function* pieces() {
    for await (const some of inTurns(items, signal)) {
      yield some.map((item) => `${JSON.stringify(row(item))}\n`).join('')
    }
  }
  await pipeline(pieces, createWriteStream(file))
}

const text = (name: string) =>
  ({ name, type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'REQUIRED' }) as const
const double = (name: string) => ({ name, type: 'DOUBLE', repetition_type: 'REQUIRED' }) as const
/** A list of structs, in the three levels of the Parquet format. */
const messages = (name: string) =>
  [
    { name, converted_type: 'LIST', repetition_type: 'REQUIRED', num_children: 1 },
    { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
    { name: 'element', repetition_type: 'REQUIRED', num_children: 2 },
    text('content'),
    text('role'),
  ] as const

const schema: SchemaElement[] = [
  { name: 'schema', num_children: 7 },
  text('prompt'),
  text('prompt_id'),
  ...messages('chosen'),
  ...messages('rejected'),
  ...messages('messages'),
  double('score_chosen'),
  double('score_rejected'),
]

/** Row groups of 1,000 rows: neither writer nor reader holds more at a time. */
async function writeParquet(
  file: string,
  picked: readonly Picked[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const writer = new ParquetWriter({ writer: fileWriter(file), schema, createdBy: 'westwind' })
  for await (const some of inTurns(picked, signal)) {
    const rows = some.map(pairRow)
    const column = (name: keyof PairRow) => ({ name, data: rows.map((row) => row[name]) })
    const columnData = [
      column('prompt'),
      column('prompt_id'),
      column('chosen'),
      column('rejected'),
      column('messages'),
      column('score_chosen'),
      column('score_rejected'),
    ]
    await writer.write({ columnData, rowGroupSize: rows.length })
  }
  await writer.finish()
}
