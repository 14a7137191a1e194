import { cpuIsas, type Device, openCpu } from '../../src/device/device.js'

/** Every device the op tests run on: the CPU once per instruction set that this machine has. */
export const devices: Device[] = (
  process.env.WESTWIND_ISA ? [process.env.WESTWIND_ISA] : cpuIsas()
).map((isa) => openCpu({ isa }))

/** Title of a device in a test: `describe.each(devices.map(named))('op on %s', (_, device) => ...)`. */
export function named(device: Device): [string, Device] {
  return [`${device.name} ${device.isa}`, device]
}
