import { WestwindError } from '../../errors.js'
import { isRecord, showJson } from '../../json.js'
import { length } from '../python-text.js'

/** One question with answers to choose from. */
export interface ChoiceDocument {
  id: string
  /** What the answer follows; few-shot examples and a description come before it. */
  context: string
  /** Each is scored with a space in front. */
  choices: string[]
  /** Index of the right choice. */
  gold: number
  /** What has a mean of its own, for example the subject. */
  group?: string
  /** Values of the metrics, from the log-probs (nats) of the choices. */
  metrics: (logprobs: readonly number[]) => Record<string, number>
}

/** What one family of multiple-choice questions asks and counts. */
export interface ChoiceTask {
  document: (row: Fields, number: number, where: string) => ChoiceDocument
  /** Examples: drawn anew for each document; the first ones of the document's group; none. */
  fewShot: 'random' | 'first' | 'none'
  /** One more example is drawn, so that the document itself can be left out if it is among them. */
  drawsOneMore?: boolean
  /** Whether a preset prompt may stand before each question. */
  preset?: boolean
  /** What stands before everything. */
  description?: (document: ChoiceDocument) => string
  /** Groups that have a mean together. */
  categories?: Readonly<Record<string, readonly string[]>>
}

/** acc: whether the likeliest choice is right. acc_norm: per character of the choice. The first of equals counts. */
export function accuracies(choices: readonly string[], gold: number) {
  const lengths = choices.map(length)
  return (logprobs: readonly number[]): { acc: number; acc_norm: number } => ({
    acc: argmax(logprobs) === gold ? 1 : 0,
    acc_norm: argmax(logprobs.map((x, i) => x / lengths[i]!)) === gold ? 1 : 0,
  })
}

/** Index of the first largest value. */
export function argmax(values: readonly number[]): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i
  return best
}

// Reading rows of unknown origin. `where` names the row, as in `test.jsonl, row 17`.

export type Fields = Record<string, unknown>

export function idOf(row: Fields, number: number): string {
  const { id } = row
  return typeof id === 'string' || typeof id === 'number' ? String(id) : String(number)
}

export function textOf(row: Fields, name: string, where: string): string {
  const value = row[name]
  if (typeof value === 'string') return value
  throw wrong(`${where}: ${name}`, 'a string', value)
}

/** A list of at least one answer, none empty: an empty one has nothing to score. */
export function textsOf(value: unknown, where: string): string[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw wrong(where, 'a list of at least one string', value)
  }
  return Array.from(value, (item: unknown, i) => {
    if (typeof item === 'string' && item !== '') return item
    throw wrong(`${where}[${i}]`, 'a string that is not empty', item)
  })
}

/** `choices`: a list of texts, or ARC's `{ text, label }`. */
export function choicesOf(row: Fields, where: string): { choices: string[]; labels?: string[] } {
  const { choices } = row
  if (!isRecord(choices)) return { choices: textsOf(choices, `${where}: choices`) }
  const texts = textsOf(choices.text, `${where}: choices.text`)
  const labels = textsOf(choices.label, `${where}: choices.label`)
  if (labels.length === texts.length) return { choices: texts, labels }
  throw wrong(`${where}: choices.label`, `${texts.length} labels, one per text`, choices.label)
}

const goldNames = ['gold', 'answer', 'answerKey', 'label'] as const

/**
 * The right choice of a row: `gold`, `answer`, `answerKey` or `label`. A number counts from 0; a string is one of the
 * choices' labels, else one of the choices, else a number, else a letter (A is the first).
 */
export function goldOf(
  row: Fields,
  { choices, labels }: { choices: readonly string[]; labels?: readonly string[] },
  where: string,
): number {
  const name = goldNames.find((key) => row[key] !== undefined && row[key] !== null)
  const value = name === undefined ? undefined : row[name]
  const index =
    typeof value === 'number'
      ? value
      : typeof value === 'string'
        ? indexOf(value, choices, labels)
        : -1
  if (Number.isInteger(index) && index >= 0 && index < choices.length) return index
  const expected = `one of ${choices.length} choices (an index from 0, a label or letter, or a choice)`
  throw wrong(`${where}: ${name ?? goldNames.join(', ')}`, expected, value)
}

function indexOf(
  text: string,
  choices: readonly string[],
  labels: readonly string[] | undefined,
): number {
  if (labels) return labels.indexOf(text)
  const at = choices.indexOf(text)
  if (at >= 0) return at
  if (/^\d+$/.test(text)) return Number(text)
  return /^[A-Z]$/.test(text) ? text.charCodeAt(0) - 65 : -1
}

export function wrong(where: string, expected: string, value: unknown): WestwindError {
  return new WestwindError('ERR_DATA', `${where}: expected ${expected}, got ${showJson(value)}`)
}
