import { preparePairs, prepareSft } from '../data/dataset.js'
import { inspectData } from '../data/inspect.js'
import { loadMixture } from '../data/mixture.js'
import type { Row } from '../data/source.js'
import { WestwindError } from '../errors.js'
import type { DpoConfig, SftConfig } from '../recipe/config.js'
import { encodeOptions } from '../recipe/encode-options.js'
import { loadRecipe } from '../recipe/recipe.js'
import { loadTextInputs } from '../train/inputs.js'
import type { CliContext, Register } from './context.js'
import { count, withDevice } from './options.js'
import { useColor } from './output.js'

interface Flags {
  count: number
  json?: true
}

export const addInspectData: Register = (inspect, context) => {
  const command = inspect
    .command('data')
    .description('Training examples of a recipe: text, ids and mask, then counts over all of them.')
    .argument('<recipe>', 'an SFT or DPO recipe')
    .argument('[overrides...]', 'its keys: --max_length=512')
    .option('-n, --count <n>', 'examples to show', count(0), 5)
    .option('--json', 'the counts alone, as a JSON object')
    .allowUnknownOption()
  withDevice(command).action((recipe: string, rest: string[], flags: Flags) =>
    show(recipe, rest, flags, context),
  )
}

async function show(
  file: string,
  overrides: string[],
  flags: Flags,
  { stdout, signal }: CliContext,
): Promise<void> {
  const { config, rows } = await readRecipe(file, overrides, signal)
  const { tokenizer, template } = await loadTextInputs(config)
  const options = { tokenizer, template, encode: encodeOptions(config), signal, name: 'train' }
  const prepared =
    config.kind === 'sft'
      ? await prepareSft(rows, { ...options, textField: config.datasetTextField })
      : await preparePairs(rows, options)
  if (flags.json) {
    stdout.write(`${JSON.stringify(prepared.statistics)}\n`)
    return
  }
  stdout.write(
    `${inspectData(prepared, { count: flags.count, color: useColor(stdout), tokenizer })}\n`,
  )
}

/** The recipe as that of an SFT or a DPO run: as its keys say, else as its rows do. */
async function readRecipe(
  file: string,
  overrides: string[],
  signal: AbortSignal,
): Promise<{ config: SftConfig | DpoConfig; rows: Row[] }> {
  const asSft = await attempt(loadRecipe('sft', file, overrides))
  const asDpo = await attempt(loadRecipe('dpo', file, overrides))
  const candidates = [asSft, asDpo].flatMap((read) => {
    return read instanceof WestwindError ? [] : [read.config]
  })
  if (candidates.length === 0) throw fewerProblems(asSft, asDpo)
  const first = candidates[0]!
  const { train: rows } = await loadMixture(first.data, { signal })
  const pairs = rows.some((row) => 'chosen' in row || 'chosen_ids' in row)
  const fitting = candidates.find(({ kind }) => kind === (pairs ? 'dpo' : 'sft'))
  return { config: fitting ?? first, rows }
}

async function attempt<T>(reading: Promise<T>): Promise<T | WestwindError> {
  try {
    return await reading
  } catch (error) {
    if (error instanceof WestwindError) return error
    throw error
  }
}

/** Of two readings that failed, the complaint of the one that was nearer: the shorter list. */
function fewerProblems(...readings: unknown[]): unknown {
  const errors = readings.filter((error) => error instanceof WestwindError)
  const lines = (error: WestwindError) => error.message.split('\n').length
  return errors.sort((a, b) => lines(a) - lines(b))[0]
}
