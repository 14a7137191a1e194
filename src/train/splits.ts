import {
  type DataKind,
  encodingKey,
  openPrepared,
  type Prepared,
  type PrepareOptions,
  prepare,
} from '../data/dataset.js'
import { loadMixture } from '../data/mixture.js'
import { resolveOnce } from '../data/source.js'
import { keepSplits, knownSplits, sourcesKey } from '../data/sources.js'
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

/**
 * Reads, mixes and tokenises the data of a recipe. Where the cache has what the same files gave before, no row is read.
 */
export async function loadSplits<Example>(
  kind: DataKind<Example>,
  config: SftConfig | DpoConfig,
  { tokenizer, template }: TextInputs,
  { signal, stream }: RunOptions,
): Promise<Splits<Example>> {
  const evaluates = config.doEval || config.evalStrategy !== 'no'
  const shared: PrepareOptions = { tokenizer, template, encode: encodeOptions(config), signal }
  if (config.kind === 'sft') shared.textField = config.datasetTextField
  const encoding = JSON.stringify([encodingKey(kind, shared), shared.textField ?? null])
  const reading = { evaluates, resolve: resolveOnce(), ...(signal && { signal }) }
  const key = await sourcesKey(config.data, { ...reading, encoding })
  const kept = await keptSplits(kind, key)
  if (kept) return kept

  const rows = await loadMixture(config.data, reading)
  const onProgress = progressOf('tokenise', stream)
  const train = await prepare(kind, rows.train, { ...shared, name: 'train', onProgress })
  const tests = evaluates && rows.test.length > 0
  const test = tests ? await prepare(kind, rows.test, { ...shared, name: 'test' }) : undefined
  await keepSplits(key, { train: train.hash, test: test?.hash ?? null })
  return { train, test }
}

/** The splits of an earlier start from the same files, if all of them are in the cache. */
async function keptSplits<Example>(
  kind: DataKind<Example>,
  key: string,
): Promise<Splits<Example> | undefined> {
  const known = await knownSplits(key)
  const train = known && (await openPrepared(kind, known.train, {}))
  if (!train) return undefined
  if (known.test === null) return { train, test: undefined }
  const test = await openPrepared(kind, known.test, {})
  return test && { train, test }
}

/** What `make` gives for 0 … n−1 in runs of `size`, one after the other as they are asked for. */
export function* chunked<T>(
  n: number,
  size: number,
  make: (indices: number[]) => T,
): Generator<T, void> {
  for (let start = 0; start < n; start += size) {
    yield make(Array.from({ length: Math.min(size, n - start) }, (_, i) => start + i))
  }
}
