import { runPreferences } from '../eval/run-scoring.js'
import type { CliContext, Register } from './context.js'
import { report, type ScoringFlags, withScoring } from './eval-shared.js'
import { count, number } from './options.js'

interface Flags extends ScoringFlags {
  reference: string
  data: string
  split: string
  beta: number
  maxLength?: number
  klSamples: number
  maxNewTokens: number
  seed: number
}

export const registerPreferences: Register = (parent, context) => {
  const command = parent
    .command('preferences <policy>')
    .description('Reward accuracy, margins and KL of a policy against its reference.')
    .requiredOption('--reference <model>', 'the model that the policy was trained from')
    .requiredOption('--data <data>', 'preference pairs: a file, a folder or a Hub id')
    .option('--split <name>', 'of the data', 'test_prefs')
    .option('--beta <x>', 'factor of the rewards', number(1e-9, 1e9), 0.1)
    .option('--max-length <n>', 'longest prompt and answer; default: the models’ context', count(1))
    .option('--kl-samples <n>', 'prompts that the policy answers for the KL estimate', count(0), 64)
    .option('--max-new-tokens <n>', 'longest of these answers', count(1), 128)
    .option('--seed <n>', 'of these answers', count(0), 0)
  withScoring(command).action((policy: string, flags: Flags) => evaluate(policy, flags, context))
}

async function evaluate(model: string, flags: Flags, context: CliContext): Promise<void> {
  const { signal, stderr } = context
  report(await runPreferences({ ...flags, model, signal, stream: stderr }), flags, context)
}
