import { type Row, readRows } from '../data/read-rows.js'
import { WestwindError } from '../errors.js'
import { isRecord, showJson } from '../json.js'
import { sha256 } from './ratings.js'

/** A prompt and the answers to rate. */
export interface Tuple {
  /** `prompt_id`, with `tuple_id` where the file has one: what draws and the journal know it by. */
  id: string
  promptId: string
  instruction: string
  /** Of each completion, in order. */
  responses: string[]
  /** The row as it was read; what is not about ratings stays in the output. */
  row: Row
  completions: Row[]
}

/**
 * Tuples of a file with `instruction` and `completions[{ model, response }]`: what `feedback generate`
 * writes, or UltraFeedback's form.
 *
 * @throws ERR_DATA naming file, row and field
 */
export async function readTuples(file: string, signal?: AbortSignal): Promise<Tuple[]> {
  const rows = await readRows(file, { signal })
  return rows.map((row, i) => {
    const where = `${file}, row ${i + 1}`
    const instruction = textOf(row.instruction, `${where}: instruction`)
    const list: unknown = row.completions
    if (!Array.isArray(list) || list.length === 0) {
      throw wrong(`${where}: completions`, 'an array of answers', list)
    }
    const completions = list.map((value: unknown, k): Row => {
      if (!isRecord(value)) throw wrong(`${where}: completions[${k}]`, 'an object', value)
      return value
    })
    const responses = completions.map(({ model, response }, k) => {
      textOf(model, `${where}: completions[${k}].model`)
      return textOf(response, `${where}: completions[${k}].response`)
    })
    const promptId = textOf(row.prompt_id ?? sha256(instruction), `${where}: prompt_id`)
    const id = row.tuple_id == null ? promptId : `${promptId}/${row.tuple_id}`
    return { id, promptId, instruction, responses, row, completions }
  })
}

function textOf(value: unknown, where: string): string {
  if (typeof value !== 'string') throw wrong(where, 'a string', value)
  return value
}

function wrong(where: string, expected: string, value: unknown): WestwindError {
  return new WestwindError('ERR_DATA', `${where} must be ${expected}, got ${showJson(value)}`)
}
