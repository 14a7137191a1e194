import {
  abortSignal,
  type Check,
  callable,
  fields,
  flag,
  optional,
  path,
  text,
} from '../arguments.js'
import { WestwindError } from '../errors.js'
import { suggest } from '../recipe/suggest.js'
import { checkProgressStream, formatDuration, type ProgressStream } from '../train/progress.js'
import { asideName, hasContent, moveAside } from './aside.js'
import { type Decision, examine, outputHashes, requireFiles } from './decide.js'
import { type PipelineFile, readPipelineFile } from './file.js'
import { FileHashes } from './hashes.js'
import type { Stage } from './stage.js'
import { planStages } from './stages.js'
import { begun, type PipelineState, readState, writeState } from './state.js'

export interface ZephyrOptions {
  /** The YAML file. */
  pipeline: string
  /** Begin with this stage; those before it are taken as they are. */
  from?: string
  /** End with this stage. */
  until?: string
  /** Say what would be done, and do nothing. */
  dryRun?: boolean
  /** 'auto', 'cpu', 'cuda' or 'cuda:N'. */
  device?: string
  /** Stops the stage under way in good order; the next run goes on there. */
  signal?: AbortSignal
  /** Progress and notes for people; silent without. */
  stream?: ProgressStream
  /** Every line of metrics of a training stage, as it is written. */
  onLog?: (record: Record<string, number>) => void
}

const checkOptions: Check<ZephyrOptions> = fields<ZephyrOptions>({
  pipeline: path,
  from: optional(text),
  until: optional(text),
  dryRun: optional(flag),
  device: optional(text),
  signal: optional(abortSignal),
  stream: optional(checkProgressStream),
  onLog: optional(callable()),
})

/** What became of a stage. */
export interface StageOutcome {
  stage: string
  /** `planned`: of a dry run. `left`: outside of what was asked for, or behind a stop. */
  outcome: 'ran' | 'skipped' | 'stopped' | 'planned' | 'left'
  why: string
  folder: string
  /** Of the run that made what is there. */
  seconds?: number
  summary?: string
}

export interface ZephyrResult {
  outputDir: string
  stages: StageOutcome[]
  /** Stopped by the signal; the same call goes on. */
  stopped: boolean
}

/** A call of {@link zephyr} under way. */
interface Call {
  options: ZephyrOptions
  pipeline: PipelineFile
  state: PipelineState
  hashes: FileHashes
  say: (line: string) => void
  /** Stages that a dry run would run. */
  ahead: Set<string>
}

/**
 * The way of the paper from one file (arXiv 2310.16944): dSFT, AI feedback where the file has it,
 * dDPO, evaluation, report. A stage whose settings, inputs and program are those of its last run is
 * skipped, a stopped one goes on where it was, and what a changed one replaces is kept in `previous/`.
 *
 * @throws ERR_CONFIG with file, line and key; else what the stages throw, naming the stage
 */
export async function zephyr(options: ZephyrOptions): Promise<ZephyrResult> {
  checkOptions(options, 'zephyr: options')
  const { pipeline: file, stream } = options
  const pipeline = await readPipelineFile(file)
  const stages = await planStages(pipeline)
  const { begin, end } = rangeOf(stages, options)
  const { outputDir } = pipeline
  const state = await readState(outputDir, file)
  const hashes = new FileHashes(state.hashes)
  const say = (line: string) => void stream?.write(`${line}\n`)
  const call: Call = { options, pipeline, state, hashes, say, ahead: new Set() }

  if (!options.dryRun) {
    await requireFiles(stages.slice(begin, end), (stage, work) => named(stage, call, work))
  }
  say(`${file}: ${stages.map(({ name }) => name).join(' -> ')}, in ${outputDir}`)
  const outcomes: StageOutcome[] = []
  for (const [i, stage] of stages.entries()) {
    const at = `[${i + 1}/${stages.length}] ${stage.name}`
    const left = { stage: stage.name, outcome: 'left' as const, folder: stage.folder }
    if (outcomes.some(({ outcome }) => outcome === 'stopped')) {
      outcomes.push({ ...left, why: 'an earlier stage was stopped' })
    } else if (i < begin) {
      requireDone(stage, state, options)
      say(`${at}: taken as it is`)
      outcomes.push({ ...left, why: `before --from ${options.from}` })
    } else if (i >= end) {
      outcomes.push({ ...left, why: `behind --until ${options.until}` })
    } else {
      outcomes.push(await come(stage, at, call))
    }
  }
  if (!options.dryRun) await save(call)
  return { outputDir, stages: outcomes, stopped: outcomes.some((o) => o.outcome === 'stopped') }
}

/** A stage's turn: skipped, run, or only told of. */
async function come(stage: Stage, at: string, call: Call): Promise<StageOutcome> {
  const { options, state, hashes, say, ahead } = call
  const { dryRun = false } = options
  const decision = await named(stage, call, () =>
    examine(stage, { state, hashes, fetch: !dryRun, ahead }),
  )
  const { action, why } = decision
  const outcome = (of: StageOutcome['outcome']): StageOutcome => {
    const { seconds, summary } = state.stages[stage.name] ?? {}
    return {
      ...{ stage: stage.name, outcome: of, why, folder: stage.folder },
      ...(seconds !== undefined && { seconds }),
      ...(summary !== undefined && { summary }),
    }
  }
  if (action === 'skip') {
    say(`${at}: skipped, ${why}`)
    return outcome('skipped')
  }
  say(`${at}: ${action === 'resume' ? 'goes on' : 'runs'}, ${why}`)
  if (dryRun) {
    ahead.add(stage.name)
    for (const line of await named(stage, call, stage.forecast)) say(`    ${line}`)
    if (action === 'run' && !stage.cheap && (await hasContent(stage.folder))) {
      say(
        `    ${stage.folder} is kept as ${await asideName(call.pipeline.outputDir, stage.folder)}`,
      )
    }
    return { stage: stage.name, outcome: 'planned', why, folder: stage.folder }
  }
  if (!(await run(stage, decision, call))) {
    say(`${at}: stopped; the same command goes on from there`)
    return outcome('stopped')
  }
  const { seconds = 0, summary } = state.stages[stage.name] ?? {}
  say(`${at}: done in ${formatDuration(seconds)}, ${summary}`)
  return outcome('ran')
}

/** Runs a stage and keeps the record of it; false where it was stopped. */
async function run(stage: Stage, { action, found, why }: Decision, call: Call): Promise<boolean> {
  const { options, state, hashes, say } = call
  if (!found) throw new WestwindError('ERR_CONFIG', `${stage.name}: ${why}`)
  if (action === 'run' && !stage.cheap && (await hasContent(stage.folder))) {
    say(`${stage.folder} is kept as ${await moveAside(call.pipeline.outputDir, stage.folder)}`)
  }
  const record = begun(found)
  state.stages[stage.name] = record
  await save(call)
  const begin = performance.now()
  const { device, signal, stream, onLog } = options
  const context = {
    resume: action === 'resume',
    ...(device !== undefined && { device }),
    ...(signal && { signal }),
    ...(stream && { stream }),
    ...(onLog && { onLog }),
  }
  const { stopped, summary } = await named(stage, call, () => stage.run(context)).catch(
    (error: unknown) => {
      const aborted = error instanceof WestwindError && error.code === 'ERR_ABORTED'
      if (aborted && signal?.aborted) return { stopped: true, summary: '' }
      throw error
    },
  )
  if (stopped) return false
  record.status = 'done'
  record.outputs = await outputHashes(stage, hashes)
  record.finished = new Date().toISOString()
  record.seconds = (performance.now() - begin) / 1000
  record.summary = summary
  await save(call)
  return true
}

function save({ pipeline, state, hashes }: Call): Promise<void> {
  state.hashes = hashes.known()
  return writeState(pipeline.outputDir, state)
}

/** Indices of the stages from `--from` to `--until`. */
function rangeOf(
  stages: readonly Stage[],
  { from, until }: ZephyrOptions,
): { begin: number; end: number } {
  const names = stages.map(({ name }) => name)
  const indexOf = (option: string, name: string) => {
    const index = names.indexOf(name)
    if (index >= 0) return index
    const near = suggest(name, names)
    const hint = near ? `did you mean ${near}?` : `this pipeline has ${names.join(', ')}`
    throw new WestwindError('ERR_INVALID_ARG', `${option}: there is no stage ${name}; ${hint}`)
  }
  const begin = from === undefined ? 0 : indexOf('--from', from)
  const end = until === undefined ? names.length : indexOf('--until', until) + 1
  if (begin < end) return { begin, end }
  throw new WestwindError('ERR_INVALID_ARG', `--until ${until} comes before --from ${from}`)
}

/** Stages that are left out must have run, whatever has changed since. */
function requireDone(stage: Stage, state: PipelineState, { from }: ZephyrOptions): void {
  if (state.stages[stage.name]?.status === 'done') return
  throw new WestwindError(
    'ERR_CONFIG',
    `--from ${from} needs what ${stage.name} leaves, which has not run to its end; leave --from out`,
  )
}

/** Errors say which stage they are of. */
async function named<T>(stage: Stage, { pipeline }: Call, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    if (!(cause instanceof WestwindError) || cause.message.startsWith(pipeline.file)) throw cause
    const message = `${pipeline.file}: ${stage.section}: ${cause.message}`
    throw new WestwindError(cause.code, message, { cause })
  }
}
