import { readFile } from 'node:fs/promises'
import type { Message } from '../data/conversation.js'
import { readRows } from '../data/read-rows.js'
import { sftSource } from '../data/rows.js'
import { WestwindError } from '../errors.js'
import { reason } from '../json.js'
import { type Generation, generateStream, type Prompt } from '../model/generate.js'
import { loadModel } from '../model/model.js'
import type { CliContext, Register } from './context.js'
import {
  collect,
  count,
  type ModelOptions,
  type SamplingFlags,
  withDevice,
  withDType,
  withSampling,
} from './options.js'

interface Flags extends ModelOptions, SamplingFlags {
  prompt?: string[]
  prompts?: string
  batchSize: number
  json?: true
}

export const registerGenerate: Register = (program, context) => {
  const command = program
    .command('generate <model>')
    .description('Continue prompts with a model: a folder in the Hugging Face layout, or a Hub id.')
    .option('--prompt <text>', 'what to answer; may be repeated', collect)
    .option('--prompts <file>', 'one prompt per line, or rows with prompt or messages (.jsonl, …)')
    .option('--batch-size <n>', 'prompts computed together', count(1), 16)
    .option('--json', 'one JSON object per prompt')
  withSampling(command, { maxNewTokens: 256, temperature: 0, topP: 1, topK: 0 })
  withDType(withDevice(command))
  command.action((model: string, flags: Flags) => generate(model, flags, context))
}

async function generate(path: string, flags: Flags, context: CliContext): Promise<void> {
  const { stdout, signal } = context
  const prompts = await readPrompts(flags)
  using model = await loadModel(path, { device: flags.device, dtype: flags.dtype })
  const done = prompts.map((prompt): Partial<Generation> & { text: string; ids: number[] } => {
    return { prompt, text: '', ids: [] }
  })
  const alone = prompts.length === 1 && !flags.json
  let printed = 0
  for await (const event of generateStream(model, prompts, { ...flags, signal })) {
    const one = done[event.index]!
    one.text += event.text
    one.ids.push(event.id)
    if (alone) stdout.write(event.text)
    if (!event.finishReason) continue
    one.finishReason = event.finishReason
    while (done[printed]?.finishReason) {
      const { prompt, text, ids, finishReason } = done[printed++]!
      if (flags.json) stdout.write(`${JSON.stringify({ prompt, text, ids, finishReason })}\n`)
      else if (!alone) stdout.write(`── prompt ${printed}: ${title(prompt!)}\n${text}\n\n`)
    }
  }
  if (alone) stdout.write('\n')
}

function title(prompt: Prompt): string {
  const text = typeof prompt === 'string' ? prompt : JSON.stringify(prompt)
  const line = text.replace(/\s+/g, ' ')
  return line.length > 80 ? `${line.slice(0, 79)}…` : line
}

async function readPrompts({ prompt = [], prompts }: Flags): Promise<Prompt[]> {
  const fromFile = prompts === undefined ? [] : await promptsOf(prompts)
  const all = [...prompt, ...fromFile]
  if (all.length > 0) return all
  throw new WestwindError(
    'ERR_INVALID_ARG',
    prompts === undefined
      ? 'no prompt: give --prompt TEXT or --prompts FILE'
      : `${prompts} has no prompts`,
  )
}

async function promptsOf(file: string): Promise<Prompt[]> {
  if (/\.(jsonl|json|parquet)(\.gz)?$/.test(file)) {
    return (await readRows(file)).map((row, i) => promptOf(row, `${file}, row ${i + 1}`))
  }
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (cause) {
    throw new WestwindError('ERR_DATA', `${file} cannot be read: ${reason(cause)}`, { cause })
  }
  return text.split(/\r?\n/).filter((line) => line.trim() !== '')
}

/** `prompt` (a string or messages), else `messages` up to the last turn that is not the assistant's. */
function promptOf(row: Record<string, unknown>, where: string): Prompt {
  if (typeof row.prompt === 'string') return row.prompt
  const source = sftSource({ messages: row.prompt ?? row.messages }, where)
  return 'messages' in source ? withoutAnswer(source.messages) : []
}

function withoutAnswer(messages: Message[]): Message[] {
  const last = messages.findLastIndex(({ role }) => role !== 'assistant')
  return messages.slice(0, last + 1)
}
