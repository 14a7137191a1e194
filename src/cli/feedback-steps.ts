import type { Command } from 'commander'
import type { FeedbackConfig } from '../feedback/config.js'
import { formatCounts, formatReport } from '../feedback/format-report.js'
import {
  type Estimate,
  estimateGenerate,
  generateAnswers,
  type StepOptions,
} from '../feedback/generate-answers.js'
import { loadFeedbackConfig } from '../feedback/load-config.js'
import { estimateRate, rateAnswers } from '../feedback/rate-answers.js'
import { runFeedback } from '../feedback/run.js'
import { showCost } from '../teacher/budget.js'
import type { CliContext, Register } from './context.js'

interface Flags {
  dryRun?: true
  json?: true
}

interface Step {
  run: (config: FeedbackConfig, options: StepOptions) => Promise<object>
  estimate: (config: FeedbackConfig, options: StepOptions) => Promise<Estimate>
}

export const addFeedbackGenerate: Register = (feedback, context) => {
  const command = feedback
    .command('generate')
    .description('Answers of several models to prompts; --dry-run tells what it would cost.')
  addStep(command, context, { run: generateAnswers, estimate: estimateGenerate })
}

export const addFeedbackRate: Register = (feedback, context) => {
  const command = feedback
    .command('rate')
    .description('Scores of a teacher for those answers; --dry-run tells what they would cost.')
  addStep(command, context, { run: rateAnswers, estimate: estimateRate })
}

export const addFeedbackRun: Register = (feedback, { signal, stdout, stderr }) => {
  const command = feedback
    .command('run')
    .description('generate, rate and binarize, one after the other.')
    .option('--json', 'print the three results as a JSON object')
  withConfig(command).action(async (file: string, overrides: string[], { json }: Flags) => {
    const config = await loadFeedbackConfig(file, overrides)
    const report = await runFeedback(config, { signal, stream: stderr })
    const { generate, rate, pairs } = report
    const text = [formatCounts(generate), formatCounts(rate), formatReport(pairs)].join('\n')
    stdout.write(`${json ? JSON.stringify(report) : text}\n`)
    for (const warning of pairs.warnings) stderr.write(`warning: ${warning}\n`)
  })
}

/** The file and keys that win over it. */
function withConfig(command: Command): Command {
  return command
    .argument('<config>', 'a YAML file; docs/feedback.md lists its keys')
    .argument('[overrides...]', 'its keys: --seed=1 --generate.concurrency=16')
    .allowUnknownOption()
}

function addStep(command: Command, context: CliContext, step: Step): void {
  withConfig(command)
    .option('--dry-run', 'send nothing; say what would be asked')
    .option('--json', 'print the result as a JSON object')
    .action(async (file: string, overrides: string[], flags: Flags) => {
      const { signal, stdout, stderr } = context
      const config = await loadFeedbackConfig(file, overrides)
      if (flags.dryRun) {
        const found = await step.estimate(config, { signal })
        stdout.write(`${flags.json ? JSON.stringify(found) : estimateWords(found)}\n`)
        return
      }
      const counts = await step.run(config, { signal, stream: stderr })
      stdout.write(`${flags.json ? JSON.stringify(counts) : formatCounts(counts)}\n`)
    })
}

function estimateWords({ prompts, local, most }: Estimate): string {
  const { requests, prompt_tokens, completion_tokens, cost } = most
  return [
    `${prompts} prompts; nothing was sent`,
    `${requests} requests to endpoints`,
    ...(local > 0 ? [`${local} answers of local models`] : []),
    `about ${prompt_tokens} prompt tokens (a token per 4 bytes, 4 per message)`,
    `at most ${completion_tokens} completion tokens (max_tokens each)`,
    `at most ${showCost(cost)} by the prices given, without retries`,
  ].join('\n')
}
