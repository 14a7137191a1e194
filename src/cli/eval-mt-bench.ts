import { WestwindError } from '../errors.js'
import { mtBench } from '../eval/mt-bench/mt-bench.js'
import { readQuestions } from '../eval/mt-bench/questions.js'
import {
  type ModelScores,
  readJudgments,
  type Score,
  scoreJudgments,
} from '../eval/mt-bench/score.js'
import type { CliContext, Register } from './context.js'
import { type AnswerFlags, answerOptions, withAnswers } from './eval-options.js'

interface Flags extends AnswerFlags {
  questions?: string
  references?: string
  answers?: string
  judgePrompts?: string
  system?: string
  judgments?: string
}

export const registerMtBench: Register = (program, context) => {
  const command = program
    .command('mt-bench [model]')
    .description('MT-Bench: answer two-turn questions, have a judge rate them from 1 to 10.')
    .option('--questions <file>', "FastChat's question.jsonl")
    .option('--references <file>', "FastChat's reference_answer/gpt-4.jsonl, which the judge needs")
    .option('--answers <file>', "answers in FastChat's format, instead of a model that answers")
    .option('--judge-prompts <file>', "like FastChat's judge_prompts.jsonl; default: our wording")
    .option('--system <text>', 'begin with a system turn; default: none')
    .option('--judgments <file>', 'only score judgments that are there (.jsonl, .jsonl.gz)')
  withAnswers(command, 1024)
  command.action((model: string | undefined, flags: Flags) => run(model, flags, context))
}

async function run(model: string | undefined, flags: Flags, context: CliContext): Promise<void> {
  const { stdout, stderr } = context
  const { questions, judgments, json } = flags
  if (judgments !== undefined) {
    const known = questions === undefined ? [] : await readQuestions(questions)
    const scores = scoreJudgments(await readJudgments(judgments), known)
    stdout.write(json ? `${JSON.stringify(scores)}\n` : scoreTable(scores))
    return
  }
  if (questions === undefined) {
    throw new WestwindError('ERR_INVALID_ARG', 'give --questions FILE, or --judgments FILE')
  }
  const result = await mtBench({ ...flags, ...answerOptions(model, flags, context), questions })
  const { out, scores, answered } = result
  if (json) stdout.write(`${JSON.stringify(result)}\n`)
  else if (scores) stdout.write(scoreTable([scores]))
  stderr.write(`${answered} questions answered${scores ? '' : ', not judged'} -> ${out}\n`)
}

/** A block per model: means over all and by category, each over both turns and by turn. */
function scoreTable(scores: readonly ModelScores[]): string {
  return scores
    .map(({ model, categories, unrated, ...all }) => {
      const rows = Object.entries(categories).map(([name, score]) => row(name, score))
      const left = unrated > 0 ? `${unrated} judgments without a rating were left out\n` : ''
      const head = `${model.padEnd(kNameWidth)}   mean  turn 1  turn 2    n\n`
      return head + rows.join('') + row('all', all) + left
    })
    .join('\n')
}

const kNameWidth = 28

function row(name: string, { score, n, turns }: Score & { turns: Record<string, Score> }): string {
  const cells = [score, turns[1]?.score ?? null, turns[2]?.score ?? null]
  const numbers = cells.map((x) => (x === null ? '-' : x.toFixed(2)).padStart(8)).join('')
  return `${name.padEnd(kNameWidth - 1)}${numbers}${String(n).padStart(5)}\n`
}
