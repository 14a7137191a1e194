import { zephyr } from '../pipeline/zephyr.js'
import type { Register } from './context.js'
import { withDevice } from './options.js'

interface Flags {
  device: string
  from?: string
  until?: string
  dryRun?: true
  json?: true
}

export const registerZephyr: Register = (program, { signal, stdout, stderr }) => {
  const command = program
    .command('zephyr')
    .description('dSFT, AI feedback, dDPO, evaluation and report, from one file.')
    .argument('<pipeline>', 'a YAML file with the sections sft, feedback, dpo, eval, report')
    .option('--from <stage>', 'begin with this stage, take those before it as they are')
    .option('--until <stage>', 'end with this stage')
    .option('--dry-run', 'say which stages would run, and why')
    .option('--json', 'print what became of each stage as a JSON object')
  withDevice(command).action(async (pipeline: string, { json, ...flags }: Flags) => {
    const result = await zephyr({ ...flags, pipeline, signal, stream: stderr })
    if (json) stdout.write(`${JSON.stringify(result)}\n`)
  })
}
