import { type Command, InvalidArgumentError, Option } from 'commander'
import type { ModelDType } from '../model/model.js'

/** `--device`, as every command has it. */
export function withDevice(command: Command): Command {
  return command.option('--device <name>', 'auto, cpu, cuda or cuda:N', 'auto')
}

/** `--dtype` of commands that only run a model. */
export function withDType(command: Command): Command {
  const dtype = new Option('--dtype <type>', 'compute in this type; auto: that of the checkpoint')
  return command.addOption(dtype.choices(['auto', 'f32', 'bf16']).default('auto'))
}

export interface ModelOptions {
  device: string
  dtype: ModelDType | 'auto'
}

/** How tokens are chosen; the defaults are the command's. */
export function withSampling(
  command: Command,
  defaults: { maxNewTokens: number; temperature: number; topP: number; topK: number },
): Command {
  const { maxNewTokens, temperature, topP, topK } = defaults
  return command
    .option('--max-new-tokens <n>', 'new tokens at most', count(1), maxNewTokens)
    .option('--temperature <t>', '0: the most likely token', number(0, 1e6), temperature)
    .option('--top-p <p>', 'the likeliest tokens with this probability', number(0, 1), topP)
    .option('--top-k <k>', 'the k likeliest tokens; 0: all', count(0), topK)
    .option('--seed <n>', 'same seed, same text', integer, 0)
    .option('--raw', 'no chat template; the default where the model has none')
}

export interface SamplingFlags {
  maxNewTokens: number
  temperature: number
  topP: number
  topK: number
  seed: number
  raw?: true
}

/** A parser of counts of at least `least`. */
export function count(least: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (text.trim() !== '' && Number.isSafeInteger(value) && value >= least) return value
    throw new InvalidArgumentError(`Expected an integer of at least ${least}.`)
  }
}

export function integer(text: string): number {
  const value = Number(text)
  if (text.trim() !== '' && Number.isSafeInteger(value)) return value
  throw new InvalidArgumentError('Expected an integer.')
}

/** A parser of numbers in a range. */
export function number(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (text.trim() !== '' && value >= least && value <= most) return value
    throw new InvalidArgumentError(`Expected a number from ${least} to ${most}.`)
  }
}

/** Gathers an option that may be repeated. */
export function collect(text: string, before: string[] = []): string[] {
  return [...before, text]
}
