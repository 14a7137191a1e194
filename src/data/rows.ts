import { WestwindError } from '../errors.js'
import type { Message } from './conversation.js'

/** The row schemas of SFT data. */
export type SftSource =
  | { messages: Message[] }
  | { text: string }
  | { prompt: string | Message[]; completion: string | Message[] }
  | { input_ids: number[]; labels?: number[] }

/** The row schemas of preference data. A string prompt beside chosen and rejected messages is not used. */
export type PairSource =
  | {
      prompt?: string | Message[]
      chosen: string | Message[]
      rejected: string | Message[]
    }
  | { prompt_ids: number[]; chosen_ids: number[]; rejected_ids: number[] }

/**
 * Checks an SFT row of unknown origin. Of several schemas in one row the first of these is taken: `input_ids`,
 * `messages`, `prompt` + `completion`, `text`.
 *
 * @param where how errors call the row, e.g. `train.jsonl, row 17`
 * Errors: ERR_DATA naming the row and the field.
 */
export function sftSource(row: unknown, where: string): SftSource {
  const fields = record(row, where)
  if (has(fields, 'input_ids')) {
    const input_ids = ids(fields.input_ids, `${where}: input_ids`, 0)
    if (!has(fields, 'labels')) return { input_ids }
    const labels = ids(fields.labels, `${where}: labels`, -100)
    if (labels.length === input_ids.length) return { input_ids, labels }
    throw new WestwindError(
      'ERR_DATA',
      `${where}: labels must have one number per token, got ${labels.length} for ${input_ids.length} input_ids`,
    )
  }
  if (has(fields, 'messages')) {
    return { messages: messages(fields.messages, `${where}: messages`) }
  }
  if (has(fields, 'completion')) {
    const prompt = textOrMessages(fields.prompt, `${where}: prompt`)
    const completion = textOrMessages(fields.completion, `${where}: completion`)
    sameKind({ prompt, completion }, where)
    return { prompt, completion }
  }
  if (has(fields, 'text')) return { text: text(fields.text, `${where}: text`) }
  throw unknownSchema(
    fields,
    where,
    'messages, prompt + completion, text, or input_ids (with optional labels)',
  )
}

/** Checks a preference row of unknown origin; `prompt_ids`, `chosen_ids`, `rejected_ids` first. See {@link sftSource}. */
export function pairSource(row: unknown, where: string): PairSource {
  const fields = record(row, where)
  if (has(fields, 'chosen_ids') || has(fields, 'prompt_ids')) {
    return {
      prompt_ids: ids(fields.prompt_ids, `${where}: prompt_ids`, 0),
      chosen_ids: ids(fields.chosen_ids, `${where}: chosen_ids`, 0),
      rejected_ids: ids(fields.rejected_ids, `${where}: rejected_ids`, 0),
    }
  }
  if (!has(fields, 'chosen') && !has(fields, 'rejected')) {
    throw unknownSchema(
      fields,
      where,
      'chosen + rejected (with optional prompt), or prompt_ids + chosen_ids + rejected_ids',
    )
  }
  const chosen = textOrMessages(fields.chosen, `${where}: chosen`)
  const rejected = textOrMessages(fields.rejected, `${where}: rejected`)
  sameKind({ chosen, rejected }, where)
  if (!has(fields, 'prompt')) return { chosen, rejected }
  const prompt = textOrMessages(fields.prompt, `${where}: prompt`)
  if (Array.isArray(prompt)) sameKind({ prompt, chosen }, where)
  return { prompt, chosen, rejected }
}

function record(row: unknown, where: string): Record<string, unknown> {
  if (typeof row === 'object' && row !== null && !Array.isArray(row)) return { ...row }
  throw new WestwindError(
    'ERR_DATA',
    `${where}: expected an object with named fields, got ${kind(row)}`,
  )
}

function has(fields: Record<string, unknown>, name: string): boolean {
  return fields[name] !== undefined && fields[name] !== null
}

function text(value: unknown, where: string): string {
  if (typeof value === 'string') return value
  throw new WestwindError('ERR_DATA', `${where} must be a string, got ${kind(value)}`)
}

function textOrMessages(value: unknown, where: string): string | Message[] {
  if (typeof value === 'string') return value
  if (Array.isArray(value)) return messages(value, where)
  throw new WestwindError(
    'ERR_DATA',
    `${where} must be a string or an array of { role, content }, got ${kind(value)}`,
  )
}

function messages(value: unknown, where: string): Message[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw new WestwindError(
      'ERR_DATA',
      `${where} must be an array of at least one { role, content }, got ${kind(value)}`,
    )
  }
  return value.map((item: unknown, i) => {
    const turn = record(item, `${where}[${i}]`)
    if ('from' in turn && 'value' in turn && !('role' in turn)) {
      throw new WestwindError(
        'ERR_DATA',
        `${where}[${i}] is in ShareGPT form { from, value }; convert it to { role, content }`,
      )
    }
    const role = text(turn.role, `${where}[${i}].role`)
    if (role === '') {
      throw new WestwindError(
        'ERR_DATA',
        `${where}[${i}].role must not be empty; expected user, assistant or system`,
      )
    }
    return { role, content: text(turn.content, `${where}[${i}].content`) }
  })
}

/** Token ids from JSON numbers or from Parquet's 64-bit integers. */
function ids(value: unknown, where: string, least: number): number[] {
  const items = listOf(value)
  if (items === undefined) {
    throw new WestwindError('ERR_DATA', `${where} must be an array of integers, got ${kind(value)}`)
  }
  return items.map((item, i) => {
    const id = typeof item === 'bigint' ? Number(item) : item
    const legal = typeof id === 'number' && Number.isInteger(id) && id >= least && id < 2 ** 31
    if (legal && (id >= 0 || id === -100)) return id
    throw new WestwindError(
      'ERR_DATA',
      `${where}[${i}] must be a token id${least < 0 ? ' or -100' : ''}, got ${kind(item)}`,
    )
  })
}

function listOf(value: unknown): unknown[] | undefined {
  if (Array.isArray(value)) return value
  const typed = value instanceof Int32Array || value instanceof BigInt64Array
  return typed ? Array.from<unknown>(value) : undefined
}

function sameKind(values: Record<string, string | Message[]>, where: string): void {
  const kinds = new Set(Object.values(values).map((value) => typeof value))
  if (kinds.size === 1) return
  const got = Object.entries(values).map(
    ([name, value]) => `${name}: ${typeof value === 'string' ? 'string' : 'messages'}`,
  )
  throw new WestwindError(
    'ERR_DATA',
    `${where}: ${Object.keys(values).join(' and ')} must both be strings or both be messages, got ${got.join(', ')}`,
  )
}

function unknownSchema(
  fields: Record<string, unknown>,
  where: string,
  expected: string,
): WestwindError {
  const names = Object.keys(fields).slice(0, 12).join(', ') || 'none'
  return new WestwindError('ERR_DATA', `${where}: expected the fields ${expected}; got ${names}`)
}

function kind(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value === null) return 'null'
  if (Array.isArray(value)) return value.length === 0 ? 'an empty array' : 'an array'
  if (typeof value === 'object') return 'an object'
  const shown = String(value)
  return `${typeof value} ${shown.length > 40 ? `${shown.slice(0, 40)}…` : shown}`
}
