import { z } from 'zod'
import { readRows } from '../../data/read-rows.js'
import { parseRow } from '../rows.js'

/**
 * Which of two outputs a judge prefers, as AlpacaEval writes it: 1 is the baseline's, 2 the model's, what
 * lies between a probability; 1.5 (0 in old files) is a draw, null no readable verdict.
 */
export type Preference = number | null

export interface WinRate {
  /** Percent: mean of `preference - 1`, so that a draw counts half. */
  win_rate: number | null
  /** Of the mean, in points: sample standard deviation / √n. */
  standard_error: number | null
  n_wins: number
  n_wins_base: number
  n_draws: number
  n_total: number
  /** As `win_rate`, with each preference rounded to a win or a loss first. */
  discrete_win_rate: number | null
}

/** The win rate of AlpacaEval. What is no preference (null, or outside 1 to 2) is left out. */
export function winRate(preferences: readonly Preference[]): WinRate {
  const wins = preferences.flatMap((preference) => {
    if (preference === 0) return [0.5]
    return preference !== null && preference >= 1 && preference <= 2 ? [preference - 1] : []
  })
  const n = wins.length
  const mean = n > 0 ? sum(wins) / n : null
  const spread = mean === null || n < 2 ? null : sum(wins.map((x) => (x - mean) ** 2)) / (n - 1)
  const n_wins = wins.filter((x) => x > 0.5).length
  const n_draws = wins.filter((x) => x === 0.5).length
  return {
    win_rate: mean === null ? null : 100 * mean,
    standard_error: spread === null ? null : 100 * Math.sqrt(spread / n),
    n_wins,
    n_wins_base: n - n_wins - n_draws,
    n_draws,
    n_total: n,
    discrete_win_rate: n === 0 ? null : (100 * (n_wins + n_draws / 2)) / n,
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, x) => total + x, 0)
}

const preferenceSchema = z.number().nullable()
const annotationSchema = z.union([
  z
    .object({
      annotator: z.string(),
      generator_1: z.string(),
      generator_2: z.string(),
      preference: preferenceSchema,
    })
    .transform(({ annotator, generator_1, generator_2, preference }) => {
      return { annotator, baseline: generator_1, model: generator_2, preference }
    }),
  z
    .object({
      judge: z.string(),
      baseline: z.string(),
      model: z.string(),
      preference: preferenceSchema,
    })
    .transform(({ judge, ...rest }) => ({ annotator: judge, ...rest })),
])

/** One model under one judge, against one baseline. */
export interface RunWinRate extends WinRate {
  annotator: string
  model: string
  baseline: string
}

/**
 * Win rates of a file of annotations, per run in the order in which they come: AlpacaEval's
 * `annotations.json` (`annotator`, `generator_1`, `generator_2`, `preference`), or a table with `judge`,
 * `baseline`, `model`, `preference`.
 *
 * @throws ERR_DATA naming file and row
 */
export async function annotationWinRates(file: string): Promise<RunWinRate[]> {
  const runs = new Map<string, Omit<RunWinRate, keyof WinRate> & { preferences: Preference[] }>()
  for (const [i, row] of (await readRows(file)).entries()) {
    const parsed = parseRow(annotationSchema, row, `${file}:${i + 1}`)
    const { preference, ...run } = parsed
    const key = JSON.stringify([run.annotator, run.model, run.baseline])
    const known = runs.get(key)
    if (known) known.preferences.push(preference)
    else runs.set(key, { ...run, preferences: [preference] })
  }
  return [...runs.values()].map(({ preferences, ...run }) => ({ ...run, ...winRate(preferences) }))
}
