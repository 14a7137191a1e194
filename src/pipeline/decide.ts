import { createHash } from 'node:crypto'
import { basename, relative } from 'node:path'
import { WestwindError } from '../errors.js'
import { isRecord, showJson } from '../json.js'
import { version } from '../version.js'
import type { FileHashes } from './hashes.js'
import type { Input, Stage } from './stage.js'
import type { PipelineState, StageRecord } from './state.js'

/** What is to be done with a stage, and why. */
export interface Decision {
  action: 'skip' | 'resume' | 'run'
  why: string
  /** Known unless an input is not there yet. */
  found?: Pick<StageRecord, 'key' | 'config' | 'inputs'>
}

export interface Examination {
  state: PipelineState
  hashes: FileHashes
  /** Whether what is not on this machine is fetched. */
  fetch: boolean
  /** Earlier stages that run before this one: what they leave is not known. */
  ahead: ReadonlySet<string>
}

/**
 * Compares a stage with its last run. Its key is a hash of its settings, the contents of its input
 * files, what earlier stages left, and the version of westwind: the same key gives the same result.
 */
export async function examine(stage: Stage, examination: Examination): Promise<Decision> {
  const { state, hashes, fetch, ahead } = examination
  const record = state.stages[stage.name]
  const inputs: Record<string, Record<string, string>> = {}
  const waits: string[] = []
  for (const input of stage.inputs) {
    if ('stage' in input && ahead.has(input.stage)) {
      waits.push(whenAhead(input.stage, record))
      continue
    }
    const found = await hashInput(input, state, hashes, fetch)
    if ('missing' in found) waits.push(`needs ${found.missing}`)
    else inputs[input.name] = found.files
  }
  if (waits.length > 0) return { action: 'run', why: waits.join('; ') }
  const config = plain(stage.config)
  const key = keyOf({ stage: stage.name, config, inputs, version })
  const found = { key, config, inputs }
  if (record === undefined) return { action: 'run', why: 'it never ran here', found }
  if (record.key !== key) {
    return { action: 'run', why: differences(record, found).join('; '), found }
  }
  if (record.status === 'running') {
    return { action: 'resume', why: 'it was stopped before its end', found }
  }
  for (const [name, hash] of Object.entries(record.outputs)) {
    const now = await hashes.of(`${stage.folder}/${name}`)
    if (now === hash) continue
    const what = now === undefined ? 'is gone' : 'is not what the stage left'
    return { action: 'run', why: `${stage.folder}/${name} ${what}`, found }
  }
  return { action: 'skip', why: 'nothing that it depends on has changed', found }
}

function whenAhead(stage: string, record: StageRecord | undefined): string {
  const before = `${stage}, which runs before it`
  return record?.status === 'done' ? `if ${before}, leaves something else` : `after ${stage}`
}

/**
 * Refuses to begin what cannot end: days of training must not end at a file that is not there.
 *
 * @throws ERR_DATA naming every file of the stages' own that is missing
 */
export async function requireFiles(
  stages: readonly Stage[],
  named: <T>(stage: Stage, work: () => Promise<T>) => Promise<T>,
): Promise<void> {
  const lines: string[] = []
  for (const stage of stages) {
    for (const input of stage.inputs) {
      if ('stage' in input) continue
      const located = await named(stage, () => input.locate(false))
      if (!('missing' in located) || located.hub) continue
      lines.push(`${stage.section}: ${input.name}: ${located.missing}`)
    }
  }
  const all = [...new Set(lines)]
  if (all.length > 0) throw new WestwindError('ERR_DATA', all.join('\n'))
}

/** Hashes of what a stage left in its folder, by name. */
export async function outputHashes(
  stage: Stage,
  hashes: FileHashes,
): Promise<Record<string, string>> {
  const made: Record<string, string> = {}
  for (const file of await stage.outputs()) {
    const hash = await hashes.of(file)
    if (hash !== undefined) made[relative(stage.folder, file)] = hash
  }
  return made
}

async function hashInput(
  input: Input,
  state: PipelineState,
  hashes: FileHashes,
  fetch: boolean,
): Promise<{ files: Record<string, string> } | { missing: string }> {
  if ('stage' in input) {
    const made = state.stages[input.stage]
    return made?.status === 'done'
      ? { files: made.outputs }
      : { missing: `what ${input.stage} leaves` }
  }
  const located = await input.locate(fetch)
  if ('missing' in located) return located
  const files: Record<string, string> = {}
  for (const [i, file] of located.files.entries()) {
    const hash = await hashes.of(file)
    if (hash === undefined) return { missing: file }
    const name = basename(file)
    files[name in files ? `${i} ${name}` : name] = hash
  }
  return { files }
}

function keyOf(parts: Record<string, unknown>): string {
  return createHash('sha256')
    .update(JSON.stringify(sorted(parts)))
    .digest('hex')
}

/** As JSON has it, so that it equals what is read back. */
function plain(config: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const copy: unknown = JSON.parse(JSON.stringify(config))
  return isRecord(copy) ? copy : {}
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (!isRecord(value)) return value
  const names = Object.keys(value).sort()
  return Object.fromEntries(names.map((name) => [name, sorted(value[name])]))
}

/** What changed since the last run, in words. */
function differences(before: StageRecord, now: Pick<StageRecord, 'config' | 'inputs'>): string[] {
  const lines: string[] = []
  for (const name of union(before.config, now.config)) {
    const [was, is] = [before.config[name], now.config[name]]
    if (JSON.stringify(sorted(was)) === JSON.stringify(sorted(is))) continue
    lines.push(`${snake(name)} was ${showJson(was)}, is ${showJson(is)}`)
  }
  for (const name of union(before.inputs, now.inputs)) {
    const [was, is] = [before.inputs[name] ?? {}, now.inputs[name] ?? {}]
    const changed = union(was, is).filter((file) => was[file] !== is[file])
    if (changed.length > 0) lines.push(`${name} changed (${changed.join(', ')})`)
  }
  if (before.westwind !== version) lines.push(`westwind was ${before.westwind}, is ${version}`)
  return lines
}

const union = (a: object, b: object): string[] =>
  [...new Set([...Object.keys(a), ...Object.keys(b)])].sort()

/** Settings are told by the names that the file has for them. */
const snake = (name: string): string => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`)
