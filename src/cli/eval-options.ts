import type { Command } from 'commander'
import type { AnswerOptions } from '../eval/run.js'
import type { CliContext } from './context.js'
import { count, type ModelOptions, withDevice, withDType } from './options.js'

/** Options of every evaluation whose answers are written out and judged. */
export function withAnswers(command: Command, maxNewTokens: number): Command {
  command
    .option('--out <dir>', 'where results go; default for a model folder: eval/TASK in it')
    .option('--base-url <url>', 'MODEL is the name of a model at this OpenAI-compatible endpoint')
    .option('--api-key-env <name>', "environment variable that holds the endpoint's key")
    .option('--model-id <name>', "the model's name in the files")
    .option('--max-new-tokens <n>', 'new tokens at most, per answer', count(1), maxNewTokens)
    .option('--batch-size <n>', 'prompts computed together', count(1), 16)
    .option('--judge-model <name>', 'have the answers judged by this model')
    .option('--judge-base-url <url>', "its endpoint; default: OpenAI's")
    .option('--judge-api-key-env <name>', 'environment variable that holds its key')
    .option('--concurrency <n>', 'requests open at once', count(1), 8)
  return withDType(withDevice(command)).option('--json', 'the result as one JSON object')
}

export interface AnswerFlags extends ModelOptions {
  out?: string
  baseUrl?: string
  apiKeyEnv?: string
  modelId?: string
  maxNewTokens: number
  batchSize: number
  judgeModel?: string
  judgeBaseUrl?: string
  judgeApiKeyEnv?: string
  concurrency: number
  json?: true
}

export function answerOptions(
  model: string | undefined,
  flags: AnswerFlags,
  { signal, stderr }: CliContext,
): AnswerOptions {
  const { judgeModel, judgeBaseUrl: baseUrl, judgeApiKeyEnv: apiKeyEnv, ...rest } = flags
  const judge = judgeModel === undefined ? undefined : { model: judgeModel, baseUrl, apiKeyEnv }
  return { ...rest, model, judge, signal, stream: stderr }
}
