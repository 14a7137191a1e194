import { microBatches } from '../data/batch.js'
import { sftData } from '../data/dataset.js'
import type { SftExample } from '../data/encode.js'
import { type Items, items } from '../data/items.js'
import { type Documents, packBfd, packWrapped } from '../data/packing.js'
import type { Recipe, SftConfig } from '../recipe/config.js'
import { checkRecipe } from '../recipe/recipe.js'
import type { TextInputs } from './inputs.js'
import { sftEvaluate, sftGradients } from './sft-step.js'
import { chunked, loadSplits } from './splits.js'
import {
  checkRunOptions,
  type RunOptions,
  type RunResult,
  type StageInputs,
  trainStage,
} from './story.js'

/**
 * dSFT: maximises the log-likelihood of a teacher's dialogues (arXiv 2310.16944, section 3.1). Reads and
 * tokenises the data, packs it, trains, and leaves the model in the Hugging Face layout in `output_dir`.
 *
 * @throws ERR_CONFIG, ERR_DATA, ERR_CHECKPOINT, ERR_NON_FINITE, ERR_OUT_OF_MEMORY and others, each saying what to do
 */
export async function sft(recipe: Recipe<SftConfig>, options: RunOptions = {}): Promise<RunResult> {
  checkRecipe(recipe, 'sft')
  checkRunOptions(options, 'sft: options')
  return trainStage(recipe, options, sftInputs)
}

/** Reads or finds in the cache what a run trains on: all of its start but the model. */
export async function sftInputs(
  config: SftConfig,
  text: TextInputs,
  options: RunOptions,
): Promise<StageInputs> {
  const { train, test } = await loadSplits(sftData, config, text, options)
  const trainRows = pack(train, config, text.tokenizer?.eosId)
  const testRows = test ? pack(test, config, text.tokenizer?.eosId) : []
  const microBatch = (from: Items<SftExample[]>, indices: readonly number[], size: number) => {
    const rows = indices.map((i) => from.at(i)!)
    const budget = config.maxTokensPerMicroBatch ?? undefined
    const [groups] = microBatches(
      rows.map((row) => row.reduce((sum, { ids }) => sum + ids.length, 0)),
      { perDevice: size, tokenBudget: budget },
    )
    return groups!.map((group) => group.map((i) => rows[i]!))
  }
  return {
    units: trainRows.length,
    testUnits: testRows.length,
    ...(config.scheduleUnpacked && { scheduleUnits: train.examples.length }),
    dataHash: train.hash,
    statistics: train.statistics,
    fromCache: train.fromCache,
    unitName: config.packing ? 'packed rows' : 'conversations',
    gradients: (model, window) =>
      sftGradients(
        model,
        window.map((indices) => microBatch(trainRows, indices, Math.max(indices.length, 1))),
        { recompute: config.gradientCheckpointing },
      ),
    evaluate: (model) => {
      const size = config.perDeviceEvalBatchSize
      return sftEvaluate(
        model,
        chunked(testRows.length, size, (indices) => microBatch(testRows, indices, size)),
      )
    },
  }
}

function pack(data: Documents, config: SftConfig, eosId: number | undefined): Items<SftExample[]> {
  const { examples } = data
  if (config.packing === false) return items(examples.length, (i) => [examples.at(i)!])
  const length = config.maxLength!
  if (config.packing === 'bfd') return packBfd(data, length)
  return packWrapped(data, length, { eosBetween: config.eosBetween ? eosId : undefined })
}
