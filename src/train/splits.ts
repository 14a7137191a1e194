import type { Prepared, PrepareOptions } from '../data/dataset.js'
import { loadMixture } from '../data/mixture.js'
import type { Row } from '../data/source.js'
import type { DpoConfig, SftConfig } from '../recipe/config.js'
import { encodeOptions } from '../recipe/encode-options.js'
import type { TextInputs } from './inputs.js'
import { progressOf } from './progress.js'
import type { RunOptions } from './story.js'

/** The tokenised splits of a run; `test` only where the run evaluates and has one. */
export interface Splits<Example> {
  train: Prepared<Example>
  test: Prepared<Example> | undefined
}

/** Reads, mixes and tokenises the data of a recipe. */
export async function loadSplits<Example>(
  config: SftConfig | DpoConfig,
  { tokenizer, template }: TextInputs,
  { signal, stream }: RunOptions,
  prepare: (rows: readonly Row[], options: PrepareOptions) => Promise<Prepared<Example>>,
): Promise<Splits<Example>> {
  const evaluates = config.doEval || config.evalStrategy !== 'no'
  const rows = await loadMixture(config.data, { evaluates, ...(signal && { signal }) })
  const shared: PrepareOptions = { tokenizer, template, encode: encodeOptions(config), signal }
  if (config.kind === 'sft') shared.textField = config.datasetTextField
  const onProgress = progressOf('tokenise', stream)
  const train = await prepare(rows.train, { ...shared, name: 'train', onProgress })
  const tests = evaluates && rows.test.length > 0
  return { train, test: tests ? await prepare(rows.test, { ...shared, name: 'test' }) : undefined }
}

/** 0 … n−1 in runs of `size`. */
export function chunks(n: number, size: number): number[][] {
  return Array.from({ length: Math.ceil(n / size) }, (_, c) =>
    Array.from({ length: Math.min(size, n - c * size) }, (_, i) => c * size + i),
  )
}
