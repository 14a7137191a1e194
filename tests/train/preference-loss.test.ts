import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import {
  type PreferenceBatch,
  type PreferenceLossConfig,
  type PreferenceLossName,
  preferenceLoss,
  preferenceLossNames,
} from '../../src/train/preference-loss.js'

interface GoldenCase {
  loss_type: PreferenceLossName
  beta: number
  label_smoothing: number
  discopop_tau: number | null
  losses: number[]
  loss: number
  grad_mean_loss_wrt_policy_chosen: number[]
  grad_mean_loss_wrt_policy_rejected: number[]
  rewards_chosen: number[]
  rewards_rejected: number[]
  accuracies: number[]
  margins: number[]
  mean: Record<string, number>
}
interface Golden extends Record<string, unknown> {
  policy_chosen_logps: number[]
  policy_rejected_logps: number[]
  ref_chosen_logps: number[]
  ref_rejected_logps: number[]
  chosen_lengths: number[]
  rejected_lengths: number[]
  cases: GoldenCase[]
}

const golden: Golden = JSON.parse(
  readFileSync(new URL('../fixtures/golden/dpo_losses.json', import.meta.url), 'utf8'),
)
const goldenBatch: PreferenceBatch = {
  policyChosen: Float64Array.from(golden.policy_chosen_logps),
  policyRejected: Float64Array.from(golden.policy_rejected_logps),
  refChosen: Float64Array.from(golden.ref_chosen_logps),
  refRejected: Float64Array.from(golden.ref_rejected_logps),
  chosenLengths: golden.chosen_lengths,
  rejectedLengths: golden.rejected_lengths,
}

/** Both sides are float64: a few roundings relative, and absolutely where torch's own 1 - sigmoid cancels. */
function expectClose(got: ArrayLike<number>, want: ArrayLike<number>, what: string): void {
  expect(got.length, what).toBe(want.length)
  for (let i = 0; i < want.length; i++)
    expect(Math.abs(got[i]! - want[i]!), `${what}[${i}]: ${got[i]} for ${want[i]}`).toBeLessThan(
      1e-12 * Math.abs(want[i]!) + 1e-15,
    )
}

describe('golden preference losses', () => {
  it('cover every loss there is', () => {
    expect(new Set(golden.cases.map((c) => c.loss_type))).toEqual(new Set(preferenceLossNames))
  })

  it.each(golden.cases)('$loss_type beta=$beta equals torch in float64', (c) => {
    const B = c.losses.length
    const result = preferenceLoss(
      {
        lossType: c.loss_type,
        beta: c.beta,
        labelSmoothing: c.label_smoothing,
        ...(c.discopop_tau === null ? {} : { discopopTau: c.discopop_tau }),
      },
      goldenBatch,
    )
    expectClose(result.losses, c.losses, 'losses')
    expectClose([result.loss], [c.loss], 'loss')
    expectClose(
      result.dChosen.map((d) => d / B),
      c.grad_mean_loss_wrt_policy_chosen,
      'dChosen',
    )
    expectClose(
      result.dRejected.map((d) => d / B),
      c.grad_mean_loss_wrt_policy_rejected,
      'dRejected',
    )
    expectClose(result.rewardsChosen, c.rewards_chosen, 'rewards/chosen')
    expectClose(result.rewardsRejected, c.rewards_rejected, 'rewards/rejected')
    expectClose(result.margins, c.margins, 'margins')
    expectClose(result.accuracies, c.accuracies, 'accuracies')
    for (const [name, value] of Object.entries(c.mean))
      expectClose([result.metrics[name]!], [value], name)
  })
})

/** Six pairs with log-ratios of a few nats, away from hinge's corner and from ties. */
function smallBatch(): PreferenceBatch {
  return {
    policyChosen: Float64Array.of(-31.2, -18.4, -55.1, -7.7, -40.3, -22.9),
    policyRejected: Float64Array.of(-29.8, -25.6, -49.4, -9.1, -61.7, -20.2),
    refChosen: Float64Array.of(-33.1, -17.2, -57.7, -8.3, -41.9, -21.1),
    refRejected: Float64Array.of(-27.7, -24.5, -48.1, -7.9, -58.3, -20.9),
    chosenLengths: [12, 9, 20, 3, 17, 8],
    rejectedLengths: [14, 11, 19, 4, 25, 7],
  }
}

function numericGradient(
  config: PreferenceLossConfig,
  side: 'policyChosen' | 'policyRejected',
  i: number,
): number {
  const h = 1e-5
  const at = (offset: number) => {
    const batch = smallBatch()
    batch[side][i]! += offset
    return preferenceLoss(config, batch).losses.reduce((a, b) => a + b, 0)
  }
  return (at(h) - at(-h)) / (2 * h)
}

describe.each(preferenceLossNames)('%s', (lossType) => {
  const settings = [
    { beta: 0.1 },
    { beta: 0.7, labelSmoothing: 0.2 },
    { beta: 0.3, rpoAlpha: 0.5 },
    { beta: 0.3, discopopTau: 0.4 },
  ]
  it.each(settings)('has the derivative that finite differences give: %o', (setting) => {
    const config = { lossType, ...setting }
    const result = preferenceLoss(config, smallBatch())
    for (let i = 0; i < 6; i++) {
      // central differences: error h^2 of the third derivative, plus rounding of the sum over h
      const scale = Math.max(...result.losses) * 1e-9 + 1e-7
      expect(
        Math.abs(result.dChosen[i]! - numericGradient(config, 'policyChosen', i)),
      ).toBeLessThan(scale)
      expect(
        Math.abs(result.dRejected[i]! - numericGradient(config, 'policyRejected', i)),
      ).toBeLessThan(scale)
    }
  })

  it('stays finite with log-ratios of 400 nats either way and beta 5', () => {
    for (const gap of [400, -400]) {
      const batch = smallBatch()
      batch.policyChosen[0]! += gap
      batch.policyRejected[0]! -= gap
      const { losses, dChosen, dRejected } = preferenceLoss({ lossType, beta: 5 }, batch)
      for (const x of [...losses, ...dChosen, ...dRejected]) expect(Number.isFinite(x)).toBe(true)
    }
  })
})

describe('preferenceLoss', () => {
  it('is ln 2 with reward 0 while policy equals reference', () => {
    const batch = smallBatch()
    batch.refChosen = batch.policyChosen
    batch.refRejected = batch.policyRejected
    const result = preferenceLoss({ lossType: 'sigmoid', beta: 0.1 }, batch)
    expect(result.loss).toBeCloseTo(Math.LN2, 15)
    expect(result.metrics['rewards/margins']).toBe(0)
    expect(result.metrics['rewards/accuracies']).toBe(0) // ties are not wins
    for (const d of result.dChosen) expect(d).toBeCloseTo(-0.05, 15)
  })

  it('keeps discopop finite where exp(-x) overflows', () => {
    const batch = smallBatch()
    batch.policyChosen[0]! -= 4000
    const result = preferenceLoss({ lossType: 'discopop', beta: 1 }, batch)
    expect(result.losses[0]).toBeGreaterThan(3000)
    expect(result.dChosen[0]).toBe(-1)
  })

  it('treats label smoothing of sigmoid as conservative DPO', () => {
    const smooth = { beta: 0.1, labelSmoothing: 0.1 }
    const sigmoid = preferenceLoss({ lossType: 'sigmoid', ...smooth }, smallBatch())
    const cdpo = preferenceLoss({ lossType: 'cdpo', ...smooth }, smallBatch())
    const plain = preferenceLoss({ lossType: 'sigmoid', beta: 0.1 }, smallBatch())
    expect(sigmoid.losses).toEqual(cdpo.losses)
    expect(sigmoid.losses).not.toEqual(plain.losses)
  })

  it('adds the mean token NLL of the chosen completions, weighted by rpoAlpha', () => {
    const plain = preferenceLoss({ lossType: 'sigmoid', beta: 0.1 }, smallBatch())
    const rpo = preferenceLoss({ lossType: 'sigmoid', beta: 0.1, rpoAlpha: 2 }, smallBatch())
    const nll = (31.2 + 18.4 + 55.1 + 7.7 + 40.3 + 22.9) / (12 + 9 + 20 + 3 + 17 + 8)
    expect(rpo.metrics.nll_loss).toBeCloseTo(nll, 12)
    expect(rpo.loss - plain.loss).toBeCloseTo(2 * nll, 12)
    expect(rpo.dRejected).toEqual(plain.dRejected)
    expect('nll_loss' in plain.metrics).toBe(false)
  })

  it.each([
    [{ beta: 0 }, 'beta must be above 0, got 0'],
    [{ beta: Number.NaN }, 'beta must be above 0, got NaN'],
    [{ labelSmoothing: 0.5 }, 'labelSmoothing must be in [0, 0.5), got 0.5'],
    [{ discopopTau: 0 }, 'discopopTau must be above 0, got 0'],
  ])('refuses %o', (wrong, message) => {
    expect(() => preferenceLoss({ lossType: 'robust', beta: 0.1, ...wrong }, smallBatch())).toThrow(
      message,
    )
  })

  it('names an array of the wrong length and an empty completion', () => {
    const config = { lossType: 'sigmoid', beta: 0.1 } as const
    expect(() =>
      preferenceLoss(config, { ...smallBatch(), refChosen: new Float64Array(5) }),
    ).toThrow('refChosen must have the 6 entries of policyChosen, got 5')
    expect(() =>
      preferenceLoss(config, { ...smallBatch(), rejectedLengths: [1, 1, 0, 1, 1, 1] }),
    ).toThrow('rejectedLengths[2] must be at least one token, got 0')
  })
})
