import { join } from 'node:path'
import { quickstart } from '../quickstart/quickstart.js'
import type { Register } from './context.js'
import { count, withDevice } from './options.js'

interface Flags {
  out: string
  seed: number
  device: string
}

export const registerQuickstart: Register = (program, { signal, stdout }) => {
  const command = program
    .command('quickstart')
    .description('dSFT, ranking and dDPO of a small model, on generated data, in minutes.')
    .option('--out <dir>', 'folder for all that is made', join('runs', 'quickstart'))
    .option('--seed <n>', 'of data, weights and sampling', count(0), 42)
  withDevice(command).action(async (flags: Flags) => {
    await quickstart({ ...flags, signal, stream: stdout })
  })
}
