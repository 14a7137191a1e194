import { type SegmentBatch, sftBatch } from '../data/batch.js'
import type { SftExample } from '../data/encode.js'
import { backwardFromScored, batchLogps, scoredHidden, toDevice } from '../model/batch.js'
import type { Model } from '../model/model.js'
import { linearLogps } from '../ops/index.js'
import type { TypedArray } from '../tensor/dtype.js'
import { scope } from '../tensor/scope.js'
import { fromArray } from '../tensor/tensor.js'
import { trainFlops } from './mfu.js'
import type { StepOutcome } from './step.js'

/** Rows of one micro-batch, in groups that are computed at once; a row is a list of documents. */
export type SftMicroBatch = SftExample[][][]

/** What the host learns of one group. */
interface GroupReads {
  logps: Promise<TypedArray>
  entropy: Promise<TypedArray>
  hit: Promise<TypedArray>
}

/**
 * Gradients of the negative log-likelihood, a mean over the scored tokens of the whole step, however it
 * is split into micro-batches. Log-probs and their gradients come from one pass over the vocabulary.
 */
export async function sftGradients(
  model: Model,
  window: readonly SftMicroBatch[],
  options: { recompute: boolean },
): Promise<StepOutcome> {
  const batches = window.map((groups) => groups.map((rows) => sftBatch(rows)))
  const scored = sum(batches.flat().map(({ targets }) => targets.length))
  const reads = batches.map((groups) =>
    groups
      .filter(({ targets }) => targets.length > 0)
      .map((batch) => sftGroup(model, batch, 1 / scored, options)),
  )
  const outcome: StepOutcome = {
    loss: 0,
    microLosses: [],
    micro: [],
    tokens: 0,
    flops: 0,
    pairs: 0,
  }
  for (const groups of reads) {
    const { nll, entropy, hits, count } = await collect(groups)
    outcome.loss += nll / Math.max(scored, 1)
    outcome.microLosses.push(nll)
    if (count > 0) {
      outcome.micro.push({ entropy: entropy / count, mean_token_accuracy: hits / count })
    }
  }
  outcome.tokens = sum(batches.flat().map(({ inputTokens }) => inputTokens))
  outcome.flops = sum(batches.flat().map((batch) => trainFlops(model.config, batch)))
  return outcome
}

function sftGroup(
  model: Model,
  batch: SegmentBatch,
  weight: number,
  options: { recompute: boolean },
): GroupReads {
  using _ = scope()
  const device = toDevice(batch, model.device)
  const scored = scoredHidden(model, device, { save: true, recompute: options.recompute })
  const { lmHead } = model.parameters
  const n = batch.targets.length
  const out = linearLogps(scored.hidden, lmHead.weight, device.targets, {
    statistics: true,
    dlogps: fromArray(new Float32Array(n).fill(-weight), [n], 'f32', model.device),
    dweight: lmHead.grad,
  })
  const reads = { logps: out.logps.read(), entropy: out.entropy!.read(), hit: out.hit!.read() }
  backwardFromScored(model, device, scored, out.dhidden!)
  return reads
}

/** Mean negative log-likelihood over the scored tokens of all rows, and TRL's other metrics. */
export async function sftEvaluate(
  model: Model,
  microBatches: Iterable<SftMicroBatch>,
): Promise<Record<string, number>> {
  let nll = 0
  let count = 0
  const means = { entropy: 0, mean_token_accuracy: 0, batches: 0 }
  for (const groups of microBatches) {
    const reads = groups
      .map((rows) => sftBatch(rows))
      .filter(({ targets }) => targets.length > 0)
      .map((batch): GroupReads => {
        using _ = scope()
        const out = batchLogps(model, toDevice(batch, model.device), true)
        return { logps: out.logps.read(), entropy: out.entropy!.read(), hit: out.hit!.read() }
      })
    const got = await collect(reads)
    if (got.count === 0) continue
    nll += got.nll
    count += got.count
    means.entropy += got.entropy / got.count
    means.mean_token_accuracy += got.hits / got.count
    means.batches += 1
  }
  if (count === 0) return {}
  return {
    loss: nll / count,
    entropy: means.entropy / means.batches,
    mean_token_accuracy: means.mean_token_accuracy / means.batches,
  }
}

async function collect(groups: readonly GroupReads[]) {
  const totals = { nll: 0, entropy: 0, hits: 0, count: 0 }
  for (const group of groups) {
    const logps = await group.logps
    totals.nll -= sum(logps)
    totals.entropy += sum(await group.entropy)
    totals.hits += sum(await group.hit)
    totals.count += logps.length
  }
  return totals
}

function sum(values: ArrayLike<number>): number {
  let total = 0
  for (let i = 0; i < values.length; i++) total += values[i]!
  return total
}
