import { createInterface } from 'node:readline'
import { WestwindError } from '../errors.js'
import { ChatSession } from '../model/chat-session.js'
import { loadModel } from '../model/model.js'
import type { CliContext, Register } from './context.js'
import {
  type ModelOptions,
  type SamplingFlags,
  withDevice,
  withDType,
  withSampling,
} from './options.js'

type Flags = ModelOptions & SamplingFlags

export const registerChat: Register = (program, context) => {
  const command = program
    .command('chat <model>')
    .description(
      'Talk to a model. /reset starts over, /exit or Ctrl-D ends, Ctrl-C stops an answer.',
    )
  withSampling(command, { maxNewTokens: 512, temperature: 0.7, topP: 0.95, topK: 50 })
  withDType(withDevice(command))
  command.action((model: string, flags: Flags) => chat(model, flags, context))
}

async function chat(path: string, flags: Flags, context: CliContext): Promise<void> {
  const { stdin, stdout, stderr, signal } = context
  using model = await loadModel(path, { device: flags.device, dtype: flags.dtype })
  using session = new ChatSession(model, flags)
  const terminal = Boolean(stdin.isTTY && stdout.isTTY)
  if (terminal) stderr.write('/reset starts over, /exit ends\n')
  const lines = createInterface({
    input: stdin,
    terminal,
    prompt: '> ',
    ...(terminal && { output: stdout }),
  })
  const interrupt = new Interrupt()
  // On a terminal Ctrl-C comes as a key: it stops the answer, or ends where there is none.
  lines.on('SIGINT', () => interrupt.fire() || lines.close())
  const onAbort = () => {
    interrupt.fire()
    lines.close()
  }
  signal.addEventListener('abort', onAbort)
  try {
    if (terminal) lines.prompt()
    for await (const line of lines) {
      if (signal.aborted || line.trim() === '/exit') break
      if (line.trim() === '/reset') session.reset()
      else if (line.trim() !== '') await answer(session, line, interrupt, context)
      if (terminal) lines.prompt()
    }
  } finally {
    signal.removeEventListener('abort', onAbort)
    lines.close()
  }
}

/** Prints the answer while it comes. What can be helped by the next line is told and survived. */
async function answer(
  session: ChatSession,
  line: string,
  interrupt: Interrupt,
  { stdout, stderr }: CliContext,
): Promise<void> {
  try {
    for await (const { text } of session.say(line, interrupt.begin())) stdout.write(text)
    stdout.write('\n')
  } catch (error) {
    if (!(error instanceof WestwindError)) throw error
    if (error.code !== 'ERR_ABORTED' && error.code !== 'ERR_INVALID_ARG') throw error
    stdout.write('\n')
    if (error.code === 'ERR_INVALID_ARG') stderr.write(`${error.message} (/reset starts over)\n`)
  } finally {
    interrupt.end()
  }
}

/** A signal per answer. */
class Interrupt {
  #current: AbortController | undefined

  begin(): AbortSignal {
    this.#current = new AbortController()
    return this.#current.signal
  }

  end(): void {
    this.#current = undefined
  }

  /** Stops the answer under way; false: there is none. */
  fire(): boolean {
    this.#current?.abort()
    return this.#current !== undefined
  }
}
