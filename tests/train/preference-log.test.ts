import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { openSafetensors, readTensor } from '../../src/checkpoint/safetensors.js'
import { LogWindow } from '../../src/train/metrics.js'
import { type PreferenceLossName, preferenceLoss } from '../../src/train/preference-loss.js'
import { lrAt, warmupLength } from '../../src/train/schedule.js'

interface Run {
  args: { loss: PreferenceLossName; beta: number; mb: number; ga: number; lr: number }
  log: Record<string, number>[]
  replay_f64: Record<string, number>[]
  optimiser_step_of_micro: number[]
  per_pair_logps_f64: Record<
    'policy_chosen' | 'policy_rejected' | 'ref_chosen' | 'ref_rejected',
    number[]
  >[]
}

const folder = fileURLToPath(new URL('../fixtures/golden/trl_dpo/', import.meta.url))

/** Completion tokens of the chosen, then of the rejected rows of each micro-batch. */
async function completionLengths(tag: string, microBatches: number): Promise<number[][]> {
  const file = `${folder}${tag}.batches.safetensors`
  const { tensors } = await openSafetensors(file)
  return Promise.all(
    Array.from({ length: microBatches }, async (_, i) => {
      const entry = tensors.get(`micro${i}.completion_mask`)!
      const mask = Array.from(await readTensor(file, entry), Number)
      const [rows = 0, width = 0] = entry.shape
      return Array.from({ length: rows }, (_, r) =>
        mask.slice(r * width, (r + 1) * width).reduce((a, b) => a + b),
      )
    }),
  )
}

describe.each(['sigmoid_beta0.1', 'ipo_precomputed_ga2'])('20 logged steps of %s', (tag) => {
  it('follow from its log-probs: loss, rewards, log-probs, learning rate', async () => {
    const run: Run = JSON.parse(readFileSync(`${folder}${tag}.json`, 'utf8'))
    const lengths = await completionLengths(tag, run.per_pair_logps_f64.length)
    const window = new LogWindow()
    const schedule = {
      type: 'cosine',
      learningRate: run.args.lr,
      warmupSteps: warmupLength(20, { warmupRatio: 0.1 }),
      totalSteps: 20,
    } as const
    for (const want of run.replay_f64) {
      const step = want.step!
      const losses: number[] = []
      for (const [i, micro] of run.per_pair_logps_f64.entries()) {
        if (run.optimiser_step_of_micro[i] !== step) continue
        const B = micro.policy_chosen.length
        const { loss, metrics } = preferenceLoss(
          { lossType: run.args.loss, beta: run.args.beta },
          {
            policyChosen: Float64Array.from(micro.policy_chosen),
            policyRejected: Float64Array.from(micro.policy_rejected),
            refChosen: Float64Array.from(micro.ref_chosen),
            refRejected: Float64Array.from(micro.ref_rejected),
            chosenLengths: lengths[i]!.slice(0, B),
            rejectedLengths: lengths[i]!.slice(B),
          },
        )
        losses.push(loss)
        window.addMicroBatch(metrics)
      }
      window.addStep({
        loss: losses.reduce((a, b) => a + b) / losses.length,
        gradNorm: 0,
        learningRate: lrAt(schedule, step - 1),
        numTokens: 0,
      })
      const got = window.take()
      for (const [name, value] of Object.entries(want)) {
        if (name === 'step' || name === 'grad_norm') continue
        // the same float64 arithmetic; rewards cancel sums of hundreds of nats
        expect(Math.abs(got[name]! - value), `${name} at step ${step}`).toBeLessThan(1e-11)
      }
      // TRL itself computed in float32
      expect(Math.abs(got.loss! / run.log[step - 1]!.loss! - 1)).toBeLessThan(2e-5)
    }
  })
})
