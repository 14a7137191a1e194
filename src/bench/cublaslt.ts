import type { Device } from '../device/device.js'
import { native } from '../native/addon.js'
import { fill, type GemmOptions } from '../ops/index.js'
import { scope } from '../tensor/scope.js'
import { empty, type Tensor } from '../tensor/tensor.js'

/** `gemm` by NVIDIA's cuBLASLt, a peer to time; arguments as there, taken as they are. */
export function cublasLtGemm(a: Tensor, b: Tensor, options: GemmOptions = {}): Tensor {
  const { transA = false, transB = false, alpha = 1, beta = 0, out, dtype } = options
  const [rows, columns] = [a.shape[0]!, a.shape[1]!]
  const [M, K] = transA ? [columns, rows] : [rows, columns]
  const N = b.shape[transB ? 0 : 1]!
  const c = out ?? empty([M, N], dtype ?? a.dtype, a.device)
  native().cublasLtGemm(
    ...([a.handle, b.handle, c.handle, M, N, K, columns, b.shape[1]!, N] as const),
    ...([transA, transB, alpha, beta] as const),
  )
  return c
}

/** Why there is no cuBLASLt to time on that GPU; undefined where a small product succeeds. */
export async function cublasLtMissing(device: Device): Promise<string | undefined> {
  using _ = scope()
  const ones = empty([64, 64], 'bf16', device)
  fill(ones, 1)
  try {
    cublasLtGemm(ones, ones)
    await device.synchronize()
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}
