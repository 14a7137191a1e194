import { runPerplexity } from '../eval/run-scoring.js'
import type { CliContext, Register } from './context.js'
import { report, type ScoringFlags, withScoring } from './eval-shared.js'
import { count } from './options.js'

interface Flags extends ScoringFlags {
  data: string[]
  stride?: number
}

export const registerPerplexity: Register = (parent, context) => {
  const command = parent
    .command('perplexity <model>')
    .description('Perplexity of texts, per word, byte and token.')
    .requiredOption('--data <files...>', 'rows with text or messages')
    .option('--stride <n>', 'tokens predicted per window; default: the model’s context', count(1))
  withScoring(command).action((model: string, flags: Flags) => evaluate(model, flags, context))
}

async function evaluate(model: string, flags: Flags, context: CliContext): Promise<void> {
  const { signal, stderr } = context
  report(await runPerplexity({ ...flags, model, signal, stream: stderr }), flags, context)
}
