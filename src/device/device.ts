import { type Check, fields, integer, optional, text } from '../arguments.js'
import { refuse, show, WestwindError } from '../errors.js'
import { native } from '../native/addon.js'
import {
  type Cuda,
  type DeviceHandle,
  type DeviceStats,
  type MemoryTag,
  memoryTags,
  type TensorHandle,
  type TimedOp,
} from '../native/addon-types.js'
import { type DType, dtypeBytes, dtypeCode } from '../tensor/dtype.js'

/**
 * A place that holds tensors and runs ops on them, in order, on a stream of its own (a thread on the
 * CPU). Ops return at once; {@link Device.synchronize} and `tensor.read()` wait. An error inside
 * enqueued work is kept and thrown by the next wait, naming the op and its sizes.
 */
export class Device {
  /** 'cpu' or 'cuda:N'. */
  readonly name: string
  /** The instruction set in use: portable, avx2, avx512 or amx on a CPU, sm_80, sm_90, … on a GPU. */
  readonly isa: string
  /** Threads of a CPU, multiprocessors of a GPU. */
  readonly units: number
  /** Name of the GPU; empty for the CPU. */
  readonly product: string
  /** Bytes the device has in all. */
  readonly capacity: number
  #handle: DeviceHandle | undefined

  /** @internal Use {@link device} or {@link openCpu}. */
  constructor(name: string, handle: DeviceHandle) {
    this.name = name
    this.isa = handle.isa
    this.units = handle.units
    this.product = handle.product
    this.capacity = handle.capacity
    this.#handle = handle
  }

  /** @internal Proxies and inherited prototypes, which instanceof takes, are no devices. */
  static is(value: unknown): value is Device {
    return typeof value === 'object' && value !== null && #handle in value
  }

  get disposed(): boolean {
    return this.#handle === undefined
  }

  /** @internal */
  allocate(dtype: DType, numel: number, tag: MemoryTag): TensorHandle {
    const handle = this.#alive()
    try {
      return handle.empty(dtypeCode[dtype], numel, memoryTags.indexOf(tag))
    } catch (cause) {
      const error = deviceError(this.name, cause)
      if (error.code !== 'ERR_OUT_OF_MEMORY') throw error
      throw new WestwindError(
        error.code,
        `${this.name}: ${numel} elements of ${dtype} (${numel * dtypeBytes[dtype]} bytes): ` +
          `${reason(cause)}. Use a smaller batch or max_length, gradient_checkpointing, or a smaller model.`,
        { cause },
      )
    }
  }

  /** Waits until everything enqueued so far is done; throws the first error it met. */
  async synchronize(): Promise<void> {
    const handle = this.#alive()
    await asDeviceError(this.name, () => handle.synchronize())
  }

  /**
   * Milliseconds that the device needs for what `work` enqueues, by its own clock, without the time it takes
   * to enqueue where the device is the slower one. One at a time.
   */
  async time(work: () => void): Promise<number> {
    const handle = this.#alive()
    if (typeof work !== 'function') refuse('Device.time: work', 'a function', work)
    handle.mark(0)
    work()
    handle.mark(1)
    const ms = await asDeviceError(this.name, () => handle.betweenMarks())
    return new Float64Array(ms)[0]!
  }

  /**
   * @internal Runs `work`, which enqueues ops and nothing else (no write, no read), and keeps what it
   * enqueued, to be replayed on the same tensors with other contents. The tensors stay where they are until
   * the recording is disposed, also those that `work` disposed.
   */
  record(work: () => void): Recording {
    const handle = this.#alive()
    handle.record()
    try {
      work()
    } catch (error) {
      handle.forget(handle.endRecord())
      throw error
    }
    return new Recording(handle, handle.endRecord())
  }

  /** @internal From here on the device does ops one by one, and notes when. It should be idle. */
  startTiming(): void {
    this.#alive().startTiming()
  }

  /** @internal The ops since {@link startTiming} that are done. The device should be idle. */
  endTiming(): TimedOp[] {
    return this.#alive().endTiming()
  }

  /** Memory, live and at its peak, by tag; in bytes. */
  stats(): DeviceStats {
    return this.#alive().stats()
  }

  /** Starts a new peak from what is live now. */
  resetPeak(): void {
    this.#alive().resetPeak()
  }

  /** Ends the stream; tensors that are still alive keep their memory. A second call does nothing. */
  dispose(): void {
    this.#handle?.dispose()
    this.#handle = undefined
    if (open.get(this.name) === this) open.delete(this.name)
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  /** What it computes with, in words: `avx2, 2 threads`, `NVIDIA H100, sm_90, 132 multiprocessors`. */
  get description(): string {
    if (this.name === 'cpu') return `${this.isa}, ${this.units} threads`
    return `${this.product}, ${this.isa}, ${this.units} multiprocessors`
  }

  toString(): string {
    return this.name
  }

  #alive(): DeviceHandle {
    if (!this.#handle) throw new WestwindError('ERR_DISPOSED', `device ${this.name} is disposed`)
    return this.#handle
  }
}

/** @internal Ops that were enqueued once and can be enqueued again, all in one. Dispose it. */
export class Recording {
  readonly #handle: DeviceHandle
  #number: number | undefined

  constructor(handle: DeviceHandle, number: number) {
    this.#handle = handle
    this.#number = number
  }

  /** Enqueues the ops once more. */
  replay(): void {
    if (this.#number === undefined) throw new WestwindError('ERR_DISPOSED', 'recording is disposed')
    this.#handle.replay(this.#number)
  }

  /** Gives back the memory of its tensors. A second call does nothing. */
  dispose(): void {
    if (this.#number !== undefined) this.#handle.forget(this.#number)
    this.#number = undefined
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** A device that is open. */
export const checkDevice: Check<Device> = (value, where) => {
  if (!Device.is(value)) refuse(where, 'a device', value)
  if (value.disposed) {
    throw new WestwindError('ERR_DISPOSED', `${where}, a device ${value}, is disposed`)
  }
}

const open = new Map<string, Device>()

function reason(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause)
}

/** @internal What the native layer throws, as a WestwindError: a RangeError is a lack of memory. */
export async function asDeviceError<T>(name: string, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    throw deviceError(name, cause)
  }
}

/** @internal */
export function deviceError(name: string, cause: unknown): WestwindError {
  const code = cause instanceof RangeError ? 'ERR_OUT_OF_MEMORY' : 'ERR_DEVICE'
  return new WestwindError(code, `${name}: ${reason(cause)}`, { cause })
}

/**
 * The device of that name, opened on first use and shared afterwards.
 *
 * @param name 'cpu', 'cuda', 'cuda:N', or 'auto' (CUDA if there is one, else the CPU)
 * @throws ERR_DEVICE when the device is not there; there is no silent fallback
 */
export function device(name = 'auto'): Device {
  if (typeof name !== 'string' || !/^(auto|cpu|cuda(:\d+)?)$/.test(name)) {
    throw new WestwindError(
      'ERR_INVALID_ARG',
      `device must be auto, cpu, cuda or cuda:N, got ${typeof name === 'string' ? `'${name}'` : show(name)}`,
    )
  }
  const wanted = name === 'auto' ? (cudaDevices().devices.length > 0 ? 'cuda' : 'cpu') : name
  const full = wanted === 'cuda' ? 'cuda:0' : wanted
  const existing = open.get(full)
  if (existing) return existing
  const made = full === 'cpu' ? openCpu() : openCuda(Number(full.slice('cuda:'.length)))
  open.set(full, made)
  return made
}

export interface CpuOptions {
  isa?: string
  threads?: number
}

const checkThreads: Check<number | undefined> = optional(integer(1, 4096))
const checkCpuOptions: Check<CpuOptions> = fields<CpuOptions>({
  isa: optional(text),
  threads: checkThreads,
})

/**
 * A CPU device of its own: a second stream, or a forced instruction set or thread count.
 * Defaults come from `WESTWIND_ISA` (portable, avx2, avx512, amx) and `WESTWIND_THREADS`.
 *
 * @throws ERR_DEVICE when the instruction set is not available on this machine
 */
export function openCpu(options: CpuOptions = {}): Device {
  checkCpuOptions(options, 'openCpu: options')
  const isa = options.isa ?? process.env.WESTWIND_ISA
  const fromEnv = process.env.WESTWIND_THREADS
  const threads = options.threads ?? (fromEnv ? Number(fromEnv) : undefined)
  checkThreads(threads, 'WESTWIND_THREADS')
  const addon = native()
  try {
    return new Device('cpu', new addon.Device('cpu', isa, threads))
  } catch (cause) {
    throw new WestwindError('ERR_DEVICE', `device cpu: ${reason(cause)}`, { cause })
  }
}

/**
 * A GPU as a device of its own, with its own stream and memory.
 *
 * @param ordinal number of the GPU, as the driver counts
 * @throws ERR_DEVICE when there is no such GPU, no driver, or no kernels for it
 */
export function openCuda(ordinal = 0): Device {
  const addon = native()
  try {
    return new Device(`cuda:${ordinal}`, new addon.Device('cuda', '', ordinal))
  } catch (cause) {
    throw new WestwindError('ERR_DEVICE', `device cuda:${ordinal}: ${reason(cause)}`, { cause })
  }
}

/** The GPUs of this machine, or in `missing` the reason why there are none. Opens none of them. */
export function cudaDevices(): Cuda {
  return native().cuda()
}

/** @internal The driver's number in words: 12040 is 12.4. */
export function cudaVersion(driver: number): string {
  return `${Math.floor(driver / 1000)}.${Math.floor((driver % 1000) / 10)}`
}

/** The instruction sets that this machine can run, the best one last. */
export function cpuIsas(): string[] {
  return [...native().isas]
}
