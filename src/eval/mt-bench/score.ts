import { z } from 'zod'
import { readRows } from '../../data/read-rows.js'
import { parseRow } from '../rows.js'
import type { Question } from './questions.js'

/** A line of FastChat's `model_judgment/*_single.jsonl`. */
export interface Judgment {
  question_id: number
  model: string
  /** The judge as it was asked for, and the name of the prompt. */
  judge: [string, string]
  user_prompt: string
  judgment: string
  /** -1: the judgment holds no rating. */
  score: number
  turn: number
  tstamp: number
  /** The judge by its endpoint's word, with its date: not in FastChat's own files. */
  judge_model?: string | undefined
}

const judgmentSchema = z.object({
  question_id: z.number().int(),
  model: z.string(),
  judge: z.tuple([z.string(), z.string()]),
  user_prompt: z.string(),
  judgment: z.string(),
  score: z.number(),
  turn: z.number().int().min(1),
  tstamp: z.number(),
  judge_model: z.string().optional(),
})

/** @throws ERR_DATA naming file and line, also for judgments of pairs, which have no score */
export async function readJudgments(file: string): Promise<Judgment[]> {
  const rows = await readRows(file)
  return rows.map((row, i) => parseRow(judgmentSchema, row, `${file}:${i + 1}`))
}

/** The rating in a judgment: the first `[[x]]`, else the first `[x]`, else -1. */
export function ratingOf(judgment: string): number {
  const found = /\[\[(\d+\.?\d*)\]\]/.exec(judgment) ?? /\[(\d+\.?\d*)\]/.exec(judgment)
  return found ? Number(found[1]) : -1
}

/** Mean of the ratings; null where there are none. */
export interface Score {
  score: number | null
  n: number
}

export interface ModelScores extends Score {
  model: string
  /** By turn: 1, 2. */
  turns: Record<string, Score>
  /** By category, where the questions are known. */
  categories: Record<string, Score & { turns: Record<string, Score> }>
  /** Judgments without a rating, which are left out of every mean. */
  unrated: number
  /** Ratings outside 1 to 10: counted as they are, as FastChat does. */
  outOfScale: number
}

/**
 * Scores per model, in the order in which the models come. Where a judgment of the same judge, question
 * and turn comes twice, the later one counts.
 */
export function scoreJudgments(
  judgments: readonly Judgment[],
  questions: readonly Question[] = [],
): ModelScores[] {
  const last = new Map<string, Judgment>()
  for (const one of judgments) {
    last.set(JSON.stringify([one.model, one.judge[0], one.question_id, one.turn]), one)
  }
  const categories = new Map(questions.map(({ question_id, category }) => [question_id, category]))
  const models = groupBy([...last.values()], ({ model }) => model)
  return [...models].map(([model, all]) => {
    const rated = all.filter(({ score }) => score !== -1)
    const known = rated.filter(({ question_id }) => categories.has(question_id))
    const byCategory = groupBy(known, ({ question_id }) => categories.get(question_id)!)
    const names = [...new Set(categories.values())].filter((name) => byCategory.has(name))
    return {
      model,
      ...mean(rated),
      turns: byTurn(rated),
      categories: Object.fromEntries(
        names.map((name) => {
          const some = byCategory.get(name)!
          return [name, { ...mean(some), turns: byTurn(some) }]
        }),
      ),
      unrated: all.length - rated.length,
      outOfScale: rated.filter(({ score }) => score < 1 || score > 10).length,
    }
  })
}

function byTurn(judgments: readonly Judgment[]): Record<string, Score> {
  const turns = [...groupBy(judgments, ({ turn }) => turn)].sort(([a], [b]) => a - b)
  return Object.fromEntries(turns.map(([turn, some]) => [String(turn), mean(some)]))
}

function mean(judgments: readonly Judgment[]): Score {
  const n = judgments.length
  return { score: n === 0 ? null : judgments.reduce((sum, { score }) => sum + score, 0) / n, n }
}

function groupBy<K, T>(items: readonly T[], keyOf: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>()
  for (const item of items) {
    const key = keyOf(item)
    const group = groups.get(key)
    if (group) group.push(item)
    else groups.set(key, [item])
  }
  return groups
}
