import type { RunFolder } from './read-run.js'
import { union } from './settings.js'

/** One metric over the steps of all runs of a stage. */
export interface Curve {
  stage: string
  metric: string
  /** `train` and `eval` are lists of `[step, value]`; empty where a run did not log it. */
  lines: { run: string; train: Point[]; eval: Point[] }[]
}

export type Point = [step: number, value: number]

/** The metrics with a chart, in this order; what else a run logs is in its metrics.jsonl. */
const charted = [
  'loss',
  'rewards/accuracies',
  'rewards/margins',
  'rewards/chosen',
  'rewards/rejected',
  'mean_token_accuracy',
  'logps/chosen',
  'logps/rejected',
  'entropy',
  'learning_rate',
  'grad_norm',
  'tokens_per_second',
]

/** A curve for each stage and metric that any run logged. */
export function curves(runs: readonly RunFolder[], names: readonly string[]): Curve[] {
  const stages = union([runs.map(({ stage }) => stage ?? 'other')])
  return stages.flatMap((stage) =>
    charted.flatMap((metric) => {
      const lines = runs.flatMap(({ stage: own, history }, i) => {
        if ((own ?? 'other') !== stage) return []
        const line = { train: points(history, metric), eval: points(history, `eval_${metric}`) }
        return line.train.length + line.eval.length > 0 ? [{ run: names[i]!, ...line }] : []
      })
      return lines.length > 0 ? [{ stage, metric, lines }] : []
    }),
  )
}

/** Points of a line at most; of a longer one the lowest and the highest of each stretch, so that peaks stay. */
const mostPoints = 600

function points(history: RunFolder['history'], name: string): Point[] {
  const all = history.flatMap((line): Point[] => {
    const value = line[name]
    return value === undefined ? [] : [[line.step, value]]
  })
  if (all.length <= mostPoints) return all
  const stretch = Math.ceil((2 * all.length) / mostPoints)
  const kept: Point[] = []
  for (let begin = 0; begin < all.length; begin += stretch) {
    const part = all.slice(begin, begin + stretch)
    const low = part.reduce((a, b) => (b[1] < a[1] ? b : a))
    const high = part.reduce((a, b) => (b[1] > a[1] ? b : a))
    kept.push(...part.filter((point) => point === low || point === high))
  }
  return kept
}
