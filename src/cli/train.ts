import type { Command } from 'commander'
import { loadRecipe } from '../recipe/recipe.js'
import { dpo } from '../train/dpo.js'
import { sft } from '../train/sft.js'
import type { RunOptions, RunResult } from '../train/story.js'
import type { CliContext, Register } from './context.js'
import { withDevice } from './options.js'

interface Flags {
  device: string
  resume?: true | string
  profile?: string
  json?: true
}

export const registerSft: Register = (program, context) => {
  const command = program
    .command('sft')
    .description('Distilled supervised fine-tuning, from a recipe.')
  addTraining(command, context, async (file, overrides, options) =>
    sft(await loadRecipe('sft', file, overrides), options),
  )
}

export const registerDpo: Register = (program, context) => {
  const command = program
    .command('dpo')
    .description('Distilled direct preference optimisation, from a recipe.')
  addTraining(command, context, async (file, overrides, options) =>
    dpo(await loadRecipe('dpo', file, overrides), options),
  )
}

type Run = (file: string, overrides: string[], options: RunOptions) => Promise<RunResult>

function addTraining(command: Command, context: CliContext, run: Run): void {
  command
    .argument('<recipe>', 'a YAML file with the keys of alignment-handbook and TRL')
    .argument('[overrides...]', 'its keys: --learning_rate=1e-5 --max_steps=100')
    .option('--resume [checkpoint]', 'go on from the latest complete checkpoint, or from this one')
    .option('--profile <file>', 'write what each op of steps 2 to 4 takes, as Chrome-trace events')
    .option('--json', 'print the final metrics as a JSON object')
    .allowUnknownOption()
  withDevice(command).action(async (recipe: string, rest: string[], flags: Flags) => {
    const resume = flags.resume === undefined ? [] : [`--resume_from_checkpoint=${flags.resume}`]
    const { signal, stderr, stdout } = context
    const options = {
      device: flags.device,
      signal,
      stream: stderr,
      ...(flags.profile !== undefined && { profile: flags.profile }),
    }
    const result = await run(recipe, [...rest, ...resume], options)
    if (flags.json) {
      const { outputDir, steps, stopped, metrics } = result
      stdout.write(`${JSON.stringify({ outputDir, steps, stopped, metrics })}\n`)
    }
  })
}
