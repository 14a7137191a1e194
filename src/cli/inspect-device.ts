import { cpus } from 'node:os'
import { cpuIsas, cudaDevices, cudaVersion, device as openDevice } from '../device/device.js'
import type { CudaDevice } from '../native/addon-types.js'
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
    const { devices, driverVersion, missing } = cudaDevices()
    const facts = {
      device: on.name,
      processor: on.product || (cpus()[0]?.model.trim() ?? 'unknown'),
      instructions: on.isa,
      units: on.units,
      memoryBytes: on.capacity,
      available: cpuIsas(),
      cudaDriver: driverVersion > 0 ? cudaVersion(driverVersion) : null,
      cuda: devices,
      cudaMissing: missing || null,
      node: process.version,
      westwind: version,
    }
    if (flags.json) {
      stdout.write(`${JSON.stringify(facts)}\n`)
      return
    }
    const { memoryBytes, available, cuda, cudaDriver, cudaMissing, ...rest } = facts
    const rows = Object.fromEntries(
      cuda.map((gpu, i) => [
        `cuda:${i}`,
        `${describe(gpu)}, runs ${gpu.image || 'nothing of this build'}`,
      ]),
    )
    stdout.write(
      table({
        ...rest,
        memory: bytes(memoryBytes),
        'cpu instructions': available.join(', '),
        'cuda driver': cudaMissing ?? `CUDA ${cudaDriver}`,
        ...rows,
      }),
    )
  })
}

function describe({ name, arch, memoryBytes, sms }: CudaDevice): string {
  return `${name}, sm_${arch}, ${bytes(memoryBytes)}, ${sms} multiprocessors`
}
