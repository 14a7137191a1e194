import { createHash } from 'node:crypto'
import type { Row } from '../data/read-rows.js'
import { WestwindError } from '../errors.js'
import { isRecord, showJson } from '../json.js'

/** One aspect of an answer, as the teacher rated it. */
export interface AspectRating {
  /** 1 to 5; the mean where there are several ratings. */
  rating: number
  /** How far the teacher's own ratings lie apart, over the orders it saw the answers in. */
  spread: number | undefined
}

/** An answer with what the teacher said of it. */
export interface RatedAnswer {
  model: string
  response: string
  judge: string | undefined
  /** `overall_score`, 1 to 10. */
  overall: number | undefined
  /** `win_prob`: the exact number that `overall_score` was rounded from, where a file has it. */
  exact: number | undefined
  /** `overall_spread`: as the spread of an aspect. */
  overallSpread: number | undefined
  /** By name, without those rated N/A. */
  aspects: Map<string, AspectRating>
}

/** A prompt and its rated answers. */
export interface RatedTuple {
  /** Counted from 1. */
  row: number
  /** SHA-256 of prompt, models and answers: the same tuple has it in any file, at any place. */
  id: string
  promptId: string
  prompt: string
  answers: RatedAnswer[]
}

/**
 * Checks a row of ratings: `instruction` and `completions`, each with `model`, `response` and
 * `overall_score` or `annotations`, as westwind and UltraFeedback write them. Ratings are numbers or
 * decimal strings; null and N/A are no rating; anything else is an error.
 *
 * @throws ERR_DATA naming file, row and field
 */
export function ratedTuple(row: Row, file: string, number: number): RatedTuple {
  const where = `${file}, row ${number}`
  const prompt = textOf(row.instruction, `${where}: instruction`)
  if (prompt === '') throw wrong(`${where}: instruction`, 'a prompt', prompt)
  if (!Array.isArray(row.completions)) {
    throw wrong(`${where}: completions`, 'an array of rated answers', row.completions)
  }
  const answers = row.completions.map((value: unknown, i) => {
    return ratedAnswer(value, `${where}: completions[${i}]`)
  })
  const promptId = row.prompt_id ?? sha256(prompt)
  const id = sha256(prompt, ...answers.flatMap(({ model, response }) => [model, response]))
  return { row: number, id, promptId: textOf(promptId, `${where}: prompt_id`), prompt, answers }
}

function ratedAnswer(value: unknown, where: string): RatedAnswer {
  if (!isRecord(value)) throw wrong(where, 'an object with model and response', value)
  return {
    model: textOf(value.model, `${where}.model`),
    response: textOf(value.response, `${where}.response`),
    judge: typeof value.judge === 'string' ? value.judge : undefined,
    overall: score(value.overall_score, 1, 10, `${where}.overall_score`),
    exact: score(value.win_prob, 0, 1, `${where}.win_prob`),
    overallSpread: score(value.overall_spread, 0, 9, `${where}.overall_spread`),
    aspects: aspectRatings(value.annotations, `${where}.annotations`),
  }
}

function aspectRatings(value: unknown, where: string): Map<string, AspectRating> {
  const aspects = new Map<string, AspectRating>()
  if (value === undefined || value === null) return aspects
  if (!isRecord(value)) throw wrong(where, 'an object with a rating per aspect', value)
  for (const [name, annotation] of Object.entries(value)) {
    const rating = aspectRating(annotation, `${where}.${name}`)
    if (rating) aspects.set(name, rating)
  }
  return aspects
}

/** Of westwind's form `{ rating, spread }`, or UltraFeedback's `{ Rating }` or one such per order. */
function aspectRating(value: unknown, where: string): AspectRating | undefined {
  if (value === undefined || value === null) return undefined
  if (isRecord(value) && 'rating' in value) {
    const rating = score(value.rating, 1, 5, `${where}.rating`)
    const spread = score(value.spread, 0, 4, `${where}.spread`)
    return rating === undefined ? undefined : { rating, spread }
  }
  const each = (Array.isArray(value) ? value : [value]).flatMap((one: unknown): unknown[] => {
    if (!isRecord(one) || !('Rating' in one)) throw wrong(where, 'a Rating', one)
    return Array.isArray(one.Rating) ? one.Rating : [one.Rating]
  })
  const ratings = each.flatMap((one) => score(one, 1, 5, `${where}.Rating`) ?? [])
  if (ratings.length === 0) return undefined
  const spread = Math.max(...ratings) - Math.min(...ratings)
  return { rating: mean(ratings), spread: ratings.length > 1 ? spread : undefined }
}

/** Mean of numbers; NaN of none. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

/** SHA-256 of texts, in hexadecimal; of several, each ends with a NUL. */
export function sha256(...texts: string[]): string {
  const hash = createHash('sha256')
  if (texts.length === 1) return hash.update(texts[0]!).digest('hex')
  for (const text of texts) hash.update(text).update('\0')
  return hash.digest('hex')
}

const decimal = /^\d+(\.\d+)?$/

function score(value: unknown, least: number, most: number, where: string): number | undefined {
  if (value === undefined || value === null) return undefined
  const text = typeof value === 'string' ? value.trim() : undefined
  if (text !== undefined && /^n\/?a$/i.test(text)) return undefined
  const number = text !== undefined && decimal.test(text) ? Number(text) : value
  if (typeof number === 'number' && number >= least && number <= most) return number
  throw wrong(where, `a number from ${least} to ${most}, null or N/A`, value)
}

/** A half of a surrogate pair, which UTF-8 cannot hold, becomes U+FFFD. */
function textOf(value: unknown, where: string): string {
  if (typeof value !== 'string') throw wrong(where, 'a string', value)
  return value.replace(/\p{Surrogate}/gu, '\ufffd')
}

function wrong(where: string, expected: string, value: unknown): WestwindError {
  return new WestwindError('ERR_DATA', `${where} must be ${expected}, got ${showJson(value)}`)
}
