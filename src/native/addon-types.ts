/** The addon's signatures, as native/binding has them. Only src/native, src/device, src/tensor and src/ops use them. */
export interface TensorHandle {
  view(offset: number, numel: number): TensorHandle
  read(): Promise<ArrayBuffer>
  write(data: ArrayBufferView): void
  load(path: string, byteOffset: number, fileType: number): void
  dispose(): void
}

export const memoryTags = ['weights', 'gradients', 'optimizer', 'activations', 'workspace'] as const
/** What memory is for. */
export type MemoryTag = (typeof memoryTags)[number]

export interface DeviceStats {
  /** Bytes held by live tensors, now and at the highest since the last `resetPeak()` of each tag. */
  live: Record<MemoryTag, number>
  peak: Record<MemoryTag, number>
  liveBytes: number
  peakBytes: number
  /** Bytes taken from the system, in use or cached. */
  reservedBytes: number
  liveTensors: number
  /** Times the system was asked for memory since the start. */
  deviceAllocations: number
  /** Tensors that were never disposed and that the garbage collector had to free. */
  forgottenTensors: number
}

export interface DeviceHandle {
  readonly isa: string
  readonly threads: number
  readonly capacity: number
  empty(dtype: number, numel: number, tag: number): TensorHandle
  synchronize(): Promise<void>
  stats(): DeviceStats
  resetPeak(): void
  dispose(): void
}

type Handle = TensorHandle
type Optional = TensorHandle | null
type Int = number

export interface Addon {
  Device: new (kind: string, isa?: string, threads?: number) => DeviceHandle
  isas: string[]
  gemm(
    ...args: [
      ...[a: Handle, b: Handle, c: Handle, M: Int, N: Int, K: Int, lda: Int, ldb: Int, ldc: Int],
      ...[transA: boolean, transB: boolean, alpha: number, beta: number],
    ]
  ): void
  rmsNorm(
    ...args: [
      ...[x: Handle, residual: Optional, weight: Handle, sum: Optional, y: Handle, rstd: Handle],
      ...[T: Int, C: Int, eps: number],
    ]
  ): void
  rmsNormBackward(
    ...args: [
      ...[dy: Handle, s: Handle, weight: Handle, rstd: Handle, dresidual: Optional, dx: Handle],
      ...[dweight: Handle, T: Int, C: Int],
    ]
  ): void
  rope(
    ...args: [
      ...[x: Handle, positions: Handle, T: Int, heads: Int, rowHeads: Int, D: Int],
      ...[theta: number, sign: number],
    ]
  ): void
  attention(
    ...args: [
      ...[qkv: Handle, out: Handle, lse: Handle],
      ...[segStart: Handle, segPrefix: Handle, positions: Handle, S: Int, window: Int],
      ...[T: Int, Hq: Int, Hkv: Int, D: Int, scale: number],
    ]
  ): void
  attentionBackward(
    ...args: [
      ...[dout: Handle, qkv: Handle, out: Handle],
      ...[segStart: Handle, segPrefix: Handle, positions: Handle, S: Int, window: Int],
      ...[lse: Handle, dqkv: Handle, T: Int, Hq: Int, Hkv: Int, D: Int, scale: number],
    ]
  ): void
  swiglu(gateUp: Handle, out: Handle, T: Int, F: Int): void
  swigluBackward(dout: Handle, gateUp: Handle, dgateUp: Handle, T: Int, F: Int): void
  embedding(table: Handle, ids: Handle, out: Handle, T: Int, V: Int, C: Int): void
  embeddingBackward(dout: Handle, ids: Handle, dtable: Handle, T: Int, V: Int, C: Int): void
  scatterAddRows(x: Handle, index: Handle, out: Handle, N: Int, R: Int, C: Int): void
  tokenLogps(logits: Handle, target: Handle, out: Handle, lse: Handle, T: Int, V: Int): void
  tokenLogpsBackward(
    ...args: [
      ...[logits: Handle, target: Handle, lse: Handle, dlogps: Handle, dlogits: Handle],
      ...[T: Int, V: Int],
    ]
  ): void
  linearLogps(
    ...args: [
      ...[hidden: Handle, weight: Handle, target: Handle, logps: Handle, lse: Handle],
      ...[entropy: Optional, hit: Optional],
      ...[dlogps: Optional, dhidden: Optional, dweight: Optional, N: Int, C: Int, V: Int],
    ]
  ): void
  linearLogpsBackward(
    ...args: [
      ...[hidden: Handle, weight: Handle, target: Handle, lse: Handle, dlogps: Handle],
      ...[dhidden: Handle, dweight: Optional, N: Int, C: Int, V: Int],
    ]
  ): void
  adamw: MultiTensorStep
  rmsprop: MultiTensorStep
  sumSquares(tensors: Handle[], out: Handle): void
  fill(x: Handle, value: number): void
  scale(x: Handle, factor: number): void
  add(a: Handle, b: Handle, out: Handle): void
  cast(x: Handle, out: Handle): void
  kvAppend(
    ...args: [
      ...[qkv: Handle, kCache: Handle, vCache: Handle, slot: Handle, position: Handle],
      ...[T: Int, slots: Int, length: Int, Hq: Int, Hkv: Int, D: Int],
    ]
  ): void
  decodeAttention(
    ...args: [
      ...[qkv: Handle, kCache: Handle, vCache: Handle, slot: Handle, position: Handle],
      ...[out: Handle, T: Int, slots: Int, length: Int, Hq: Int, Hkv: Int, D: Int],
      ...[window: Int, scale: number],
    ]
  ): void
  sample(
    ...args: [
      ...[logits: Handle, uniform: Handle, out: Handle, B: Int, V: Int],
      ...[temperature: number, topK: Int, topP: number],
    ]
  ): void
}

/** A null in `masters` means that the parameter is its own master; rmsprop takes no `firsts`. */
type MultiTensorStep = (
  ...args: [
    ...[params: Handle[], masters: Optional[], grads: Handle[]],
    ...[firsts: Optional[], seconds: Handle[], weightDecays: number[]],
    ...[lr: number, beta1: number, beta2: number, eps: number],
    ...[bias1: number, bias2: number, gradScale: number],
  ]
) => void
