import { Option } from 'commander'
import { WestwindError } from '../errors.js'
import { alpacaEval, kMaxNewTokens } from '../eval/alpaca/alpaca-eval.js'
import { annotationWinRates, type WinRate } from '../eval/alpaca/score.js'
import type { JudgeMethod } from '../eval/alpaca/verdict.js'
import type { CliContext, Register } from './context.js'
import { type AnswerFlags, answerOptions, withAnswers } from './eval-options.js'
import { integer } from './options.js'

interface Flags extends AnswerFlags {
  instructions?: string
  outputs?: string
  reference?: string
  judgeMethod: JudgeMethod
  judgePrompt?: string
  system: string | false
  seed: number
  annotations?: string
}

export const registerAlpacaEval: Register = (program, context) => {
  const method = new Option('--judge-method <method>', 'by the probability of m or M, or by a list')
  const command = program
    .command('alpaca-eval [model]')
    .description('AlpacaEval: answer instructions, have a judge compare with a reference model.')
    .option('--instructions <file>', 'rows with instruction and dataset (alpaca_eval.json, …)')
    .option('--outputs <file>', 'model_outputs.json that is there, instead of a model that answers')
    .option('--reference <file>', "the reference model's outputs, which the judge needs")
    .addOption(method.choices(['weighted', 'rank']).default('weighted'))
    .option('--judge-prompt <file>', "like AlpacaEval's prompt files; default: our wording")
    .option('--system <text>', 'content of the system turn', '')
    .option('--no-system', 'no system turn')
    .option('--seed <n>', 'of sampling and of the order that the judge sees', integer, 0)
    .option('--annotations <file>', 'only score annotations that are there (.json, .parquet, …)')
  withAnswers(command, kMaxNewTokens)
  command.action((model: string | undefined, flags: Flags) => run(model, flags, context))
}

async function run(model: string | undefined, flags: Flags, context: CliContext): Promise<void> {
  const { stdout, stderr } = context
  const { annotations, json, system, instructions, outputs } = flags
  if (annotations !== undefined) {
    const runs = await annotationWinRates(annotations)
    if (json) stdout.write(`${JSON.stringify(runs)}\n`)
    else stdout.write(winRateTable(runs))
    return
  }
  if (instructions === undefined && outputs === undefined) {
    const need = 'give --instructions FILE, --outputs FILE or --annotations FILE'
    throw new WestwindError('ERR_INVALID_ARG', need)
  }
  const result = await alpacaEval({
    ...flags,
    ...answerOptions(model, flags, context),
    system: system === false ? null : system,
  })
  const { scores, answered, avg_length, out } = result
  if (json) stdout.write(`${JSON.stringify(result)}\n`)
  else if (scores) stdout.write(winRateTable([{ model: result.model, ...scores }]))
  const length = `${avg_length.toFixed(0)} characters on average`
  stderr.write(`${answered} answers, ${length}${scores ? '' : ', not judged'} -> ${out}\n`)
}

function winRateTable(runs: readonly (WinRate & { model: string; annotator?: string })[]): string {
  const lines = runs.map(({ model, annotator = '', win_rate, standard_error, ...counts }) => {
    const { n_wins, n_wins_base, n_draws, n_total } = counts
    const rates = [win_rate, standard_error].map((x) => (x === null ? '-' : x.toFixed(2)))
    const cells = [...rates, n_wins, n_wins_base, n_draws, n_total]
    return row(model, annotator, cells)
  })
  const head = ['win rate', 's.e.', 'wins', 'losses', 'draws', 'n']
  return row('model', runs.some(({ annotator }) => annotator) ? 'judge' : '', head) + lines.join('')
}

function row(model: string, annotator: string, cells: readonly (string | number)[]): string {
  const numbers = cells.map((cell, i) => String(cell).padStart(i === 0 ? 9 : 7)).join('')
  return `${model.padEnd(36)}${numbers}${annotator && `  ${annotator}`}\n`
}
