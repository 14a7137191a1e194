import type { Device } from '../device/device.js'
import type { ModelDType } from '../model/model.js'
import { cast } from '../ops/index.js'
import { scope } from '../tensor/scope.js'
import type { BenchCase } from './harness.js'
import { bytesOf, copiesFor, normalInput, SampledError, spread } from './inputs.js'
import type { BenchModel } from './models.js'

/**
 * `cast` to the same dtype, of T rows as wide as the MLP: what memory gives to a kernel that does nothing
 * else. Each element is read once and written once. Tensors belong to the caller's scope.
 */
export function copyCases(
  { ffn }: BenchModel,
  T: number,
  device: Device,
  dtype: ModelDType,
): BenchCase[] {
  const N = T * ffn
  const copies = copiesFor(device, bytesOf(dtype, N))
  const x = normalInput([T, ffn], dtype, device, { seed: 1, copies })
  return [
    {
      kernel: 'copy',
      mode: 'forward',
      shape: `N=${N}`,
      x: { name: 'N', label: 'elements', value: N },
      flops: 0,
      bytes: bytesOf(dtype, N, N),
      bound: 0,
      run: (turn) => {
        using _ = scope()
        cast(x.at(turn), dtype)
      },
      error: async () => {
        using _ = scope()
        const out = await cast(x.tensor, dtype).read()
        const error = new SampledError()
        for (const i of spread(N, 1000)) error.add(out[i]!, x.values[i]!)
        return error.relative
      },
    },
  ]
}
