import { isRecord, showJson } from '../json.js'
import type { Problems } from './problems.js'
import type { Mapping } from './source.js'
import { suggest } from './suggest.js'

export const presetNames = ['paper', 'handbook-v0.2', 'handbook-v0.3'] as const
export type PresetName = (typeof presetNames)[number]

/** A value that a preset fixes, and where it comes from. */
export interface Pin {
  /** The key of the recipe, or `global batch`. */
  key: string
  value: unknown
  /** Paper, file or program that did so. */
  source: string
  /** What the recipe says instead; undefined where the preset's value holds. */
  beatenBy?: string
}

/** A preset as one recipe takes it. */
export interface AppliedPreset {
  name: PresetName
  pins: Pin[]
  /** What those runs did that is not done here. */
  notReproduced: readonly string[]
}

interface Spec extends Pin {
  /** Keys that say the same thing: a recipe that gives one of them has decided. */
  sameAs?: readonly string[]
  /** Only for packing as one stream. */
  forWrapped?: true
}

const globalBatch = 'global batch'
const paper = 'arXiv:2310.16944'
const v2 = 'alignment-handbook v0.2.0, config_full.yaml'
const v3 = 'alignment-handbook v0.3.0, config_full.yaml'

function sftPins(preset: PresetName): Spec[] {
  const from = { paper: `${paper} §4`, 'handbook-v0.2': v2, 'handbook-v0.3': v3 }[preset]
  const trl = preset === 'handbook-v0.3' ? 'TRL 0.8' : 'TRL 0.7'
  const buffer = `${trl} ConstantLengthDataset`
  const template = `${preset === 'paper' ? 'alignment-handbook v0.1' : from.split(',')[0]}, apply_chat_template`
  const steps =
    preset === 'handbook-v0.3'
      ? 'TRL 0.8: length after packing'
      : 'TRL 0.7: length before packing (TRL issues 943, 1004)'
  return [
    { key: 'learning_rate', value: 2e-5, source: from },
    { key: 'lr_scheduler_type', value: 'cosine', source: from },
    warmup(preset === 'handbook-v0.2' ? 0 : 0.1, from),
    epochs(1, from),
    {
      key: globalBatch,
      value: preset === 'handbook-v0.3' ? 128 : 512,
      source: preset === 'paper' ? from : `${from}, 8 devices`,
    },
    { key: 'max_length', value: 2048, source: preset === 'paper' ? v2 : from },
    { key: 'optim', value: 'adamw_torch', source: from },
    { key: 'weight_decay', value: 0, source: from },
    bf16(from),
    {
      key: 'packing',
      value: 'wrapped',
      sameAs: ['packing_strategy'],
      source: `${buffer}: one stream cut into rows, attention crosses documents`,
    },
    {
      key: 'eos_between',
      value: true,
      sameAs: ['dataset_kwargs.append_concat_token'],
      source: `${buffer}, concat token`,
      forWrapped: true,
    },
    {
      key: 'add_bos',
      value: true,
      sameAs: ['dataset_kwargs.add_special_tokens'],
      source: `${buffer}, special tokens`,
    },
    { key: 'auto_insert_empty_system_msg', value: true, source: template },
    { key: 'assistant_only_loss', value: false, source: `${buffer}: labels are the input` },
    {
      key: 'schedule_unpacked',
      value: preset !== 'handbook-v0.3',
      source: steps,
      forWrapped: true,
    },
  ]
}

function dpoPins(preset: PresetName): Spec[] {
  const from = { paper: `${paper} §5`, 'handbook-v0.2': v2, 'handbook-v0.3': v3 }[preset]
  const lengths = preset === 'paper' ? v2 : from
  const third = preset === 'handbook-v0.3'
  const trl = third ? 'TRL 0.8 DPOTrainer' : 'TRL 0.7 DPOTrainer'
  const template = `${preset === 'paper' ? 'alignment-handbook v0.1' : from.split(',')[0]}, apply_chat_template`
  return [
    { key: 'beta', value: third ? 0.01 : 0.1, source: from },
    { key: 'loss_type', value: 'sigmoid', source: from },
    { key: 'learning_rate', value: 5e-7, source: from },
    { key: 'lr_scheduler_type', value: third ? 'cosine' : 'linear', source: from },
    warmup(0.1, from),
    epochs(third ? 1 : 3, from),
    {
      key: globalBatch,
      value: { paper: 32, 'handbook-v0.2': 64, 'handbook-v0.3': 128 }[preset],
      source: preset === 'paper' ? from : `${from}, 8 devices`,
    },
    { key: 'optim', value: preset === 'handbook-v0.2' ? 'rmsprop' : 'adamw_torch', source: from },
    { key: 'weight_decay', value: 0, source: from },
    bf16(from),
    { key: 'max_length', value: 1024, source: lengths },
    {
      key: 'max_prompt_length',
      value: 512,
      source: `${lengths}; ${trl}: the prompt keeps its end, then answers their beginning`,
    },
    { key: 'score_header', value: true, source: template },
    { key: 'auto_insert_empty_system_msg', value: true, source: template },
    { key: 'second_eos', value: true, source: `${trl}, tokenize_row` },
    {
      key: 'add_bos',
      value: third,
      sameAs: ['dataset_kwargs.add_special_tokens'],
      source: `${trl}, tokenize_row`,
    },
  ]
}

const warmup = (value: number, source: string): Spec => {
  return { key: 'warmup_ratio', value, source, sameAs: ['warmup_steps'] }
}
const epochs = (value: number, source: string): Spec => {
  return { key: 'num_train_epochs', value, source, sameAs: ['max_steps'] }
}
const bf16 = (source: string): Spec => ({ key: 'bf16', value: true, source, sameAs: ['dtype'] })

/** Rejected answers of the preference data, for a pipeline that makes its own. */
export function rejectedRule(preset: PresetName): Pin {
  const value = preset === 'handbook-v0.3' ? 'random' : 'zephyr-beta'
  const revision = preset === 'handbook-v0.3' ? 'of January 2024' : 'of October 2023'
  return { key: 'rejected', value, source: `ultrafeedback_binarized ${revision}` }
}

const notReproduced = {
  order: 'the order of the data: shuffles are those of westwind, from the same kind of seed',
  buffers:
    'packing by buffers of 3.6 x 1024 x max_length characters, each losing its last part of a row (under 0.1 % of the tokens): here all of it is one stream',
  eosMask: 'EOS within a prompt hidden from attention (TRL 0.7)',
  decontamination: 'removal of rows that contain HumanEval (alignment-handbook v0.2 and v0.3)',
}

/** What a preset fixes for a kind of run, as the page about presets lists it. */
export function presetPins(preset: PresetName, kind: 'sft' | 'dpo'): Pin[] {
  const specs = kind === 'sft' ? sftPins(preset) : dpoPins(preset)
  return specs.map(({ key, value, source }) => ({ key, value, source }))
}

/**
 * Fills in what the preset of a recipe fixes and the recipe leaves open; keys that the recipe gives
 * win, and the pin says so.
 *
 * @param values keys of the recipe under today's names; `preset` among them
 * @returns the values without `preset`, and what came of it
 */
export function withPreset(
  kind: 'sft' | 'dpo',
  { preset, ...values }: Mapping,
  problems: Problems,
  place: number | string | undefined,
): { values: Mapping; preset?: AppliedPreset } {
  if (preset === undefined || preset === null) return { values }
  const name = presetNames.find((known) => known === preset)
  if (name === undefined) {
    const near = typeof preset === 'string' ? suggest(preset, presetNames) : undefined
    const hint = near ? `did you mean ${near}?` : `there are ${presetNames.join(', ')}`
    problems.add(place, `preset: ${showJson(preset)} is no preset; ${hint}`)
    return { values }
  }
  const filled: Mapping = { ...values }
  const pins = (kind === 'sft' ? sftPins(name) : dpoPins(name)).map((spec): Pin => {
    const { key, value, source } = spec
    const beatenBy =
      key === globalBatch
        ? batchBeating(values, Number(value), kind, filled, problems, place)
        : beating(values, spec, filled)
    if (beatenBy === undefined && key !== globalBatch) filled[key] = value
    return { key, value, source, ...(beatenBy !== undefined && { beatenBy }) }
  })
  const { order, buffers, eosMask, decontamination } = notReproduced
  const missing = [
    order,
    ...(kind === 'sft' ? [buffers] : name === 'handbook-v0.3' ? [] : [eosMask]),
    ...(name === 'paper' ? [] : [decontamination]),
  ]
  return { values: filled, preset: { name, pins, notReproduced: missing } }
}

/** What of the recipe stands against a pin. */
function beating(values: Mapping, spec: Spec, filled: Mapping): string | undefined {
  for (const name of [spec.key, ...(spec.sameAs ?? [])]) {
    const given = at(values, name)
    if (given === undefined) continue
    if (name === spec.key && given === spec.value) return undefined
    return `${name}: ${showJson(given)}`
  }
  if (!spec.forWrapped) return undefined
  const { packing, packing_strategy: strategy } = filled
  if (packing === 'wrapped' || (packing === true && strategy === 'wrapped')) return undefined
  return `packing: ${showJson(packing)}, to which it does not apply`
}

/** Micro-batches that make up the preset's batch; a recipe that counts them itself has decided. */
function batchBeating(
  values: Mapping,
  batch: number,
  kind: 'sft' | 'dpo',
  filled: Mapping,
  problems: Problems,
  place: number | string | undefined,
): string | undefined {
  const { per_device_train_batch_size: size, gradient_accumulation_steps: steps } = values
  if (steps !== undefined) {
    const perDevice = size ?? 8 // the default of the key
    const given = `${showJson(perDevice)} x ${showJson(steps)} accumulated`
    return Number(perDevice) * Number(steps) === batch ? undefined : given
  }
  const perDevice = size ?? (kind === 'sft' ? 8 : 4)
  if (typeof perDevice !== 'number' || !Number.isInteger(perDevice) || perDevice < 1)
    return undefined
  if (batch % perDevice !== 0) {
    problems.add(
      place,
      `preset: its global batch of ${batch} is no multiple of per_device_train_batch_size: ${perDevice}; give gradient_accumulation_steps too`,
    )
    return undefined
  }
  filled.per_device_train_batch_size = perDevice
  filled.gradient_accumulation_steps = batch / perDevice
  return undefined
}

function at(values: Mapping, name: string): unknown {
  const [first = '', second] = name.split('.')
  const value = values[first]
  if (second === undefined) return value
  return isRecord(value) ? value[second] : undefined
}

const shown = (value: unknown): string =>
  typeof value === 'number' && value > 0 && value < 1e-3 ? value.toExponential() : String(value)

/** What a preset fixes, for people: a line each. */
export function presetLines({ name, pins, notReproduced: missing }: AppliedPreset): string[] {
  const width = Math.max(...pins.map(({ key }) => key.length)) + 2
  const values = pins.map(({ value }) => shown(value))
  const valueWidth = Math.max(...values.map(({ length }) => length)) + 2
  return [
    `preset ${name}:`,
    ...pins.map(({ key, source, beatenBy }, i) => {
      const line = `  ${key.padEnd(width)}${values[i]!.padEnd(valueWidth)}`
      return beatenBy === undefined
        ? `${line}${source}`
        : `${line}not used, the recipe has ${beatenBy}`
    }),
    ...missing.map((what) => `  not reproduced: ${what}`),
  ]
}
