import { pairBatch, type SegmentBatch } from '../data/batch.js'
import type { PairExample } from '../data/encode.js'
import {
  backwardFromScored,
  batchLogps,
  type DeviceBatch,
  type Scored,
  scoredHidden,
  toDevice,
} from '../model/batch.js'
import type { Model } from '../model/model.js'
import { gemm, type LinearLogps, linearLogps, linearLogpsBackward } from '../ops/index.js'
import type { DpoConfig } from '../recipe/config.js'
import type { TypedArray } from '../tensor/dtype.js'
import { scope } from '../tensor/scope.js'
import { fromArray, type Tensor } from '../tensor/tensor.js'
import { trainFlops } from './mfu.js'
import { type PreferenceLossResult, preferenceLoss } from './preference-loss.js'
import type { StepOutcome } from './step.js'

/** A pair with the reference's log-probs of its completions. */
export interface ReferencedPair {
  pair: PairExample
  refChosen: number
  refRejected: number
}

/** Pairs of one micro-batch, in groups that are computed at once. */
export type DpoMicroBatch = ReferencedPair[][]

export type DpoOptions = Pick<
  DpoConfig,
  'lossType' | 'beta' | 'labelSmoothing' | 'discopopTau' | 'rpoAlpha' | 'prefixSharing'
> & { recompute: boolean }

/** What the host knows of a group once its log-probs are read. */
interface GroupValues {
  batch: SegmentBatch
  logps: TypedArray
  entropy: TypedArray
  hit: TypedArray
  /** `[N]`: mean over the vocabulary of the logits of each position. */
  meanLogits: TypedArray
}

/**
 * Gradients of the preference loss. A micro-batch's mean over pairs is divided by the number of
 * micro-batches of the step, as TRL does: a mean of means.
 */
export async function dpoGradients(
  model: Model,
  window: readonly DpoMicroBatch[],
  options: DpoOptions,
): Promise<StepOutcome> {
  using _ = scope()
  const meanRow = meanHeadRow(model)
  const outcome: StepOutcome = {
    loss: 0,
    microLosses: [],
    micro: [],
    tokens: 0,
    flops: 0,
    pairs: 0,
  }
  for (const groups of window) {
    const pairs = groups.flat()
    const batches = groups.map((group) => pairsToBatch(group, options))
    const result =
      batches.length === 1
        ? await wholeMicroBatch(model, pairs, batches[0]!, meanRow, window.length, options)
        : await groupedMicroBatch(model, pairs, batches, meanRow, window.length, options)
    outcome.loss += result.loss / window.length
    outcome.microLosses.push(result.loss)
    outcome.micro.push(result.metrics)
    outcome.pairs += pairs.length
    for (const batch of batches) {
      outcome.tokens += batch.inputTokens
      outcome.flops += trainFlops(model.config, batch)
    }
  }
  return outcome
}

type MicroResult = Pick<PreferenceLossResult, 'loss' | 'metrics'>

/** One forward pass, its log-probs read, then its backward. */
async function wholeMicroBatch(
  model: Model,
  pairs: readonly ReferencedPair[],
  batch: SegmentBatch,
  meanRow: Tensor,
  microBatches: number,
  options: DpoOptions,
): Promise<MicroResult> {
  using _ = scope()
  const device = toDevice(batch, model.device)
  const scored = scoredHidden(model, device, { save: true, recompute: options.recompute })
  const { lmHead } = model.parameters
  const out = linearLogps(scored.hidden, lmHead.weight, device.targets, { statistics: true })
  const values = await readGroup(batch, out, scored, meanRow)
  const loss = microLoss(pairs, [values], options)
  const scale = 1 / (pairs.length * microBatches)
  backwardGroup(model, device, scored, out, tokenGradients(batch, loss, scale, 0))
  return { loss: loss.loss, metrics: { ...loss.metrics, ...tokenMetrics([values]) } }
}

/** Log-probs of all groups first, since the loss may look at the whole micro-batch; then group by group. */
async function groupedMicroBatch(
  model: Model,
  pairs: readonly ReferencedPair[],
  batches: readonly SegmentBatch[],
  meanRow: Tensor,
  microBatches: number,
  options: DpoOptions,
): Promise<MicroResult> {
  const values: GroupValues[] = []
  for (const batch of batches) {
    values.push(await scoreGroup(model, batch, meanRow))
  }
  const loss = microLoss(pairs, values, options)
  const scale = 1 / (pairs.length * microBatches)
  let first = 0
  for (const batch of batches) {
    using _ = scope()
    const device = toDevice(batch, model.device)
    const scored = scoredHidden(model, device, { save: true, recompute: options.recompute })
    const out = linearLogps(scored.hidden, model.parameters.lmHead.weight, device.targets)
    backwardGroup(model, device, scored, out, tokenGradients(batch, loss, scale, first))
    first += batch.sequences / 2
  }
  return { loss: loss.loss, metrics: { ...loss.metrics, ...tokenMetrics(values) } }
}

/** Loss and TRL's metrics of the policy on held-out pairs, without gradients; a mean over pairs. */
export async function dpoEvaluate(
  model: Model,
  microBatches: Iterable<DpoMicroBatch>,
  options: DpoOptions,
): Promise<Record<string, number>> {
  using _ = scope()
  const meanRow = meanHeadRow(model)
  const sums: Record<string, number> = {}
  let count = 0
  for (const groups of microBatches) {
    const pairs = groups.flat()
    const values: GroupValues[] = []
    for (const group of groups) {
      values.push(await scoreGroup(model, pairsToBatch(group, options), meanRow))
    }
    const { loss, metrics } = microLoss(pairs, values, options)
    for (const [name, value] of Object.entries({ loss, ...metrics, ...tokenMetrics(values) })) {
      sums[name] = (sums[name] ?? 0) + value * pairs.length
    }
    count += pairs.length
  }
  return Object.fromEntries(Object.entries(sums).map(([name, value]) => [name, value / count]))
}

/** Summed log-probs of the completions of pairs: `[B]` chosen and `[B]` rejected. */
export async function pairLogps(
  model: Model,
  pairs: readonly PairExample[],
  options: Pick<DpoConfig, 'prefixSharing'>,
): Promise<{ chosen: Float64Array; rejected: Float64Array }> {
  using _ = scope()
  const batch = pairBatch(pairs, options)
  const logps = await batchLogps(model, toDevice(batch, model.device)).logps.read()
  const sums = sequenceSums(batch, logps)
  return { chosen: sums.subarray(0, pairs.length), rejected: sums.subarray(pairs.length) }
}

function pairsToBatch(group: readonly ReferencedPair[], options: DpoOptions): SegmentBatch {
  return pairBatch(
    group.map(({ pair }) => pair),
    { prefixSharing: options.prefixSharing },
  )
}

async function scoreGroup(
  model: Model,
  batch: SegmentBatch,
  meanRow: Tensor,
): Promise<GroupValues> {
  using _ = scope()
  const device = toDevice(batch, model.device)
  const scored = scoredHidden(model, device, { save: false })
  const { weight } = model.parameters.lmHead
  const out = linearLogps(scored.hidden, weight, device.targets, { statistics: true })
  return readGroup(batch, out, scored, meanRow)
}

async function readGroup(
  batch: SegmentBatch,
  out: LinearLogps,
  scored: Scored,
  meanRow: Tensor,
): Promise<GroupValues> {
  const mean = gemm(scored.hidden, meanRow, { transB: true, dtype: 'f32' })
  const reads = [out.logps, out.entropy!, out.hit!, mean].map((tensor) => tensor.read())
  const [logps, entropy, hit, meanLogits] = await Promise.all(reads)
  return { batch, logps: logps!, entropy: entropy!, hit: hit!, meanLogits: meanLogits! }
}

/** `[1, C]`: mean over the vocabulary of the head's rows, so that mean logits need no pass over it. */
function meanHeadRow(model: Model): Tensor {
  const { weight } = model.parameters.lmHead
  const V = model.config.vocabSize
  const ones = fromArray(new Float32Array(V).fill(1), [1, V], 'f32', model.device)
  const row = gemm(ones, weight, { alpha: 1 / V })
  ones.dispose()
  return row
}

function microLoss(
  pairs: readonly ReferencedPair[],
  groups: readonly GroupValues[],
  options: DpoOptions,
): PreferenceLossResult {
  const chosen: number[] = []
  const rejected: number[] = []
  for (const { batch, logps } of groups) {
    const sums = sequenceSums(batch, logps)
    chosen.push(...sums.subarray(0, batch.sequences / 2))
    rejected.push(...sums.subarray(batch.sequences / 2))
  }
  return preferenceLoss(options, {
    policyChosen: Float64Array.from(chosen),
    policyRejected: Float64Array.from(rejected),
    refChosen: Float64Array.from(pairs, ({ refChosen }) => refChosen),
    refRejected: Float64Array.from(pairs, ({ refRejected }) => refRejected),
    chosenLengths: pairs.map(({ pair }) => pair.chosenIds.length),
    rejectedLengths: pairs.map(({ pair }) => pair.rejectedIds.length),
  })
}

function sequenceSums(batch: SegmentBatch, logps: ArrayLike<number>): Float64Array {
  const sums = new Float64Array(batch.sequences)
  for (let n = 0; n < logps.length; n++) sums[batch.sequence[n]!]! += logps[n]!
  return sums
}

/** d loss / d log-prob of each scored token of a group whose first pair is number `first`. */
function tokenGradients(
  batch: SegmentBatch,
  loss: PreferenceLossResult,
  scale: number,
  first: number,
): Float32Array {
  const half = batch.sequences / 2
  return Float32Array.from(batch.sequence, (s) => {
    const d = s < half ? loss.dChosen[first + s]! : loss.dRejected[first + s - half]!
    return d * scale
  })
}

function backwardGroup(
  model: Model,
  device: DeviceBatch,
  scored: Scored,
  out: LinearLogps,
  gradients: Float32Array,
): void {
  const { lmHead } = model.parameters
  const dlogps = fromArray(gradients, [gradients.length], 'f32', model.device)
  const dpicked = linearLogpsBackward(
    ...([scored.hidden, lmHead.weight, device.targets, out.lse, dlogps, lmHead.grad] as const),
  )
  backwardFromScored(model, device, scored, dpicked)
}

/** TRL's means over completion tokens: entropy of both, accuracy of chosen, mean logits of each. */
function tokenMetrics(groups: readonly GroupValues[]): Record<string, number> {
  const sums = { entropy: 0, tokens: 0, hits: 0, chosen: 0, rejected: 0, logitsC: 0, logitsR: 0 }
  for (const { batch, entropy, hit, meanLogits } of groups) {
    for (let n = 0; n < entropy.length; n++) {
      sums.entropy += entropy[n]!
      sums.tokens += 1
      if (batch.sequence[n]! < batch.sequences / 2) {
        sums.chosen += 1
        sums.hits += hit[n]!
        sums.logitsC += meanLogits[n]!
      } else {
        sums.rejected += 1
        sums.logitsR += meanLogits[n]!
      }
    }
  }
  return {
    'logits/chosen': sums.logitsC / sums.chosen,
    'logits/rejected': sums.logitsR / sums.rejected,
    mean_token_accuracy: sums.hits / sums.chosen,
    entropy: sums.entropy / sums.tokens,
  }
}
