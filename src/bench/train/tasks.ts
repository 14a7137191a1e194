import { sftBatch } from '../../data/batch.js'
import type { PairExample, SftExample } from '../../data/encode.js'
import { batchLogps, toDevice } from '../../model/batch.js'
import { generate } from '../../model/generate.js'
import { createModel, type Model } from '../../model/model.js'
import { isolated, scope } from '../../tensor/scope.js'
import { globalNorm, gradientSquares } from '../../train/diagnose.js'
import {
  type DpoOptions,
  dpoGradients,
  pairLogps,
  type ReferencedPair,
} from '../../train/dpo-step.js'
import { Optimizer } from '../../train/optimizer.js'
import { sftGradients } from '../../train/sft-step.js'
import { quantile } from '../harness.js'
import { benchConfig } from '../models.js'
import { currentRss, peakRss, rates, timeSteps, usefulFlops } from './definitions.js'
import { dpoBatches, sftBatches, syntheticPrompts } from './inputs.js'
import type { BenchTask, TrainBenchOptions, TrainBenchResult } from './options.js'

/**
 * Times whole steps of one task on a model with random weights. What counts as a token, a FLOP and peak memory:
 * {@link usefulFlops} and docs/metrics.md.
 *
 * @throws ERR_DATA for batches that are malformed or too few; ERR_DEVICE where the loss is not finite; ERR_ABORTED
 */
export function benchTrain(task: BenchTask, options: TrainBenchOptions): Promise<TrainBenchResult> {
  return isolated(async () => {
    const { device, model: shape, precision } = options
    const dtype = precision === 'fp32' ? 'f32' : 'bf16'
    using model = createModel(benchConfig(shape), { seed: 0, dtype, device })
    return { task, precision, ...(await tasks[task](model, options)), peak_rss_mb: peakRss() }
  })
}

type Task = (model: Model, options: TrainBenchOptions) => Promise<TrainBenchResult>

const tasks: Record<BenchTask, Task> = { sft, dpo, score, generate: decode }

/** Forward, backward, clipping at a norm of 1, AdamW. */
async function sft(model: Model, options: TrainBenchOptions): Promise<TrainBenchResult> {
  const batches = await sftBatches(options)
  using optimizer = createOptimizer(model, options)
  const base = currentRss()
  const done = await timeSteps(options, batches, described(options, 3), async (documents) => {
    const { loss } = await sftGradients(model, [[[documents]]], { recompute: options.gradCkpt })
    await update(model, optimizer, 1e-5)
    return loss
  })
  return { ...rowSettings(options), ...summary(done), base_rss_mb: base }
}

/** The sigmoid loss with β = 0.1, prompts computed once for both completions. */
async function dpo(model: Model, options: TrainBenchOptions): Promise<TrainBenchResult> {
  const { pairs, maxLength, precomputeRef } = options
  const batches = await dpoBatches(options)
  using optimizer = createOptimizer(model, options)
  using frozen = precomputeRef ? undefined : copyOf(model, options)
  const known = new Map<PairExample[], ReferencedPair[]>()
  const sharing = { prefixSharing: true }
  const referenced = async (on: Model, batch: PairExample[]): Promise<ReferencedPair[]> => {
    const { chosen, rejected } = await pairLogps(on, batch, sharing)
    return batch.map((pair, i) => ({ pair, refChosen: chosen[i]!, refRejected: rejected[i]! }))
  }
  const before = performance.now()
  if (precomputeRef) for (const batch of batches) known.set(batch, await referenced(model, batch))
  const precompute = (performance.now() - before) / 1000 / batches.length
  const base = currentRss()
  const describe = (batch: PairExample[]) => {
    const lengths = batch.flatMap(({ promptIds, chosenIds, rejectedIds }) =>
      [chosenIds, rejectedIds].map(({ length }) => promptIds.length + length),
    )
    const scored = batch.reduce((n, { chosenIds, rejectedIds }) => {
      return n + chosenIds.length + rejectedIds.length
    }, 0)
    return work(options, lengths, scored, precomputeRef ? 3 : 4)
  }
  const loss: DpoOptions = {
    lossType: 'sigmoid',
    beta: 0.1,
    labelSmoothing: 0,
    discopopTau: 0.05,
    rpoAlpha: null,
    ...sharing,
    recompute: options.gradCkpt,
  }
  const done = await timeSteps(options, batches, describe, async (batch) => {
    const group = known.get(batch) ?? (await referenced(frozen!, batch))
    const outcome = await dpoGradients(model, [[group]], loss)
    await update(model, optimizer, 5e-7)
    return outcome.loss
  })
  const perStep = quantile(
    done.times.map(({ seconds }) => seconds),
    0.5,
  )
  return {
    ...{ pairs, max_length: maxLength, precompute_ref: precomputeRef },
    ...{ data: options.data ?? (options.batches ? 'batches' : 'synthetic') },
    ...summary(done),
    pairs_per_s: pairs / perStep,
    ...(precomputeRef && { precompute_s_per_batch: precompute }),
    base_rss_mb: base,
  }
}

/** Log-probs of every token, forward only. */
async function score(model: Model, options: TrainBenchOptions): Promise<TrainBenchResult> {
  const batches = await sftBatches(options)
  const base = currentRss()
  const done = await timeSteps(options, batches, described(options, 1), async (documents) => {
    using _ = scope()
    const logps = await batchLogps(
      model,
      toDevice(sftBatch([documents]), model.device),
    ).logps.read()
    return -Float64Array.from(logps).reduce((sum, x) => sum + x, 0) / logps.length
  })
  return { ...rowSettings(options), ...summary(done), base_rss_mb: base }
}

/** Greedy, always `new` tokens. What the prompts take is timed by a run that ends with their first token. */
async function decode(model: Model, options: TrainBenchOptions): Promise<TrainBenchResult> {
  const { batch, prompt, new: count, warmup, steps, signal } = options
  const prompts = syntheticPrompts(options)
  const base = currentRss()
  const timed = async (maxNewTokens: number) => {
    const begin = performance.now()
    const sampling = { maxNewTokens, stopIds: [], batchSize: batch, ...(signal && { signal }) }
    await generate(model, prompts, sampling)
    return (performance.now() - begin) / 1000
  }
  const prefills: number[] = []
  const decodes: number[] = []
  for (let i = 0; i < warmup + steps; i++) {
    const prefill = await timed(1)
    const rest = (await timed(count)) - prefill
    if (i < warmup) continue
    prefills.push(prefill)
    decodes.push(rest)
  }
  const seconds = quantile(decodes, 0.5) / (count - 1)
  const bytes =
    (model.parameterCount - options.model.vocabulary * options.model.hidden) *
    (model.dtype === 'f32' ? 4 : 2)
  return {
    ...{ batch, prompt, new: count, steps },
    prefill_tokens_per_s: (batch * prompt) / quantile(prefills, 0.5),
    decode_tokens_per_s: batch / seconds,
    tokens_per_s: batch / seconds,
    s_per_step: seconds,
    ms_per_decode_step: seconds * 1e3,
    weight_GBps: bytes / seconds / 1e9,
    base_rss_mb: base,
  }
}

/** The frozen model: same weights, for they come from the same seed. */
function copyOf(model: Model, { device }: TrainBenchOptions): Model {
  return createModel(model.config, { seed: 0, dtype: model.dtype, device })
}

function createOptimizer(model: Model, { precision }: TrainBenchOptions): Optimizer {
  return new Optimizer(model, {
    ...({ optim: 'adamw', adamBeta1: 0.9, adamBeta2: 0.999, adamEpsilon: 1e-8 } as const),
    ...{ rmspropAlpha: 0.99, rmspropEpsilon: 1e-8, weightDecay: 0 },
    masterWeights: precision === 'amp',
  })
}

async function update(model: Model, optimizer: Optimizer, lr: number): Promise<void> {
  const norm = globalNorm(await gradientSquares(model))
  optimizer.step(lr, Math.min(1, 1 / (norm + 1e-6)))
  for (const parameter of model.parameters.list) parameter.freeGrad()
}

/** Of documents whose every token but the first is scored. */
function described(options: TrainBenchOptions, passes: number) {
  return (documents: readonly SftExample[]) => {
    const lengths = documents.map(({ ids }) => ids.length)
    const tokens = lengths.reduce((sum, n) => sum + n, 0)
    return work(options, lengths, tokens - lengths.length, passes)
  }
}

function work(options: TrainBenchOptions, lengths: number[], scored: number, passes: number) {
  return {
    tokens: lengths.reduce((sum, n) => sum + n, 0),
    flops: usefulFlops(options.model, lengths, scored, passes),
  }
}

function rowSettings({ seq, microBatch, docs, gradCkpt }: TrainBenchOptions): TrainBenchResult {
  return { seq, micro_batch: microBatch, docs, grad_ckpt: gradCkpt }
}

function summary({ times, warmupSeconds, loss }: Awaited<ReturnType<typeof timeSteps>>) {
  return {
    ...rates(times),
    warmup_s: warmupSeconds,
    ...(loss !== undefined && { last_loss: loss }),
  }
}
