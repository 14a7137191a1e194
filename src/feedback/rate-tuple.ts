import type { ChatAnswer } from '../teacher/chat.js'
import type { Question } from '../teacher/desk.js'
import type { FeedbackConfig } from './config.js'
import { shuffled } from './draw.js'
import { parseReply, type Verdict } from './parse-reply.js'
import { mean } from './ratings.js'
import { type Aspect, nonceOf, replySchema, type Templates } from './templates.js'
import type { Tuple } from './tuples.js'

/** The aspect that is always asked: a score from 1 to 10 with a critique. */
export const overall = 'overall'

/** Gets an answer; undefined ends the work on the tuple, which stays pending. */
export type Ask = (build: (structured: boolean) => Question) => Promise<
  | {
      answer: ChatAnswer
      structured: boolean
    }
  | undefined
>

export type Outcome =
  | { kind: 'rated'; row: Record<string, unknown> }
  | { kind: 'quarantined'; row: Record<string, unknown> }
  | { kind: 'pending' }

/** One aspect of one answer, over all orders. */
interface Rating {
  /** Mean of the ratings that are numbers; null if there is none. */
  rating: number | null
  /** Highest less lowest; null where fewer than two are numbers. */
  spread: number | null
  /** How many are numbers: the denominator of the mean. */
  count: number
  /** As they came, order by order; null is N/A. */
  ratings: (number | null)[]
  /** Of the first order. */
  rationale: string
}

/** All names that are asked, the overall score last. */
export function askedAspects({ rate }: FeedbackConfig): string[] {
  return [...rate.aspects.filter((name) => name !== overall), overall]
}

/**
 * Rates the answers of one tuple: every aspect in every order, one after the other, until all are there or one
 * stays unreadable after all retries.
 */
export async function rateTuple(
  tuple: Tuple,
  config: FeedbackConfig,
  templates: Templates,
  ask: Ask,
): Promise<Outcome> {
  const all: Record<string, Rating[]> = {}
  for (const name of askedAspects(config)) {
    const aspect = templates.aspects[name]!
    const verdicts: Verdict[][] = []
    for (let shuffle = 0; shuffle < config.rate.shuffles; shuffle++) {
      const outcome = await oneOrder(tuple, name, aspect, shuffle, config, templates, ask)
      if (outcome === 'pending') return { kind: 'pending' }
      if ('attempts' in outcome) {
        const { prompt_id = tuple.promptId, tuple_id, source } = tuple.row
        const { attempts } = outcome
        const { reason } = attempts.at(-1)!
        const row = { prompt_id, tuple_id, source, aspect: name, shuffle, reason, attempts }
        return { kind: 'quarantined', row }
      }
      verdicts.push(outcome.verdicts)
    }
    all[name] = tuple.responses.map((_, i) => rating(verdicts.map((order) => order[i]!)))
  }
  return { kind: 'rated', row: ratedRow(tuple, all) }
}

/** Verdicts in the order of the tuple, or the replies that could not be read. */
async function oneOrder(
  tuple: Tuple,
  name: string,
  aspect: Aspect,
  shuffle: number,
  config: FeedbackConfig,
  templates: Templates,
  ask: Ask,
): Promise<{ verdicts: Verdict[] } | { attempts: { reason: string; raw: string }[] } | 'pending'> {
  const order = orderOf(tuple, name, shuffle, config.seed)
  const attempts: { reason: string; raw: string }[] = []
  while (attempts.length <= config.rate.retries) {
    const attempt = attempts.length
    const asked = await ask((structured) =>
      questionOf(tuple, name, shuffle, attempt, structured, config, templates),
    )
    if (!asked) return 'pending'
    const { answer, structured } = asked
    const nonce = nonceFor(tuple, name, shuffle, attempt, config.seed)
    const reply = parseReply(answer, aspect, { answers: order.length, nonce, structured })
    if ('verdicts' in reply) {
      const { verdicts } = reply
      return { verdicts: tuple.responses.map((_, i) => verdicts[order.indexOf(i)]!) }
    }
    attempts.push({ reason: reply.problem, raw: answer.text })
  }
  return { attempts }
}

/**
 * The request for one aspect in one order. A retry has another code in its markers, so that a judge at
 * temperature 0 is not asked the very same again.
 */
export function questionOf(
  tuple: Tuple,
  name: string,
  shuffle: number,
  attempt: number,
  structured: boolean,
  { seed, rate }: FeedbackConfig,
  templates: Templates,
): Question {
  const aspect = templates.aspects[name]!
  const { instruction, responses, id } = tuple
  const answers = orderOf(tuple, name, shuffle, seed).map((i) => responses[i]!)
  const nonce = nonceFor(tuple, name, shuffle, attempt, seed)
  const content = templates.render(aspect, { instruction, answers, nonce, structured })
  const schema = { name: 'ratings', schema: replySchema(aspect, answers.length) }
  const { temperature, top_p, max_tokens } = rate
  return {
    stage: 'rate',
    id: `${id}/${name}/${shuffle}/${attempt}`,
    messages: [{ role: 'user', content }],
    settings: { temperature, top_p, max_tokens, ...(structured && { json_schema: schema }) },
  }
}

function nonceFor(tuple: Tuple, name: string, shuffle: number, attempt: number, seed: number) {
  const { instruction, responses, id } = tuple
  return nonceOf([instruction, ...responses], `${seed}`, id, name, `${shuffle}`, `${attempt}`)
}

/** Which answer stands at each place: `order[place]` is its index in the tuple. */
function orderOf({ id, responses }: Tuple, name: string, shuffle: number, seed: number): number[] {
  return shuffled([...responses.keys()], String, 'order', `${seed}`, id, name, `${shuffle}`)
}

function rating(verdicts: readonly Verdict[]): Rating {
  const ratings = verdicts.map((one) => one.rating)
  const numbers = ratings.filter((one) => one !== null)
  return {
    rating: numbers.length > 0 ? mean(numbers) : null,
    spread: numbers.length > 1 ? Math.max(...numbers) - Math.min(...numbers) : null,
    count: numbers.length,
    ratings,
    rationale: verdicts[0]!.rationale,
  }
}

function ratedRow(tuple: Tuple, all: Readonly<Record<string, Rating[]>>): Record<string, unknown> {
  const { row, promptId, instruction } = tuple
  const completions = tuple.completions.map((completion, i) => {
    const { [overall]: whole, ...aspects } = all
    const { rating: overall_score, spread, ratings, rationale } = whole![i]!
    const annotations = Object.fromEntries(Object.entries(aspects).map(([k, of]) => [k, of[i]!]))
    const means = Object.values(annotations).flatMap(({ rating }) => rating ?? [])
    return {
      ...completion,
      overall_score,
      overall_spread: spread,
      overall_ratings: ratings,
      critique: rationale,
      annotations,
      fine_grained_score: means.length > 0 ? mean(means) : null,
      fine_grained_count: means.length,
    }
  })
  const models = completions.map((one) => ('model' in one ? one.model : null))
  return { ...row, prompt_id: promptId, instruction, models, completions }
}
