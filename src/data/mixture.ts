import { WestwindError } from '../errors.js'
import type { DataConfig, MixerData, MixtureData, NamedData } from '../recipe/config.js'
import { permutation } from './order.js'
import { type DataRef, type LoadOptions, loadRows, type Row } from './source.js'

/** Rows to train on and rows to evaluate on; `test` is empty where the recipe asks for none. */
export interface SplitRows {
  train: Row[]
  test: Row[]
}

/**
 * Reads and mixes the data of a recipe, with the semantics of whoever defined its keys: `dataset_mixer` (handbook up
 * to v0.3), `dataset_mixture` (handbook today), `dataset_name` (TRL). Shuffles are westwind's own, so the same rows
 * come in another order than numpy's.
 *
 * @param options.evaluates whether the test split of `dataset_name` is read
 */
export function loadMixture(
  data: DataConfig,
  options: LoadOptions & { evaluates?: boolean } = {},
): Promise<SplitRows> {
  if (data.kind === 'mixer') return loadMixer(data, options)
  if (data.kind === 'mixture') return loadWeighted(data, options)
  return loadNamed(data, options)
}

/** The splits that {@link loadMixture} reads. */
export function mixtureRefs(data: DataConfig, options: { evaluates: boolean }): DataRef[] {
  if (data.kind === 'mixer') {
    return data.sources.flatMap(({ id, config }) =>
      data.splits.map((split) => ({ id, config, split })),
    )
  }
  if (data.kind === 'mixture') return data.datasets
  const ref = { id: data.name, config: data.config }
  const train = { ...ref, split: data.trainSplit }
  return options.evaluates ? [train, { ...ref, split: data.testSplit }] : [train]
}

async function loadMixer(data: MixerData, options: LoadOptions): Promise<SplitRows> {
  const parts = { train: [] as Row[][], test: [] as Row[][] }
  for (const { id, fraction, config } of data.sources) {
    for (const split of data.splits) {
      const kind = split.includes('train') ? 'train' : 'test'
      const rows = await loadRows({ id, config, split }, options)
      parts[kind].push(kind === 'train' ? rows.slice(0, Math.floor(fraction * rows.length)) : rows)
    }
  }
  const train = shuffled(parts.train.flat(), 42, 0)
  if (parts.train.length > 0 && train.length === 0) throw nothingLeft('dataset_mixer')
  return { train, test: shuffled(parts.test.flat(), 42, 1) }
}

async function loadWeighted(data: MixtureData, options: LoadOptions): Promise<SplitRows> {
  const first = data.datasets.find(({ columns }) => columns)?.columns
  const parts: Row[][] = []
  for (const [i, { weight, ...ref }] of data.datasets.entries()) {
    if (first && ref.columns && !sameNames(first, ref.columns)) {
      throw new WestwindError(
        'ERR_DATA',
        `dataset_mixture: all data sets must have the same columns; "${ref.id}" has ` +
          `${ref.columns.join(', ')}, an earlier one ${first.join(', ')}`,
      )
    }
    const rows = await loadRows(ref, options)
    parts.push(shuffled(rows, data.seed, i).slice(0, Math.floor(rows.length * weight)))
  }
  const all = shuffled(parts.flat(), data.seed, parts.length)
  if (all.length === 0) throw nothingLeft('dataset_mixture')
  const testSize = data.testSplitSize
  if (testSize === null) return { train: all, test: [] }
  const held = testSize < 1 ? Math.ceil(testSize * all.length) : testSize
  if (held >= all.length) {
    throw new WestwindError(
      'ERR_DATA',
      `dataset_mixture: test_split_size ${testSize} leaves nothing to train on: there are ${all.length} rows`,
    )
  }
  return { train: all.slice(held), test: all.slice(0, held) }
}

async function loadNamed(
  data: NamedData,
  options: LoadOptions & { evaluates?: boolean },
): Promise<SplitRows> {
  const ref = { id: data.name, config: data.config }
  const train = await loadRows({ ...ref, split: data.trainSplit }, options)
  const test = options.evaluates ? await loadRows({ ...ref, split: data.testSplit }, options) : []
  return { train, test }
}

function shuffled(rows: readonly Row[], seed: number, stream: number): Row[] {
  return Array.from(permutation(rows.length, seed, stream), (i) => rows[i]!)
}

function sameNames(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((name) => b.includes(name))
}

function nothingLeft(key: string): WestwindError {
  return new WestwindError('ERR_DATA', `${key}: the fractions leave no row to train on`)
}
