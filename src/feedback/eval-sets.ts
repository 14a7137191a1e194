import { type Row, readRows } from '../data/read-rows.js'
import { WestwindError } from '../errors.js'
import { isRecord } from '../json.js'

/** The prompts of an evaluation set. */
export interface EvalSet {
  file: string
  rows: number
  items: EvalItem[]
}

export interface EvalItem {
  /** Row of the file, from 1. */
  row: number
  text: string
}

/**
 * Where an evaluation row has its text; the first that is there counts. `turns`: MT-Bench;
 * `question`: ARC, MMLU, TruthfulQA; `query`, `ctx`: HellaSwag; `instruction`: AlpacaEval.
 */
const textFields = [
  'turns',
  'question',
  'query',
  'ctx',
  'instruction',
  'prompt',
  'text',
  'messages',
]

/**
 * Reads the prompts of an evaluation set: each turn of MT-Bench, the user's turns of `messages`, else
 * one text per row. Answers and choices are not read.
 *
 * @throws ERR_DATA naming the file and a row that has no text
 */
export async function readEvalSet(file: string, signal?: AbortSignal): Promise<EvalSet> {
  const rows = await readRows(file, { signal })
  const items = rows.flatMap((row, i) => {
    const texts = textsOf(row)
    if (texts.length === 0) throw noText(row, file, i + 1)
    return texts.map((text) => ({ row: i + 1, text }))
  })
  if (items.length === 0) throw new WestwindError('ERR_DATA', `${file}: no rows`)
  return { file, rows: rows.length, items }
}

function textsOf(row: Row): string[] {
  const value = textFields.map((name) => row[name]).find((one) => one !== undefined && one !== null)
  return (Array.isArray(value) ? value : [value]).flatMap((one: unknown) => {
    if (typeof one === 'string') return [one]
    return isRecord(one) && one.role === 'user' && typeof one.content === 'string'
      ? [one.content]
      : []
  })
}

function noText(row: Row, file: string, number: number): WestwindError {
  const names = Object.keys(row).slice(0, 12).join(', ') || 'none'
  return new WestwindError(
    'ERR_DATA',
    `${file}, row ${number}: expected a text in one of the fields ${textFields.join(', ')}; got ${names}`,
  )
}
