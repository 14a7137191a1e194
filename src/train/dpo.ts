import { microBatches, pairTokens } from '../data/batch.js'
import { pairData } from '../data/dataset.js'
import type { PairExample } from '../data/encode.js'
import { type Items, items } from '../data/items.js'
import type { DpoConfig, Recipe } from '../recipe/config.js'
import { checkRecipe } from '../recipe/recipe.js'
import { dpoEvaluate, dpoGradients, type ReferencedPair } from './dpo-step.js'
import type { TextInputs } from './inputs.js'
import { progressOf } from './progress.js'
import { checkReference, type ReferenceLogps, referenceLogps } from './reference.js'
import { chunked, loadSplits } from './splits.js'
import {
  checkRunOptions,
  type RunOptions,
  type RunResult,
  type StageInputs,
  trainStage,
} from './story.js'

/**
 * dDPO: direct preference optimisation against the frozen model that training starts from
 * (arXiv 2305.18290; arXiv 2310.16944, section 3.3). The reference's log-probs are computed once and
 * cached; before the first step policy and reference are checked to be the same.
 *
 * @throws ERR_CONFIG, ERR_DATA, ERR_CHECKPOINT, ERR_REFERENCE, ERR_NON_FINITE and others, each saying what to do
 */
export async function dpo(recipe: Recipe<DpoConfig>, options: RunOptions = {}): Promise<RunResult> {
  checkRecipe(recipe, 'dpo')
  checkRunOptions(options, 'dpo: options')
  return trainStage(recipe, options, dpoInputs)
}

/** Reads or finds in the cache what a run trains on: all of its start but the models and their log-probs. */
export async function dpoInputs(
  config: DpoConfig,
  text: TextInputs,
  options: RunOptions,
): Promise<StageInputs> {
  const { train, test } = await loadSplits(pairData, config, text, options)
  const none: Items<ReferencedPair> = []
  const referenced = { train: none, test: none }
  const groups = (pairs: ReferencedPair[]) => {
    const lengths = pairs.map(({ pair }) => pairTokens(pair, config))
    const budget = config.maxTokensPerMicroBatch ?? undefined
    const [made] = microBatches(lengths, { perDevice: pairs.length, tokenBudget: budget })
    return made!.map((group) => group.map((i) => pairs[i]!))
  }
  const stepOptions = { ...config, recompute: config.gradientCheckpointing }
  return {
    units: train.examples.length,
    testUnits: test?.examples.length ?? 0,
    dataHash: train.hash,
    statistics: train.statistics,
    fromCache: train.fromCache,
    unitName: 'pairs',
    beforeTraining: async (initial, { visited, resumed, note }) => {
      const score = async (pairs: Items<PairExample>, dataHash: string) => {
        const reference = await referenceLogps(initial, pairs, {
          dataHash,
          batchSize: config.precomputeRefBatchSize ?? config.perDeviceEvalBatchSize,
          prefixSharing: config.prefixSharing,
          signal: options.signal,
          onProgress: progressOf('reference', options.stream),
        })
        const from = reference.fromCache ? 'from cache' : 'computed'
        note(`reference: log-probs of ${pairs.length} pairs ${from}`)
        return reference
      }
      const pairs = items(visited.length, (at) => train.examples.at(visited[at]!)!)
      const reference = await score(pairs, `${train.hash} of ${visited.join()}`)
      const scored = withReference(pairs, reference)
      const place = new Int32Array(train.examples.length).fill(-1) // of a unit among those visited
      for (let at = 0; at < visited.length; at++) place[visited[at]!] = at
      referenced.train = items(place.length, (unit) => scored.at(place[unit]!)!)
      if (test) {
        referenced.test = withReference(test.examples, await score(test.examples, test.hash))
      }
      if (resumed) return
      const few = Math.min(pairs.length, config.perDeviceTrainBatchSize)
      const indices = Array.from({ length: few }, (_, i) => i)
      const delta = await checkReference(initial, pairs, reference, {
        indices,
        prefixSharing: config.prefixSharing,
      })
      note(
        `policy equals reference: largest difference of ${2 * indices.length} log-probs is ${delta}`,
      )
    },
    gradients: (model, window) =>
      dpoGradients(
        model,
        window.map((indices) => groups(indices.map((i) => referenced.train.at(i)!))),
        stepOptions,
      ),
    evaluate: (model) =>
      dpoEvaluate(
        model,
        chunked(referenced.test.length, config.perDeviceEvalBatchSize, (indices) =>
          groups(indices.map((i) => referenced.test.at(i)!)),
        ),
        stepOptions,
      ),
  }
}

function withReference(
  pairs: Items<PairExample>,
  { chosen, rejected }: ReferenceLogps,
): Items<ReferencedPair> {
  return items(pairs.length, (i) => ({
    pair: pairs.at(i)!,
    refChosen: chosen[i]!,
    refRejected: rejected[i]!,
  }))
}
