import { openSafetensors, readTensor } from '../checkpoint/safetensors.js'
import type { SftExample } from '../data/encode.js'
import { permutation } from '../data/order.js'
import type { Device } from '../device/device.js'
import { WestwindError } from '../errors.js'
import { createModel, type ModelDType } from '../model/model.js'
import { isolated } from '../tensor/scope.js'
import { globalNorm, gradientSquares } from '../train/diagnose.js'
import { Optimizer } from '../train/optimizer.js'
import { sftGradients } from '../train/sft-step.js'
import { quantile } from './harness.js'
import { type BenchModel, benchConfig } from './models.js'

export interface SftBenchOptions {
  device: Device
  dtype: ModelDType
  steps: number
  warmup: number
  /** Documents of each step; by default random tokens in documents of several hundred. */
  batches?: SftExample[][]
  signal?: AbortSignal | undefined
}

/** Under the keys of the PyTorch program it is compared with. */
export interface SftBenchResult {
  steps: number
  loss: number
  s_per_step: number
  tokens_per_s: number
  useful_tflops: number
  peak_rss_mb: number
}

/**
 * Times whole dSFT steps: forward, backward, clipping, AdamW with f32 masters. Medians after the warm-up.
 * Useful FLOPs count every weight but the embedding twice per token and forward, the head at scored
 * positions, causal attention once, backward twice the forward.
 */
export function benchSft(shape: BenchModel, options: SftBenchOptions): Promise<SftBenchResult> {
  return isolated(async () => {
    const { device, dtype, steps, warmup } = options
    const batches = options.batches ?? syntheticBatches(steps + warmup, shape.vocabulary)
    using model = createModel(benchConfig(shape), { seed: 0, dtype, device })
    const adamw = { optim: 'adamw', adamBeta1: 0.9, adamBeta2: 0.999, adamEpsilon: 1e-8 } as const
    const rmsprop = { rmspropAlpha: 0.99, rmspropEpsilon: 1e-8 }
    using optimizer = new Optimizer(model, {
      ...adamw,
      ...rmsprop,
      weightDecay: 0,
      masterWeights: true,
    })
    const rows: { seconds: number; tokens: number; flops: number }[] = []
    let loss = Number.NaN
    for (let step = 0; step < steps + warmup; step++) {
      if (options.signal?.aborted) throw new WestwindError('ERR_ABORTED', 'bench: stopped')
      const begin = performance.now()
      for (const parameter of model.parameters.list) parameter.zeroGrad()
      const documents = batches[step % batches.length]!
      const outcome = await sftGradients(model, [[[documents]]], { recompute: false })
      const norm = globalNorm(await gradientSquares(model))
      optimizer.step(1e-5, Math.min(1, 1 / (norm + 1e-6)))
      await device.synchronize()
      const seconds = (performance.now() - begin) / 1000
      loss = outcome.loss
      if (step >= warmup) rows.push({ seconds, tokens: outcome.tokens, flops: outcome.flops })
    }
    if (!Number.isFinite(loss)) {
      throw new WestwindError('ERR_DEVICE', `bench: the loss is ${loss}; a wrong step is not timed`)
    }
    const median = (values: number[]) => quantile(values, 0.5)
    return {
      steps,
      loss,
      s_per_step: median(rows.map(({ seconds }) => seconds)),
      tokens_per_s: median(rows.map(({ seconds, tokens }) => tokens / seconds)),
      useful_tflops: median(rows.map(({ seconds, flops }) => flops / seconds)) / 1e12,
      peak_rss_mb: process.resourceUsage().maxRSS / 1024,
    }
  })
}

function document(ids: Int32Array): SftExample {
  return { ids, labels: ids }
}

function syntheticBatches(count: number, vocabulary: number): SftExample[][] {
  const lengths = [900, 620, 310, 150, 68]
  return Array.from({ length: count }, (_, step) =>
    lengths.map((length, i) => {
      const order = permutation(vocabulary, step * lengths.length + i)
      return document(order.slice(0, Math.min(length, vocabulary)))
    }),
  )
}

/** The token batches `step{i}.input_ids` and `step{i}.doc_lengths` of a safetensors file. */
export async function readBatches(path: string): Promise<SftExample[][]> {
  const { file, tensors } = await openSafetensors(path)
  const batches: SftExample[][] = []
  for (let step = 0; tensors.has(`step${step}.input_ids`); step++) {
    const ids = Int32Array.from(
      await readTensor(file, tensors.get(`step${step}.input_ids`)!),
      Number,
    )
    const lengths = tensors.get(`step${step}.doc_lengths`)
    if (!lengths) throw new WestwindError('ERR_DATA', `${path}: step${step}.doc_lengths is missing`)
    let at = 0
    batches.push(
      Array.from(await readTensor(file, lengths), (length) => {
        at += Number(length)
        return document(ids.slice(at - Number(length), at))
      }),
    )
  }
  if (batches.length === 0) {
    throw new WestwindError('ERR_DATA', `${path}: no step0.input_ids, so no batches of SFT steps`)
  }
  return batches
}
