import { basename } from 'node:path'
import type { Message } from '../data/conversation.js'
import type { Row } from '../data/read-rows.js'
import { sftSource } from '../data/rows.js'
import { loadRows } from '../data/source.js'
import { WestwindError } from '../errors.js'
import { showJson } from '../json.js'
import type { FeedbackConfig } from './config.js'
import { sha256 } from './ratings.js'

export interface FeedbackPrompt {
  /** SHA-256 of the instruction, as UltraFeedback and UltraChat have it. */
  prompt_id: string
  source: string
  instruction: string
}

export interface FeedbackPrompts {
  prompts: FeedbackPrompt[]
  /** Rows that were left out or cut, in words. */
  notes: string[]
}

const columns = ['prompt', 'messages', 'instruction'] as const

/**
 * Prompts of any data source that westwind reads: a text, or the first question of a conversation. Of equal
 * ones the first is kept. With a limit, which are kept depends on the seed and their texts alone.
 *
 * @throws ERR_DATA naming the row and the column
 */
export async function readPrompts(
  config: NonNullable<FeedbackConfig['prompts']>,
  seed: number,
  signal?: AbortSignal,
): Promise<FeedbackPrompts> {
  const { data, split, config: subset, limit } = config
  const rows = await loadRows({ id: data, split, config: subset }, { signal })
  const column = config.column ?? columns.find((name) => rows.some((row) => row[name] != null))
  if (column === undefined) {
    const names = Object.keys(rows[0] ?? {}).join(', ')
    throw new WestwindError(
      'ERR_DATA',
      `${data}: expected a column ${columns.join(', ')}; the columns are ${names}. Name one in prompts.column.`,
    )
  }
  const prompts = new Map<string, FeedbackPrompt>()
  let equal = 0
  let cut = 0
  for (const [i, row] of rows.entries()) {
    const where = `${data}, row ${i + 1}: ${column}`
    const { instruction, isCut } = question(row[column], where)
    const prompt_id = sha256(instruction)
    if (isCut) cut++
    if (prompts.has(prompt_id)) equal++
    else prompts.set(prompt_id, { prompt_id, source: sourceOf(row, config), instruction })
  }
  const notes: string[] = []
  if (equal > 0) notes.push(`${equal} rows repeat a prompt and are left out`)
  if (cut > 0) notes.push(`${cut} conversations are longer: only the first question is asked`)
  return { prompts: sample([...prompts.values()], limit, seed), notes }
}

function question(value: unknown, where: string): { instruction: string; isCut: boolean } {
  let messages: readonly Message[] = []
  if (typeof value !== 'string') {
    const source = sftSource({ messages: value }, where)
    if ('messages' in source) messages = source.messages
  }
  const first = messages.find(({ role }) => role === 'user')
  const instruction = typeof value === 'string' ? value : (first?.content ?? '')
  if (instruction.trim() === '') {
    throw new WestwindError('ERR_DATA', `${where} must have a question, got ${showJson(value)}`)
  }
  const others = messages.filter((one) => one !== first).map(({ role }) => role)
  return { instruction, isCut: others.some((role) => role !== 'assistant') }
}

function sourceOf(row: Row, { data, source }: NonNullable<FeedbackConfig['prompts']>): string {
  if (typeof row.source === 'string' && row.source !== '') return row.source
  return source ?? basename(data).replace(/\.[a-z.]+$/, '')
}

/** So many of the prompts, by the hash of seed and text; they stay in their order. */
function sample(
  prompts: FeedbackPrompt[],
  limit: number | undefined,
  seed: number,
): FeedbackPrompt[] {
  if (limit === undefined || limit >= prompts.length) return prompts
  const drawn = prompts
    .map(({ prompt_id }) => ({ prompt_id, rank: sha256('prompts', `${seed}`, prompt_id) }))
    .sort((a, b) => (a.rank < b.rank ? -1 : 1))
    .slice(0, limit)
  const kept = new Set(drawn.map(({ prompt_id }) => prompt_id))
  return prompts.filter(({ prompt_id }) => kept.has(prompt_id))
}
