import { isRecord, reason, showJson } from '../json.js'
import type { ChatAnswer } from '../teacher/chat.js'
import type { Aspect } from './templates.js'

/** What the judge said of one answer; null is N/A. */
export interface Verdict {
  rating: number | null
  rationale: string
}

/** One verdict per answer, in the order they were shown; or why the reply is of no use. */
export type Reply = { verdicts: Verdict[] } | { problem: string }

class Malformed extends Error {}

/**
 * Reads a judge's reply. All or nothing: exactly one verdict per answer, each rating a number within the
 * aspect's range (or N/A where that is allowed) and never brought into it, each with a rationale.
 */
export function parseReply(
  answer: ChatAnswer,
  aspect: Aspect,
  options: { answers: number; nonce: string; structured: boolean },
): Reply {
  const { text, finish_reason, refusal } = answer
  if (refusal !== undefined) return { problem: `refusal: ${refusal}` }
  if (finish_reason === 'content_filter') return { problem: 'refusal: content filter' }
  try {
    if (finish_reason === 'length') throw new Malformed('cut at max_tokens')
    const { answers, nonce, structured } = options
    const verdicts = structured ? fromJson(text, answers) : fromBlocks(text, answers, nonce)
    return { verdicts: verdicts.map((one, i) => verdict(one, aspect, i + 1)) }
  } catch (cause) {
    if (!(cause instanceof Malformed)) throw cause
    const refused =
      /^\W*(I'm sorry|I am sorry|sorry|I can(no|')t|I(’| a)m (not able|unable))/i.test(text)
    return { problem: `${refused ? 'refusal' : 'unparsable'}: ${cause.message}` }
  }
}

interface RawVerdict {
  rating: unknown
  rationale: unknown
}

function fromJson(text: string, answers: number): RawVerdict[] {
  const fenced = /^\s*```(?:json)?\n([\s\S]*)\n```\s*$/.exec(text)
  let value: unknown
  try {
    value = JSON.parse(fenced?.[1] ?? text)
  } catch (cause) {
    throw new Malformed(`not JSON: ${reason(cause)}`)
  }
  if (!isRecord(value)) throw new Malformed(`expected an object, got ${showJson(value)}`)
  const names = Array.from({ length: answers }, (_, i) => `answer_${i + 1}`)
  const other = Object.keys(value).find((name) => !names.includes(name))
  if (other !== undefined) throw new Malformed(`"${other}" is none of the ${answers} answers`)
  return names.map((name) => {
    const one = value[name]
    if (!isRecord(one)) throw new Malformed(`${name} is missing`)
    return { rating: one.rating, rationale: one.rationale }
  })
}

/**
 * Blocks that begin with `## Answer 2 [code]` and end with `Rating: 3.5`. The code makes headings that a
 * rationale quotes from an answer ordinary text; a rationale may have any lines.
 */
function fromBlocks(text: string, answers: number, nonce: string): RawVerdict[] {
  const heading = new RegExp(`^[#* ]*Answer +(\\d+) *\\[${nonce}\\][*: ]*$`, 'gim')
  const found = [...text.matchAll(heading)]
  const blocks = new Map<number, RawVerdict>()
  for (const [i, match] of found.entries()) {
    const number = Number(match[1])
    if (number < 1 || number > answers || blocks.has(number)) {
      throw new Malformed(`answer ${number} is ${blocks.has(number) ? 'rated twice' : 'not there'}`)
    }
    const block = text.slice(match.index + match[0].length, found[i + 1]?.index).trim()
    blocks.set(number, rawVerdict(block, number))
  }
  return Array.from({ length: answers }, (_, i) => {
    const block = blocks.get(i + 1)
    if (!block) throw new Malformed(`answer ${i + 1} has no block`)
    return block
  })
}

function rawVerdict(block: string, number: number): RawVerdict {
  const lines = block.split('\n')
  const written = /^[* ]*Rating[*: ]*(.*?)[* ]*$/i.exec(lines.pop() ?? '')?.[1]
  if (written === undefined) {
    throw new Malformed(`the block of answer ${number} does not end with "Rating: …"`)
  }
  const rating = /^[-+]?\d+(\.\d+)?$/.test(written) ? Number(written) : written
  return { rating, rationale: lines.join('\n').replace(/^[* ]*Rationale[*: ]*/i, '') }
}

function verdict({ rating, rationale }: RawVerdict, aspect: Aspect, number: number): Verdict {
  const { least, most, not_applicable } = aspect
  if (typeof rationale !== 'string' || rationale.trim() === '') {
    throw new Malformed(`answer ${number} has no rationale`)
  }
  if (not_applicable && typeof rating === 'string' && /^n\/?a$/i.test(rating)) {
    return { rating: null, rationale: rationale.trim() }
  }
  if (typeof rating === 'number' && rating >= least && rating <= most) {
    return { rating, rationale: rationale.trim() }
  }
  const expected = `a number from ${least} to ${most}${not_applicable ? ' or N/A' : ''}`
  throw new Malformed(`the rating of answer ${number} must be ${expected}, got ${showJson(rating)}`)
}
