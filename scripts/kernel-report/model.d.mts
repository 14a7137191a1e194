export interface Gpu {
  name: string
  arch: string
  sms: number
  clock: number
  memory: number
  tensor: number
  l2: number
  shared: number
  issue: number
  fp32: number
  int: number
  sfu: number
  fp64: number
  registers: number
  threads: number
  blocks: number
  sharedBytes: number
}
export interface Assembled {
  kernel: string
  arch: string
  registers: number
  shared: number
  stack: number
  stores: number
  loads: number
  serialised: boolean
}
export type Counts = Record<string, number>
export interface Sample {
  features: number[]
  counts: Counts
}
export interface Conditions {
  bytes: number
  wgmmaBytes?: number
  spread?: number
  work?: number | number[]
}
export const gpus: Record<80 | 90, Gpu>
export function parsePtxas(text: string): Assembled[]
export function occupancy(
  gpu: Gpu,
  block: { threads: number; registers: number; shared: number },
): { blocks: number; limit: string[] }
export function solve(rows: number[][], values: number[]): number[]
export function extrapolate(samples: Sample[], features: number[]): Counts
export function countsOf(launch: object): Counts
export function sum(counts: Counts[]): Counts
export function wgmmaBytesPerFlop(ptx: string): number
export function quantisation(work: number | number[], units: number): number
export function predict(
  gpu: Gpu,
  counts: Counts,
  conditions: Conditions,
): { units: Record<string, number>; waves: number; seconds: number }
export function place(page: string, text: string, before?: string): string
export function table(head: string[], rows: (string | number)[][]): string
export interface Part {
  samples: object[]
  real: object
  features(kernel: string, shape: object): number[]
  bytes: [start: string, bytes: number][]
  times?: number
  spread?: number
  work?: number | number[] | ((kernel: string) => number | number[] | undefined)
}
export function predictCase(
  gpu: Gpu,
  parts: { part: Part; samples: Map<string, Counts>[] }[],
  wgmmaBytes: (kernel: string) => number,
): { counts: Counts; seconds: number; bytes: number; busy: [unit: string, share: number][] }
