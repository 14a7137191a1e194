import { cpus } from 'node:os'
import { cpuIsas, device as openDevice } from '../device/device.js'
import { version } from '../version.js'
import type { Register } from './context.js'
import { withDevice } from './options.js'
import { bytes, table } from './output.js'

export const addInspectDevice: Register = (inspect, { stdout }) => {
  const command = inspect
    .command('device')
    .description('What this machine computes with.')
    .option('--json', 'as a JSON object')
  withDevice(command).action((flags: { device: string; json?: true }) => {
    const on = openDevice(flags.device)
    const facts = {
      device: on.name,
      processor: cpus()[0]?.model.trim() ?? 'unknown',
      instructions: on.isa,
      available: cpuIsas(),
      threads: on.threads,
      memoryBytes: on.capacity,
      cuda: 'not in this build',
      node: process.version,
      westwind: version,
    }
    if (flags.json) {
      stdout.write(`${JSON.stringify(facts)}\n`)
      return
    }
    const { memoryBytes, available, ...rest } = facts
    stdout.write(table({ ...rest, available: available.join(', '), memory: bytes(memoryBytes) }))
  })
}
