import { Option } from 'commander'
import { logLevels, type ServeOptions, serve } from '../serve/server.js'
import type { CliContext, Register } from './context.js'
import { count, type ModelOptions, withDevice, withDType } from './options.js'

type Flags = ModelOptions & Omit<ServeOptions, 'models' | 'apiKey'>

export const registerServe: Register = (program, context) => {
  const command = program
    .command('serve <models...>')
    .description('Answer over HTTP in the formats of OpenAI: completions, chat, log-probs.')
    .option('--port <n>', '0: one that is free', count(0), 8000)
    .option('--host <name>', 'any but this machine needs WESTWIND_API_KEY', '127.0.0.1')
    .option('--max-batch <n>', 'texts of a model computed together', count(1), 16)
    .option('--max-queue <n>', 'requests that may wait; more are turned away', count(0), 256)
    .option('--max-length <n>', 'tokens of prompt and answer; the context of the model', count(2))
    .option('--request-timeout <s>', 'seconds that an answer may take', count(1), 600)
    .option('--shutdown-timeout <s>', 'seconds to finish answers after a signal', count(0), 30)
  const level = new Option('--log-level <level>', 'what is logged to standard error')
  command.addOption(level.choices(logLevels).default('info'))
  withDType(withDevice(command))
  command.action((models: string[], flags: Flags) => run(models, flags, context))
}

/** Runs until the first signal, and until what was under way is answered. */
async function run(models: string[], flags: Flags, context: CliContext): Promise<void> {
  const { stdout, signal } = context
  const server = await serve({ ...flags, models })
  if (!signal.aborted) stdout.write(`listening on ${server.url}\n`)
  await aborted(signal)
  await server.close()
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}
