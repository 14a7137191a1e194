import type { ProgressStream } from '../train/progress.js'

/** What a stage reads that decides what it makes. */
export type Input =
  | { name: string /** All that this earlier stage leaves. */; stage: string }
  | {
      name: string
      /** The files; what of them is not on this machine is fetched, or said where it may not be. */
      locate: (fetch: boolean) => Promise<Located>
    }

/** Files in the order in which they count, or what is not here yet. */
export type Located =
  | { files: string[] }
  | { missing: string /** It can be fetched. */; hub?: true }

export interface StageContext {
  /** The folder holds what a stopped run of the very same stage left. */
  resume: boolean
  device?: string
  signal?: AbortSignal
  stream?: ProgressStream
  /** Every line of metrics of a training stage, as it is written. */
  onLog?: (record: Record<string, number>) => void
}

export interface StageResult {
  /** Stopped by the signal: what is there is taken up by the next run. */
  stopped: boolean
  /** What came out, in a few words. */
  summary: string
}

/** A step of the pipeline: it reads its inputs and fills its folder, nothing else. */
export interface Stage {
  /** As `--from` and `--until` know it. */
  name: string
  /** Section of the file. */
  section: string
  folder: string
  /** What of its settings decides the result, as plain data. */
  config: Readonly<Record<string, unknown>>
  inputs: Input[]
  /** Files of the folder that later stages read. */
  outputs: () => Promise<string[]>
  /** Made anew at no cost: nothing is kept of an older result. */
  cheap?: true
  /** What the dry run tells of it. */
  forecast: () => Promise<string[]>
  run: (context: StageContext) => Promise<StageResult>
}
