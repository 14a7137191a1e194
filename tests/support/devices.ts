import { cpuIsas, cudaDevices, type Device, openCpu, openCuda } from '../../src/device/device.js'

const kinds = (process.env.WESTWIND_TEST_DEVICES ?? 'cpu,auto').split(',')

/**
 * Every device the op tests run on: the CPU once per instruction set that this machine has, and its first
 * GPU. `WESTWIND_TEST_DEVICES` (cpu, cuda) leaves one kind out; asking for cuda where there is none fails.
 */
export const devices: Device[] = open(() => isas().map((isa) => openCpu({ isa })))

/** Every device that a whole model is tested on: the CPU with its best instruction set, and the first GPU. */
export const engines: Device[] = open(() => [openCpu()])

function open(cpus: () => Device[]): Device[] {
  return kinds.flatMap((kind) => {
    if (kind === 'cpu') return cpus()
    if (kind === 'auto' && cudaDevices().devices.length === 0) return []
    return [openCuda()]
  })
}

function isas(): string[] {
  return process.env.WESTWIND_ISA ? [process.env.WESTWIND_ISA] : cpuIsas()
}

/** A device of the same kind, of its own: a CPU with that many threads, or another stream of the GPU. */
export function another(device: Device, threads: number): Device {
  return device.name === 'cpu' ? openCpu({ isa: device.isa, threads }) : openCuda()
}

/** Title of a device in a test: `describe.each(devices.map(named))('op on %s', (_, device) => ...)`. */
export function named(device: Device): [string, Device] {
  return [`${device.name} ${device.isa}`, device]
}
