import { constants } from 'node:os'
import { Command, CommanderError, Option } from 'commander'
import { WestwindError } from '../errors.js'
import { reason } from '../json.js'
import { version } from '../version.js'
import { registerBench } from './bench.js'
import { registerChat } from './chat.js'
import type { CliContext, Register } from './context.js'
import { registerEval } from './eval.js'
import { registerFeedback } from './feedback.js'
import { registerGenerate } from './generate.js'
import { registerInspect } from './inspect.js'
import { registerLogprobs } from './logprobs.js'
import { registerQuickstart } from './quickstart.js'
import { registerReport } from './report.js'
import { registerServe } from './serve.js'
import { registerDpo, registerSft } from './train.js'
import { registerZephyr } from './zephyr.js'

/** One file per command; the order is that of `--help`. */
const commands: Register[] = [
  registerQuickstart,
  registerZephyr,
  registerSft,
  registerDpo,
  registerFeedback,
  registerGenerate,
  registerChat,
  registerServe,
  registerLogprobs,
  registerEval,
  registerReport,
  registerInspect,
  registerBench,
]

/**
 * Runs a command line (without node and script).
 *
 * @returns the exit code: 0, 1 for an error, 3 where a budget is used up, 130 or 143 after SIGINT or SIGTERM
 */
export async function main(argv: readonly string[]): Promise<number> {
  const stop = new AbortController()
  let code = 0
  const onSignal = (name: 'SIGINT' | 'SIGTERM') => {
    if (stop.signal.aborted) process.exit(code)
    code = 128 + constants.signals[name]
    stop.abort()
  }
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal)
  for (const stream of [process.stdout, process.stderr]) stream.on('error', leaveOnClosedPipe)
  const { stdin, stdout, stderr } = process
  const program = createProgram({ signal: stop.signal, stdin, stdout, stderr })
  try {
    await program.parseAsync([...argv], { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError) code ||= error.exitCode
    else if (stop.signal.aborted && isAborted(error)) stderr.write(`${reason(error)}\n`)
    else code = report(error, argv)
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
  }
  return code
}

/** The program with all commands; docs are held against it. */
export function createProgram(context: CliContext): Command {
  const program = new Command('westwind')
    .description('Train chat models the way Zephyr was trained: dSFT, AI feedback, dDPO.')
    .version(version)
    .enablePositionalOptions() // `bench train --model` is an option of train, not of bench
    .option('--debug', 'with an error, also print where it arose (or set WESTWIND_DEBUG=1)')
  configure(program)
  for (const register of commands) register(program, context)
  for (const command of all(program)) {
    configure(command)
    command.addOption(new Option('--debug').hideHelp())
  }
  return program
}

/** Errors of usage as one line; thrown, so that the exit code is ours. */
function configure(command: Command): void {
  command.exitOverride().configureOutput({
    outputError: (text, write) => write(text.replace(/\n(?=\(Did you mean)/, ' ')),
  })
}

function all(program: Command): Command[] {
  return program.commands.flatMap((command) => [command, ...all(command)])
}

function isAborted(error: unknown): boolean {
  return error instanceof WestwindError && error.code === 'ERR_ABORTED'
}

function report(error: unknown, argv: readonly string[]): number {
  const debug = argv.includes('--debug') || Boolean(process.env.WESTWIND_DEBUG)
  process.stderr.write(`error: ${reason(error)}\n`)
  if (debug) process.stderr.write(`${describe(error)}\n`)
  else if (!(error instanceof WestwindError)) {
    process.stderr.write('This is a bug in westwind; WESTWIND_DEBUG=1 shows where.\n')
  }
  return error instanceof WestwindError && error.code === 'ERR_BUDGET' ? 3 : 1
}

/** The stack, with those of the causes. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const cause = error.cause === undefined ? '' : `\ncaused by ${describe(error.cause)}`
  return `${error.stack ?? error.message}${cause}`
}

/** The reader went away (`westwind … | head`): nothing is left to do. */
function leaveOnClosedPipe(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') process.exit(0)
  throw error
}
