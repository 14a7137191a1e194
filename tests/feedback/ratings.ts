import { uniform } from '../support/random.js'

// Ratings files of our own, for the tests of binarize.

export interface Completion {
  model: string
  response: string
  overall_score?: number | string | null
  win_prob?: number
  overall_spread?: number
  judge?: string
  annotations?: Record<string, unknown>
}

export interface RatingsRow {
  instruction: string
  prompt_id?: string
  completions: Completion[]
}

const aspects = ['instruction_following', 'honesty', 'truthfulness', 'helpfulness']

/** Tuples with random scores, some ratings N/A, some prompts that come twice. */
export function randomRatings(count: number, seed: number): RatingsRow[] {
  const next = uniform(seed)
  const score = () => Math.floor(next() * 10)
  return Array.from({ length: count }, (_, t) => ({
    instruction: `Question ${next() < 0.2 ? 0 : t} of seed ${seed}`,
    prompt_id: `p${t}`,
    completions: Array.from({ length: 2 + Math.floor(next() * 4) }, (_, i) => ({
      model: `model-${i}`,
      response: `answer ${i} ${'x'.repeat(Math.floor(next() * 30))} to ${t}`,
      overall_score: 1 + score(),
      annotations: Object.fromEntries(
        aspects.map((name) => {
          const rating = score() < 3 ? null : 1 + (score() % 5)
          return [name, { rating, spread: score() / 5, count: 2, rationale: '' }]
        }),
      ),
    })),
  }))
}

export function lines(rows: readonly object[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join('')
}
