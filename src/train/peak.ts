import type { Model } from '../model/model.js'
import { gemm } from '../ops/index.js'
import { isolated, scope } from '../tensor/scope.js'
import { fromArray } from '../tensor/tensor.js'

const size = 1024
/** Some 0.2 s on two cores: another program must hold them that long to hide the peak. */
const repetitions = 12

/**
 * The device's GEMM peak in FLOP/s, for MFU: the fastest of a dozen products of 1024×1024 matrices in the
 * model's dtype.
 */
export function measurePeak({ device, dtype }: Model): Promise<number> {
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
