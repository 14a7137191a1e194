import type { Device } from '../device/device.js'
import { knownPeaks } from '../device/peaks.js'
import type { ModelDType } from '../model/model.js'
import { fill, gemm } from '../ops/index.js'
import { isolated, scope } from '../tensor/scope.js'
import { empty } from '../tensor/tensor.js'

/** Of the matrices: enough for every core of a CPU, or every multiprocessor of a GPU. */
const sizeOn = { cpu: 1024, gpu: 8192 }
/** Some 0.5 s on two cores: another program must hold them that long to hide the peak. */
const repetitions = 32

const measured = new WeakMap<Device, Map<ModelDType, Promise<number>>>()

/**
 * The device's peak in FLOP/s, for MFU. Of a GPU that src/device/peaks.ts knows, the data sheet's, as the
 * field counts; else measured once per process: the fastest of 32 products of square matrices of that dtype.
 */
export async function peakFlops(device: Device, dtype: ModelDType): Promise<number> {
  const known = knownPeaks(device)[dtype]
  if (known !== undefined) return known
  const ofDevice = measured.get(device) ?? new Map<ModelDType, Promise<number>>()
  measured.set(device, ofDevice)
  const peak = ofDevice.get(dtype) ?? measure(device, dtype)
  ofDevice.set(dtype, peak)
  return peak
}

function measure(device: Device, dtype: ModelDType): Promise<number> {
  return isolated(async () => {
    using _ = scope()
    const size = device.name === 'cpu' ? sizeOn.cpu : sizeOn.gpu
    const a = empty([size, size], dtype, device)
    fill(a, 0.5)
    let best = Number.POSITIVE_INFINITY
    for (let i = 0; i < repetitions; i++) {
      best = Math.min(best, await device.time(() => gemm(a, a, { transB: true }).dispose()))
    }
    return (2 * size ** 3) / (best / 1000)
  })
}
