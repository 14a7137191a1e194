import type { Device } from '../device/device.js'
import type { ModelDType } from '../model/model.js'
import { gemm } from '../ops/index.js'
import { isolated, scope } from '../tensor/scope.js'
import { fromArray } from '../tensor/tensor.js'

const size = 1024
/** Some 0.5 s on two cores: another program must hold them that long to hide the peak. */
const repetitions = 32

const measured = new WeakMap<Device, Map<ModelDType, Promise<number>>>()

/**
 * The device's GEMM peak in FLOP/s, for MFU: the fastest of 32 products of 1024×1024 matrices of
 * that dtype. Measured once per process.
 */
export function peakFlops(device: Device, dtype: ModelDType): Promise<number> {
  const ofDevice = measured.get(device) ?? new Map<ModelDType, Promise<number>>()
  measured.set(device, ofDevice)
  const peak = ofDevice.get(dtype) ?? measure(device, dtype)
  ofDevice.set(dtype, peak)
  return peak
}

function measure(device: Device, dtype: ModelDType): Promise<number> {
  return isolated(async () => {
    using _ = scope()
    const a = fromArray(new Float32Array(size * size).fill(0.5), [size, size], dtype, device)
    let best = Number.POSITIVE_INFINITY
    for (let i = 0; i < repetitions; i++) {
      await device.synchronize()
      const start = performance.now()
      gemm(a, a, { transB: true }).dispose()
      await device.synchronize()
      best = Math.min(best, performance.now() - start)
    }
    return (2 * size ** 3) / (best / 1000)
  })
}
