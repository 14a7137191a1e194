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
  /** Bytes of working memory that the ops of a GPU keep between calls, beside the tensors. */
  workspaceBytes: number
  /** Bytes taken from the system, in use or cached. */
  reservedBytes: number
  liveTensors: number
  /** Times the system was asked for memory since the start. */
  deviceAllocations: number
  /** Tensors that were never disposed and that the garbage collector had to free. */
  forgottenTensors: number
}

/** When an op was enqueued, and when the device did it, in milliseconds since timing began. */
export interface TimedOp {
  /** The op and its sizes. */
  label: string
  enqueued: number
  begin: number
  end: number
}

export interface DeviceHandle {
  readonly isa: string
  readonly units: number
  readonly product: string
  readonly capacity: number
  empty(dtype: number, numel: number, tag: number): TensorHandle
  synchronize(): Promise<void>
  record(): void
  endRecord(): number
  replay(recording: number): void
  forget(recording: number): void
  mark(which: 0 | 1): void
  betweenMarks(): Promise<ArrayBuffer>
  startTiming(): void
  endTiming(): TimedOp[]
  stats(): DeviceStats
  resetPeak(): void
  dispose(): void
}

/** A GPU, as the driver tells it. */
export interface CudaDevice {
  name: string
  /** Compute capability: 80, 86, 89, 90, … */
  arch: number
  /** Multiprocessors. */
  sms: number
  memoryBytes: number
  /** What the driver takes from the addon: machine code or PTX; empty where nothing fits. */
  image: string
}

/** What there is of CUDA; `missing` says why `devices` is empty. `driverVersion` is 12040 for CUDA 12.4. */
export interface Cuda {
  devices: CudaDevice[]
  driverVersion: number
  missing: string
}

/** What the choice of a gemm kernel looks at: native/cuda/launch/gemm_config.h. */
export interface GemmShape {
  M: number
  N: number
  K: number
  transA?: boolean
  transB?: boolean
  tensorCores?: boolean
  ragged?: boolean
  f32Out?: boolean
}

/** A gemm kernel and how it is launched. */
export interface GemmConfig {
  kernel: string
  blockM: number
  blockN: number
  blockK: number
  stages: number
  threads: number
  sharedBytes: number
  chunk: number
  split: number
  /** Blocks of a cluster, whose tile is blockM by blockN; 0 where a block takes one tile and no more. */
  cluster: number
}

type Handle = TensorHandle
type Optional = TensorHandle | null
type Int = number

export interface Addon {
  /** 'cpu' takes an instruction set and threads, 'cuda' '' and the number of the GPU. */
  Device: new (
    kind: string,
    isa?: string,
    count?: number,
  ) => DeviceHandle
  isas: string[]
  cuda(): Cuda
  /** Names of the kernels in the addon; none in a build without CUDA. */
  cudaKernels: string[]
  /** Names that the code which launches kernels may ask for. */
  cudaLaunches: string[]
  /** The fat binaries: the file of kernels, and what is in it, as in 'sm_80 sm_90a compute_80'. */
  cudaImages: { file: string; codes: string }[]
  /** What a GPU of this architecture (80, 90, …) would run of them, in words; '' where nothing fits. */
  cudaImageFor(arch: number): string
  /** What gemm would run on such a GPU; not in a build without CUDA. */
  gemmConfig?(shape: GemmShape, arch: number, sms: number, sharedBytes: number): GemmConfig
  gemm: Gemm
  /** gemm by NVIDIA's cuBLASLt; throws where the machine has none. */
  cublasLtGemm: Gemm
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
  kvGather(
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

type Gemm = (
  ...args: [
    ...[a: Handle, b: Handle, c: Handle, M: Int, N: Int, K: Int, lda: Int, ldb: Int, ldc: Int],
    ...[transA: boolean, transB: boolean, alpha: number, beta: number],
  ]
) => void

/** A null in `masters` means that the parameter is its own master; rmsprop takes no `firsts`. */
type MultiTensorStep = (
  ...args: [
    ...[params: Handle[], masters: Optional[], grads: Handle[]],
    ...[firsts: Optional[], seconds: Handle[], weightDecays: number[]],
    ...[lr: number, beta1: number, beta2: number, eps: number],
    ...[bias1: number, bias2: number, gradScale: number],
  ]
) => void
