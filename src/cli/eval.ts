import type { Register } from './context.js'
import { registerAlpacaEval } from './eval-alpaca.js'
import { registerChoices } from './eval-choice.js'
import { registerMtBench } from './eval-mt-bench.js'
import { registerPerplexity } from './eval-perplexity.js'
import { registerPreferences } from './eval-preferences.js'

/** One file per task. */
const tasks: Register[] = [
  registerMtBench,
  registerAlpacaEval,
  registerChoices,
  registerPreferences,
  registerPerplexity,
]

export const registerEval: Register = (program, context) => {
  const command = program
    .command('eval')
    .description(
      'Measure a model on a benchmark; results go to DIR/results.json and samples.jsonl.',
    )
  for (const register of tasks) register(command, context)
}
