import { readFile } from 'node:fs/promises'
import { WestwindError } from '../errors.js'
import { isRecord, reason, showJson } from '../json.js'
import { type PresetName, presetNames } from '../recipe/presets.js'
import { Problems } from '../recipe/problems.js'
import { type Mapping, parseYaml, type Source } from '../recipe/source.js'
import { suggest } from '../recipe/suggest.js'

/** A part of the file: its keys, and where they stand as `file:line`. */
export interface Section extends Source {
  /** Path of its key in the file: `sft`, `eval[2]`. */
  name: string
}

/** A pipeline as written; what is in its sections is not checked yet. */
export interface PipelineFile {
  file: string
  outputDir: string
  preset: PresetName | undefined
  seed: number | undefined
  sft?: Section
  feedback?: Section
  dpo?: Section
  eval: Section[]
  report?: Section
}

const keys = ['output_dir', 'preset', 'seed', 'sft', 'feedback', 'dpo', 'eval', 'report'] as const

/** @throws ERR_CONFIG with file, line and key of everything that is wrong with the outline */
export async function readPipelineFile(file: string): Promise<PipelineFile> {
  let yaml: string
  try {
    yaml = await readFile(file, 'utf8')
  } catch (cause) {
    const message = `${file}: cannot read this pipeline: ${reason(cause)}`
    throw new WestwindError('ERR_CONFIG', message, { cause })
  }
  return parsePipeline(yaml, file)
}

export function parsePipeline(yaml: string, file: string): PipelineFile {
  const source = parseYaml(yaml, file)
  const { values } = source
  const problems = new Problems(file)
  const place = (...path: PropertyKey[]) => source.placeOf(path)
  for (const name of Object.keys(values)) {
    if (keys.some((key) => key === name)) continue
    const near = suggest(name, keys)
    const hint = near ? `did you mean ${near}?` : `a pipeline has ${keys.join(', ')}`
    problems.add(place(name), `${name}: unknown key; ${hint}`)
  }

  const { output_dir: outputDir, preset, seed } = values
  if (typeof outputDir !== 'string' || outputDir === '') {
    const got = outputDir === undefined ? 'is missing: expected' : 'must be'
    problems.add(place('output_dir'), `output_dir ${got} a folder${gotInstead(outputDir)}`)
  }
  const known = presetNames.find((name) => name === preset)
  if (preset !== undefined && preset !== null && known === undefined) {
    const near = typeof preset === 'string' ? suggest(preset, presetNames) : undefined
    const hint = near ? `did you mean ${near}?` : `there are ${presetNames.join(', ')}`
    problems.add(place('preset'), `preset: ${showJson(preset)} is no preset; ${hint}`)
  }
  const whole = typeof seed === 'number' && Number.isSafeInteger(seed) && seed >= 0
  if (seed !== undefined && !whole) {
    problems.add(place('seed'), `seed must be a whole number of at least 0${gotInstead(seed)}`)
  }

  const section = (name: string, path: PropertyKey[], value: unknown): Section | undefined => {
    if (value !== null && !isRecord(value)) {
      problems.add(place(...path), `${name} must be a mapping of keys${gotInstead(value)}`)
      return undefined
    }
    return sectionOf(source, file, name, path, value ?? {})
  }
  const named = (name: 'sft' | 'feedback' | 'dpo' | 'report') => {
    const made = Object.hasOwn(values, name) ? section(name, [name], values[name]) : undefined
    return made && { [name]: made }
  }
  const entries = values.eval ?? []
  if (!Array.isArray(entries)) {
    problems.add(place('eval'), `eval must be a list of tasks${gotInstead(entries)}`)
  }
  const evals = Array.isArray(entries) ? entries : []
  if (values.sft === undefined && values.dpo === undefined) {
    problems.add(undefined, 'nothing to train: give sft, dpo or both')
  }
  const parsed: PipelineFile = {
    file,
    outputDir: String(outputDir),
    preset: known,
    seed: whole ? seed : undefined,
    ...named('sft'),
    ...named('feedback'),
    ...named('dpo'),
    ...named('report'),
    eval: evals.flatMap((entry: unknown, i) => {
      const task = typeof entry === 'string' ? { task: entry } : entry
      return section(`eval[${i}]`, ['eval', i], task) ?? []
    }),
  }
  problems.throwIfAny()
  return parsed
}

function sectionOf(
  source: Source,
  file: string,
  name: string,
  path: readonly PropertyKey[],
  values: Mapping,
): Section {
  return {
    name,
    values,
    placeOf: (inner) => {
      const line = source.placeOf([...path, ...inner])
      return typeof line === 'number' ? `${file}:${line}` : line
    },
  }
}

const gotInstead = (value: unknown): string =>
  value === undefined ? '' : `, got ${showJson(value)}`
