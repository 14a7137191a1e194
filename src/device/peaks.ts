import { WestwindError } from '../errors.js'
import type { Device } from './device.js'

/** What a GPU can do at most, by its maker's data sheet, without sparsity. */
export interface Peaks {
  /** FLOP/s of the tensor cores in bf16 with f32 sums. */
  bf16: number
  /** FLOP/s of the ordinary cores in f32. */
  f32: number
  /** Bytes per second of the memory. */
  memory: number
}

// Part of the product name, bf16 TFLOP/s, f32 TFLOP/s, GB/s. The first match counts: longer names come first.
const sheets: [name: string, bf16: number, f32: number, memory: number][] = [
  ['H100 PCIe', 756, 51.2, 2039],
  ['H100 NVL', 835, 60, 3938],
  ['H100', 989.4, 66.9, 3352],
  ['H200', 989.4, 66.9, 4800],
  ['GH200', 989.4, 66.9, 4000],
  ['A100-SXM4-40GB', 312, 19.5, 1555],
  ['A100-PCIE-40GB', 312, 19.5, 1555],
  ['A100', 312, 19.5, 2039],
  ['A40', 149.7, 37.4, 696],
  ['A10', 125, 31.2, 600],
  ['L40S', 362, 91.6, 864],
  ['L4', 121, 30.3, 300],
  ['RTX 6000 Ada', 364.2, 91.1, 960],
  ['RTX A6000', 154.8, 38.7, 768],
  ['RTX 4090', 165.2, 82.6, 1008],
  ['RTX 4080', 97.5, 48.7, 717],
  ['RTX 3090', 71, 35.6, 936],
  ['RTX 3080', 59.5, 29.8, 760],
]

/**
 * The device's peaks, where they are known. `WESTWIND_PEAK_TFLOPS` (of both dtypes) and `WESTWIND_PEAK_GBS`
 * take their place, for a GPU that is not in the list or runs at other clocks.
 */
export function knownPeaks(device: Device): Partial<Peaks> {
  const sheet = sheets.find(([name]) => device.product.includes(name))
  const [, bf16, f32, memory] = sheet ?? []
  const tflops = positive('WESTWIND_PEAK_TFLOPS', process.env.WESTWIND_PEAK_TFLOPS)
  const peaks = { bf16: tflops ?? bf16, f32: tflops ?? f32 }
  const gbs = positive('WESTWIND_PEAK_GBS', process.env.WESTWIND_PEAK_GBS) ?? memory
  return {
    ...(peaks.bf16 !== undefined && { bf16: peaks.bf16 * 1e12 }),
    ...(peaks.f32 !== undefined && { f32: peaks.f32 * 1e12 }),
    ...(gbs !== undefined && { memory: gbs * 1e9 }),
  }
}

function positive(name: string, text: string | undefined): number | undefined {
  if (!text) return undefined
  const value = Number(text)
  if (value > 0 && Number.isFinite(value)) return value
  throw new WestwindError('ERR_INVALID_ARG', `${name} must be a number above 0, got '${text}'`)
}
