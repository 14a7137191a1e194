import type { DType } from '../../src/tensor/dtype.js'

export interface TensorCoreShape {
  M: number
  N: number
  K: number
  transA: boolean
  transB: boolean
  type: DType
  alpha?: number
  beta?: number
}

/**
 * bf16 products whose rows lie on 16 bytes, of type `type`: a GPU of 108 or 132 multiprocessors takes each
 * tile of the tensor-core kernels for one of them or more (tests/cuda/gemm-config.test.ts), and its
 * stages of shared memory more than once. Sizes leave tails where the strides allow it.
 */
export const tensorCoreShapes: TensorCoreShape[] = [
  { M: 13, N: 21, K: 456, transA: false, transB: true, type: 'bf16' },
  { M: 16, N: 24, K: 456, transA: true, transB: false, type: 'f32', alpha: 0.375, beta: -0.5 },
  { M: 16, N: 4352, K: 328, transA: false, transB: false, type: 'bf16', beta: 1 },
  { M: 24, N: 4352, K: 328, transA: true, transB: true, type: 'bf16', alpha: 0.375 },
  { M: 25, N: 4351, K: 328, transA: false, transB: true, type: 'f32', beta: 1 },
  { M: 40, N: 4352, K: 264, transA: true, transB: false, type: 'f32', alpha: -1.5 },
  { M: 63, N: 8584, K: 136, transA: false, transB: false, type: 'f32', beta: 1 },
  { M: 72, N: 4350, K: 136, transA: false, transB: true, type: 'f32' },
  { M: 72, N: 8584, K: 136, transA: true, transB: false, type: 'f32', beta: 1 },
  { M: 121, N: 8583, K: 136, transA: false, transB: true, type: 'bf16' },
  { M: 129, N: 8584, K: 136, transA: false, transB: false, type: 'bf16' },
  { M: 136, N: 8582, K: 136, transA: true, transB: true, type: 'f32', alpha: 0.375, beta: -0.5 },
  // Hopper: more stages, and more tiles than multiprocessors.
  { M: 40, N: 72, K: 840, transA: true, transB: true, type: 'bf16' },
  { M: 17032, N: 7, K: 264, transA: false, transB: true, type: 'bf16', beta: 1 },
  { M: 136, N: 17104, K: 136, transA: true, transB: false, type: 'f32', beta: 1 },
  { M: 130, N: 8600, K: 264, transA: false, transB: true, type: 'bf16', alpha: 0.375, beta: -0.5 },
]
