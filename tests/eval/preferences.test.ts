import { afterAll, describe, expect, it } from 'vitest'
import { openCpu } from '../../src/device/device.js'
import { logprobs } from '../../src/eval/logprobs.js'
import { evaluatePreferences } from '../../src/eval/preferences.js'
import { estimate } from '../../src/eval/statistics.js'
import { parseModelConfig } from '../../src/model/config.js'
import { createModel } from '../../src/model/model.js'
import { allLogits, randomModel } from '../support/small-models.js'

const cpu = openCpu()
const policy = randomModel(cpu, { window: 7 })
const { config, tokenizer } = policy
const reference = createModel(config, { seed: 6, dtype: 'f32', device: cpu, tokenizer: tokenizer! })
afterAll(() => {
  policy.dispose()
  reference.dispose()
})

const rows = ['red', 'green', 'a longer one'].map((colour, i) => ({
  prompt: `Which colour ${i}?`,
  chosen: ` It is ${colour}.`,
  rejected: ` No ${colour}`,
  id: `pair-${i}`,
}))

describe('evaluatePreferences', () => {
  it('of a model against itself: no reward, no margin, loss ln 2, KL 0', async () => {
    const { metrics } = await evaluatePreferences(policy, policy, rows, { klSamples: 2 })
    const zero = { value: 0, stderr: 0 }
    expect(metrics).toMatchObject({
      'rewards/accuracies': zero,
      'rewards/margins': zero,
      'rewards/chosen': zero,
      loss: { value: expect.closeTo(Math.LN2, 14) },
      'objective/kl': zero,
      kl: 0,
    })
  })

  it('rewards are beta times the difference of the log-probs of both models', async () => {
    const own: number[][] = []
    for (const model of [policy, reference]) {
      for await (const row of logprobs(model, rows)) {
        if ('chosen' in row) own.push([row.chosen.sum, row.rejected.sum])
      }
    }
    const { metrics, samples } = await evaluatePreferences(policy, reference, rows, {
      beta: 0.5,
      klSamples: 0,
    })
    expect(samples.map(({ id }) => id)).toEqual(['pair-0', 'pair-1', 'pair-2'])
    for (const [i, sample] of samples.entries()) {
      expect(sample.logps).toEqual({ chosen: own[i]![0], rejected: own[i]![1] })
      expect(sample.ref_logps).toEqual({ chosen: own[i + 3]![0], rejected: own[i + 3]![1] })
      expect(sample.rewards!.chosen).toBe(0.5 * (own[i]![0]! - own[i + 3]![0]!))
    }
    const margins = samples.map(({ rewards }) => rewards!.chosen - rewards!.rejected)
    const above = margins.filter((margin) => margin > 0).length / 3
    expect(metrics).toMatchObject({
      'rewards/accuracies': { value: above },
      'rewards/margins': { value: expect.closeTo(margins.reduce((a, b) => a + b) / 3, 12) },
    })
    expect(metrics).not.toHaveProperty('kl')
  })

  it('the KL estimates come near the exact divergence of the next token', async () => {
    const ids = [1, 40, 41, 42]
    const n = 400
    const same = Array.from({ length: n }, () => {
      return { prompt_ids: ids, chosen_ids: [5], rejected_ids: [6] }
    })
    const options = { klSamples: n, maxNewTokens: 1, seed: 3 }
    const { metrics, samples } = await evaluatePreferences(policy, reference, same, options)
    const [p, q] = [await nextLogps(policy, ids), await nextLogps(reference, ids)]
    const exact = p!.reduce((sum, x, i) => sum + Math.exp(x) * (x - q![i]!), 0)
    const k1 = samples.map(({ sample }) => sample!.log_ratio)
    const { value, stderr } = estimate(k1)
    expect(metrics['objective/kl']).toEqual({ value, stderr })
    expect(Math.abs(value - exact)).toBeLessThan(4 * stderr!)
    const k3 = k1.map((x) => Math.exp(-x) - 1 + x)
    const low = estimate(k3)
    expect(metrics.kl).toBeCloseTo(low.value, 10)
    expect(Math.abs(low.value - exact)).toBeLessThan(4 * low.stderr!)
    expect(new Set(k1).size).toBeGreaterThan(3) // the answers differ
  })

  it('drops, cuts and counts as training does', async () => {
    const long = { prompt: 'x '.repeat(200), chosen: 'a', rejected: 'b' }
    const cut = { prompt: 'x', chosen: 'a '.repeat(200), rejected: 'b' }
    const { samples } = await evaluatePreferences(policy, reference, [long, cut, rows[0]!], {
      klSamples: 1,
      maxNewTokens: 3,
    })
    expect(samples[0]).toEqual({ id: '0', dropped: 'prompt >= max_length' })
    expect(samples[1]).toMatchObject({ truncated: true, sample: { tokens: expect.any(Number) } })
    expect(samples[2]).not.toHaveProperty('sample')
    await expect(evaluatePreferences(policy, reference, [long])).rejects.toThrow(
      'preferences: no rows with a pair to score',
    )
  })

  it('models of different vocabularies are refused', async () => {
    const other = parseModelConfig({ ...config.raw, vocab_size: 321 }, 'config')
    using larger = createModel(other, { seed: 1, dtype: 'f32', device: cpu })
    await expect(evaluatePreferences(policy, larger, rows)).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG',
      message: expect.stringContaining('320 and 321 tokens'),
    })
  })
})

/** Log-probs of what follows, over the vocabulary. */
async function nextLogps(model: typeof policy, ids: number[]): Promise<number[]> {
  const at = Array.from(await allLogits(model, ids)).slice(-config.vocabSize)
  const lse = Math.log(at.reduce((sum, x) => sum + Math.exp(x), 0))
  return at.map((x) => x - lse)
}
