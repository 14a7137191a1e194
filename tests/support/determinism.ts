import { createHash } from 'node:crypto'
import { expect } from 'vitest'
import { type Device, openCpu } from '../../src/device/device.js'
import { scope } from '../../src/tensor/scope.js'
import type { Tensor } from '../../src/tensor/tensor.js'

/** Runs twice on the device, and on a CPU also with 1 and 3 threads: the results have the same bits each time. */
export async function expectSameBits(on: Device, run: (device: Device) => Tensor[]): Promise<void> {
  const bits = async (device: Device) => {
    using _scope = scope()
    const results = await Promise.all(run(device).map((x) => x.readBytes()))
    return results.map((bytes) => createHash('sha256').update(bytes).digest('hex'))
  }
  const first = await bits(on)
  expect(await bits(on)).toEqual(first)
  if (on.name !== 'cpu') return
  for (const threads of [1, 3]) {
    using other = openCpu({ isa: on.isa, threads })
    expect(await bits(other)).toEqual(first)
  }
}
