import { capitalize, strip } from '../python-text.js'
import {
  accuracies,
  type ChoiceDocument,
  type ChoiceTask,
  choicesOf,
  type Fields,
  goldOf,
  idOf,
  textOf,
  textsOf,
  wrong,
} from './document.js'
import { mmluCategories } from './mmlu-categories.js'
import { truthfulQa } from './truthfulqa.js'

// Prompts, few-shot rules and metrics of lm-evaluation-harness 0.4.13's tasks of these names.

const arc: ChoiceTask = { fewShot: 'random', document: question }

const hellaswag: ChoiceTask = {
  fewShot: 'random',
  drawsOneMore: true, // the harness compares its few-shot split with a test split, and HellaSwag names neither
  document(row, number, where) {
    if (row.ctx_a === undefined) return query(row, number, where)
    const context = `${textOf(row, 'ctx_a', where)} ${capitalize(textOf(row, 'ctx_b', where))}`
    const choices = textsOf(row.endings, `${where}: endings`).map(withoutMarkup)
    const gold = goldOf({ label: row.label }, { choices }, where)
    return {
      id: idOf({ id: row.id ?? row.ind }, number),
      context: withoutMarkup(`${textOf(row, 'activity_label', where)}: ${context}`),
      choices,
      gold,
      metrics: accuracies(choices, gold),
    }
  },
}

/** HellaSwag's texts without the marks that WikiHow's headings left. */
function withoutMarkup(text: string): string {
  return strip(text)
    .replaceAll(' [title]', '. ')
    .replace(/\[[^\n]*?\]/g, '')
    .replaceAll('  ', ' ')
}

const letters = ['A', 'B', 'C', 'D']

const mmlu: ChoiceTask = {
  fewShot: 'first',
  description: ({ group = '' }) =>
    `The following are multiple choice questions (with answers) about ${group.replaceAll('_', ' ')}.\n\n`,
  categories: mmluCategories,
  document(row, number, where) {
    const { choices } = choicesOf(row, where)
    if (choices.length !== 4) throw wrong(`${where}: choices`, 'four choices', choices)
    const lines = choices.map((choice, i) => `${letters[i]}. ${choice}\n`).join('')
    const gold = goldOf(row, { choices }, where)
    const metrics = accuracies(letters, gold)
    return {
      id: idOf(row, number),
      group: textOf(row, 'subject', where),
      context: `${strip(textOf(row, 'question', where))}\n${lines}Answer:`,
      choices: letters,
      gold,
      metrics: (logprobs) => ({ acc: metrics(logprobs).acc }),
    }
  },
}

const multipleChoice: ChoiceTask = {
  fewShot: 'random',
  drawsOneMore: true,
  document: (row, number, where) =>
    row.query === undefined ? question(row, number, where) : query(row, number, where),
}

/** ARC's form. */
function question(row: Fields, number: number, where: string): ChoiceDocument {
  const context = `Question: ${textOf(row, 'question', where)}\nAnswer:`
  return { ...query({ ...row, query: context }, number, where) }
}

/** A text and its continuations, as they are. */
function query(row: Fields, number: number, where: string): ChoiceDocument {
  const given = choicesOf(row, where)
  const gold = goldOf(row, given, where)
  return {
    id: idOf(row, number),
    context: textOf(row, 'query', where),
    choices: given.choices,
    gold,
    metrics: accuracies(given.choices, gold),
  }
}

export const choiceTasks = {
  arc,
  hellaswag,
  mmlu,
  truthfulqa: truthfulQa,
  'multiple-choice': multipleChoice,
} as const satisfies Record<string, ChoiceTask>

export type ChoiceTaskName = keyof typeof choiceTasks
