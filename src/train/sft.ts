import { microBatches } from '../data/batch.js'
import { prepareSft } from '../data/dataset.js'
import type { SftExample } from '../data/encode.js'
import { packBfd, packWrapped } from '../data/packing.js'
import type { Recipe, SftConfig } from '../recipe/config.js'
import { checkRecipe } from '../recipe/recipe.js'
import type { TextInputs } from './inputs.js'
import { sftEvaluate, sftGradients } from './sft-step.js'
import { chunks, loadSplits } from './splits.js'
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
  return trainStage(recipe, options, prepareStage)
}

async function prepareStage(
  config: SftConfig,
  text: TextInputs,
  options: RunOptions,
): Promise<StageInputs> {
  const { train, test } = await loadSplits(config, text, options, prepareSft)
  const trainRows = pack(train.examples, config, text.tokenizer?.eosId)
  const testRows = test ? pack(test.examples, config, text.tokenizer?.eosId) : []
  const microBatch = (from: SftExample[][], indices: readonly number[], size: number) => {
    const rows = indices.map((i) => from[i]!)
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
        chunks(testRows.length, size).map((indices) => microBatch(testRows, indices, size)),
      )
    },
  }
}

function pack(
  examples: SftExample[],
  config: SftConfig,
  eosId: number | undefined,
): SftExample[][] {
  if (config.packing === false) return examples.map((example) => [example])
  const length = config.maxLength!
  if (config.packing === 'bfd') return packBfd(examples, length)
  return packWrapped(examples, length, { eosBetween: config.eosBetween ? eosId : undefined })
}
