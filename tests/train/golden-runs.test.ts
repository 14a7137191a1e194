import { readFile } from 'node:fs/promises'
import { afterAll, describe, expect, it } from 'vitest'
import { openSafetensors, readTensor } from '../../src/checkpoint/safetensors.js'
import type { PairExample, SftExample } from '../../src/data/encode.js'
import type { Device } from '../../src/device/device.js'
import { loadModel, type Model } from '../../src/model/model.js'
import { globalNorm, gradientSquares } from '../../src/train/diagnose.js'
import type { DpoOptions } from '../../src/train/dpo-step.js'
import { dpoGradients } from '../../src/train/dpo-step.js'
import { LogWindow } from '../../src/train/metrics.js'
import { Optimizer } from '../../src/train/optimizer.js'
import { lrAt } from '../../src/train/schedule.js'
import { sftGradients } from '../../src/train/sft-step.js'
import type { StepOutcome } from '../../src/train/step.js'
import { engines, named } from '../support/devices.js'
import { fixturePath } from '../support/fixtures.js'

const golden = fixturePath('golden')

afterAll(() => {
  for (const on of engines) expect(on.stats()).toMatchObject({ liveBytes: 0, forgottenTensors: 0 })
})

interface GoldenRun {
  model: string
  log: Record<string, number>[]
  log_f64?: Record<string, number>[]
  optimiser_step_of_micro?: number[]
  args: { lr: number; wd: number; beta: number; loss: string }
  per_pair_logps_f64: { ref_chosen: number[]; ref_rejected: number[] }[]
}

async function readJson(path: string): Promise<GoldenRun> {
  return JSON.parse(await readFile(`${golden}/${path}.json`, 'utf8')) as GoldenRun
}

/** A reader of the int32 matrices of a batches file. */
async function batches(path: string) {
  const { file, tensors } = await openSafetensors(`${golden}/${path}.batches.safetensors`)
  return async (name: string): Promise<number[][] | undefined> => {
    const entry = tensors.get(name)
    if (!entry) return undefined
    const values = Array.from(await readTensor(file, entry), Number)
    const width = entry.shape.at(-1)!
    return Array.from({ length: values.length / width }, (_, r) =>
      values.slice(r * width, (r + 1) * width),
    )
  }
}

const settings = {
  optim: 'adamw',
  adamBeta1: 0.9,
  adamBeta2: 0.999,
  adamEpsilon: 1e-8,
  rmspropAlpha: 0.99,
  rmspropEpsilon: 1e-8,
  masterWeights: true,
} as const

const allSteps = 20

/**
 * Each step takes seconds on a PTX simulator. Of four, the first is at learning rate 0, and the last follows two
 * updates of the weights.
 */
const stepsOn = (on: Device) => (on.product.startsWith('ptxsim') ? 4 : allSteps)

/** So many steps with the golden schedule; returns what was logged. */
async function train(
  model: Model,
  steps: number,
  run: { learningRate: number; weightDecay: number },
  gradients: (step: number) => Promise<StepOutcome>,
): Promise<Record<string, number>[]> {
  using optimizer = new Optimizer(model, { ...settings, weightDecay: run.weightDecay })
  const schedule = {
    type: 'cosine',
    learningRate: run.learningRate,
    warmupSteps: 2,
    totalSteps: allSteps,
  } as const
  const log: Record<string, number>[] = []
  let numTokens = 0
  for (let step = 0; step < steps; step++) {
    for (const parameter of model.parameters.list) parameter.freeGrad()
    const outcome = await gradients(step)
    const gradNorm = globalNorm(await gradientSquares(model))
    const learningRate = lrAt(schedule, step)
    optimizer.step(learningRate, Math.min(1, 1 / (gradNorm + 1e-6)))
    numTokens += outcome.tokens
    const window = new LogWindow()
    for (const metrics of outcome.micro) window.addMicroBatch(metrics)
    window.addStep({ loss: outcome.loss, gradNorm, learningRate, numTokens })
    log.push({ step: step + 1, ...window.take() })
  }
  return log
}

/** After the last step the weights are the golden ones. */
async function expectWeights(
  model: Model,
  steps: number,
  path: string,
  prefix = '',
): Promise<void> {
  if (steps < allSteps) return
  const { file, tensors } = await openSafetensors(`${golden}/${path}.final.safetensors`)
  let error = 0
  for (const { spec, weight } of model.parameters.list) {
    const actual = await weight.read()
    const width = spec.shape[1] ?? 1
    for (const part of spec.parts) {
      const truth = await readTensor(file, tensors.get(prefix + part.hfName)!)
      for (let i = 0; i < truth.length; i++) {
        error = Math.max(error, Math.abs(actual[part.rowStart * width + i]! - Number(truth[i])))
      }
    }
  }
  expect(error).toBeLessThan(1e-5)
}

const relative = (x: number, y: number) => Math.abs(x - y) / Math.max(Math.abs(y), 1e-3)

/** The rows of a right-padded micro-batch as documents; a packed row is cut where positions restart. */
async function documents(
  read: Awaited<ReturnType<typeof batches>>,
  micro: number,
): Promise<SftExample[][]> {
  const ids = (await read(`micro${micro}.input_ids`))!
  const labels = (await read(`micro${micro}.labels`))!
  const mask = await read(`micro${micro}.attention_mask`)
  const positions = await read(`micro${micro}.position_ids`)
  return ids.map((row, r) => {
    const length = mask ? mask[r]!.reduce((a, b) => a + b, 0) : row.length
    const starts = positions
      ? positions[r]!.flatMap((position, t) => (position === 0 ? [t] : []))
      : [0]
    return starts.map((start, d) => {
      const end = starts[d + 1] ?? length
      const take = (values: number[]) => Int32Array.from(values.slice(start, end))
      return { ids: take(row), labels: take(labels[r]!) }
    })
  })
}

const runsOn = engines.map((on) => [stepsOn(on), ...named(on)] as const)
describe.each(runsOn)(`%i of ${allSteps} steps in float32, step by step, on %s`, (steps, _, on) => {
  it.each(['0_h64d16_full_untied_wd0.0_ga1', '1_h64d32_win16_tied_wd0.1_ga2'])(
    'plain PyTorch with AdamW, %s: loss, gradient norm, learning rate, final weights',
    async (name) => {
      const run = JSON.parse(await readFile(`${golden}/sft_adamw/${name}.json`, 'utf8')) as {
        model: string
        gradient_accumulation: number
        optimiser: { weight_decay: number }
        log_f64: { loss: number; grad_norm: number; lr: number; tokens: number }[]
      }
      const read = await batches(`sft_adamw/${name}`)
      using model = await loadModel(`${golden}/${run.model}/f32`, { device: on })
      const ga = run.gradient_accumulation
      const options = { learningRate: 2e-3, weightDecay: run.optimiser.weight_decay }
      const log = await train(model, steps, options, async (step) => {
        const window = []
        for (let m = step * ga; m < (step + 1) * ga; m++) window.push([await documents(read, m)])
        return sftGradients(model, window, { recompute: step % 2 === 1 })
      })
      for (const [i, truth] of run.log_f64.slice(0, steps).entries()) {
        expect(relative(log[i]!.loss!, truth.loss)).toBeLessThan(1e-5)
        expect(relative(log[i]!.grad_norm!, truth.grad_norm)).toBeLessThan(3e-5)
        expect(log[i]!.learning_rate).toBeCloseTo(truth.lr, 12)
      }
      await expectWeights(model, steps, `sft_adamw/${name}`, 'final.')
    },
  )

  it.each(['packing_bfd', 'assistant_only_ga2'])(
    'SFTTrainer, %s: every logged metric',
    async (name) => {
      const run = await readJson(`trl_sft/${name}`)
      const read = await batches(`trl_sft/${name}`)
      using model = await loadModel(`${golden}/${run.model}/f32`, { device: on })
      const options = { learningRate: run.args.lr, weightDecay: run.args.wd }
      const log = await train(model, steps, options, async (step) => {
        const micros = run.optimiser_step_of_micro!.flatMap((s, m) => (s === step + 1 ? [m] : []))
        const window = []
        for (const m of micros) window.push([await documents(read, m)])
        return sftGradients(model, window, { recompute: false })
      })
      for (const [i, truth] of run.log.slice(0, steps).entries()) expectMetrics(log[i]!, truth)
      await expectWeights(model, steps, `trl_sft/${name}`)
    },
  )

  const runs = ['sigmoid_beta0.1', 'ipo_precomputed_ga2']
  it.each(runs.flatMap((name) => [true, false].map((prefixSharing) => ({ name, prefixSharing }))))(
    'DPOTrainer, $name, prefixSharing $prefixSharing: every logged metric',
    async ({ name, prefixSharing }) => {
      const run = await readJson(`trl_dpo/${name}`)
      const read = await batches(`trl_dpo/${name}`)
      using model = await loadModel(`${golden}/${run.model}/f32`, { device: on })
      const dpo: DpoOptions = {
        lossType: run.args.loss as DpoOptions['lossType'],
        beta: run.args.beta,
        labelSmoothing: 0,
        discopopTau: 0.05,
        rpoAlpha: null,
        prefixSharing,
        recompute: false,
      }
      const options = { learningRate: run.args.lr, weightDecay: run.args.wd }
      const log = await train(model, steps, options, async (step) => {
        const micros = run.optimiser_step_of_micro!.flatMap((s, m) => (s === step + 1 ? [m] : []))
        const window = []
        for (const m of micros) {
          const pairs = await readPairs(read, m)
          const { ref_chosen, ref_rejected } = run.per_pair_logps_f64[m]!
          window.push([
            pairs.map((pair, i) => ({
              pair,
              refChosen: ref_chosen[i]!,
              refRejected: ref_rejected[i]!,
            })),
          ])
        }
        return dpoGradients(model, window, dpo)
      })
      for (const [i, truth] of run.log.slice(0, steps).entries()) expectMetrics(log[i]!, truth)
      await expectWeights(model, steps, `trl_dpo/${name}`)
    },
  )
})

/** Relative for what is large, absolute for what is cancellation noise around zero. */
const bounds: Record<string, { relative?: number; absolute?: number }> = {
  loss: { relative: 3e-5, absolute: 2e-5 },
  grad_norm: { relative: 1e-4 },
  learning_rate: { absolute: 1e-12 },
  num_tokens: { absolute: 0 },
  entropy: { relative: 2e-5 },
  mean_token_accuracy: { absolute: 1e-7 },
  'rewards/chosen': { relative: 1e-4, absolute: 1e-4 },
  'rewards/rejected': { relative: 1e-4, absolute: 1e-4 },
  'rewards/margins': { relative: 1e-4, absolute: 1e-4 },
  'rewards/accuracies': { absolute: 0 },
  'logps/chosen': { relative: 1e-5 },
  'logps/rejected': { relative: 1e-5 },
  'logits/chosen': { absolute: 1e-5 },
  'logits/rejected': { absolute: 1e-5 },
}

function expectMetrics(actual: Record<string, number>, truth: Record<string, number>): void {
  for (const [name, { relative = 0, absolute = 0 }] of Object.entries(bounds)) {
    const expected = truth[name]
    if (expected === undefined) continue
    // At steps 1 and 2 policy and reference are the same: which is larger is rounding.
    if (name === 'rewards/accuracies' && truth.step! <= 2) continue
    const difference = Math.abs(actual[name]! - expected)
    const allowed = relative * Math.abs(expected) + absolute
    expect(
      difference,
      `${name} at step ${truth.step}: ${actual[name]} for ${expected}`,
    ).toBeLessThanOrEqual(allowed)
  }
}

/** Rows 0 … B−1 are prompt + chosen, B … 2B−1 prompt + rejected, right-padded. */
async function readPairs(
  read: Awaited<ReturnType<typeof batches>>,
  micro: number,
): Promise<PairExample[]> {
  const ids = (await read(`micro${micro}.input_ids`))!
  const mask = (await read(`micro${micro}.attention_mask`))!
  const completion = (await read(`micro${micro}.completion_mask`))!
  const split = (row: number) => {
    const length = mask[row]!.reduce((a, b) => a + b, 0)
    const begin = completion[row]!.indexOf(1)
    return [ids[row]!.slice(0, begin), ids[row]!.slice(begin, length)].map((x) =>
      Int32Array.from(x),
    )
  }
  const B = ids.length / 2
  return Array.from({ length: B }, (_, i) => {
    const [promptIds, chosenIds] = split(i)
    const [other, rejectedIds] = split(B + i)
    expect(other).toEqual(promptIds)
    return { promptIds: promptIds!, chosenIds: chosenIds!, rejectedIds: rejectedIds! }
  })
}
