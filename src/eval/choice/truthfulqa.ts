import { isRecord } from '../../json.js'
import {
  argmax,
  type ChoiceDocument,
  type ChoiceTask,
  type Fields,
  idOf,
  textOf,
  textsOf,
  wrong,
} from './document.js'

/** TruthfulQA's multiple-choice metrics (arXiv 2109.07958): an answer is scored once and serves both. */
export const truthfulQa: ChoiceTask = {
  fewShot: 'none',
  preset: true,
  document(row, number, where) {
    const { mc1, mc2 } = targets(row, where)
    const choices = [...new Set([...mc1.choices, ...mc2.choices])]
    return {
      id: idOf(row, number),
      context: `Q: ${textOf(row, 'question', where)}\nA:`,
      choices,
      gold: choices.indexOf(mc1.choices[mc1.labels.indexOf(1)]!),
      metrics: metricsOf(choices, mc1, mc2),
    }
  },
}

interface Targets {
  choices: string[]
  /** 1 for true. */
  labels: number[]
}

/** mc1: whether the best answer is the likeliest. mc2: the share of the true answers in the probability of all. */
function metricsOf(all: readonly string[], mc1: Targets, mc2: Targets): ChoiceDocument['metrics'] {
  const place = ({ choices }: Targets) => choices.map((choice) => all.indexOf(choice))
  const [one, two] = [place(mc1), place(mc2)]
  return (logprobs) => {
    const best = argmax(one.map((i) => logprobs[i]!))
    const values = two.map((i) => logprobs[i]!)
    const most = Math.max(...values) // relative to it, for the probabilities themselves may all round to 0
    const shares = values.map((x) => Math.exp(x - most))
    const sum = shares.reduce((a, b) => a + b, 0)
    const truth = shares.reduce((a, b, i) => a + b * mc2.labels[i]!, 0)
    return { mc1: mc1.labels[best]!, mc2: truth / sum }
  }
}

/** From the columns of the multiple-choice form, or from the answers of the original table. */
function targets(row: Fields, where: string): { mc1: Targets; mc2: Targets } {
  if (row.mc1_targets !== undefined || row.mc2_targets !== undefined) {
    return {
      mc1: labelled(row.mc1_targets, `${where}: mc1_targets`),
      mc2: labelled(row.mc2_targets, `${where}: mc2_targets`),
    }
  }
  const best = textOf(row, 'best_answer', where)
  const correct = textsOf(row.correct_answers, `${where}: correct_answers`)
  const incorrect = textsOf(row.incorrect_answers, `${where}: incorrect_answers`)
  const against = (truths: string[]): Targets => ({
    choices: [...truths, ...incorrect],
    labels: [...truths.map(() => 1), ...incorrect.map(() => 0)],
  })
  return { mc1: against([best]), mc2: against(correct) }
}

function labelled(value: unknown, where: string): Targets {
  if (!isRecord(value)) throw wrong(where, 'an object { choices, labels }', value)
  const choices = textsOf(value.choices, `${where}.choices`)
  const labels = Array.isArray(value.labels) ? value.labels.map(Number) : []
  const known = labels.every((label) => label === 0 || label === 1)
  if (known && labels.length === choices.length && labels.includes(1)) return { choices, labels }
  throw wrong(`${where}.labels`, 'a 0 or 1 per choice, and a 1 among them', value.labels)
}
