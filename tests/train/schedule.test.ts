import { describe, expect, it } from 'vitest'
import { lrAt, planSteps, type ScheduleName, warmupLength } from '../../src/train/schedule.js'

const rates = (type: ScheduleName, warmupSteps: number, totalSteps: number) =>
  Array.from({ length: totalSteps }, (_, s) =>
    lrAt({ type, learningRate: 1, warmupSteps, totalSteps }, s),
  )

describe('lrAt', () => {
  it('cosine: equals the 20 rates that transformers logged with peak 5e-4 and warm-up 0.1', () => {
    const schedule = {
      type: 'cosine',
      learningRate: 5e-4,
      warmupSteps: warmupLength(20, { warmupRatio: 0.1 }),
      totalSteps: 20,
    } as const
    const logged = [
      0.0, 0.00025, 0.0005, 0.000496201938253052, 0.0004849231551964771, 0.00046650635094610973,
      0.0004415111107797445, 0.0004106969024216348, 0.000375, 0.0003355050358314172,
      0.00029341204441673266, 0.00025, 0.00020658795558326743, 0.00016449496416858284,
      0.00012500000000000006, 8.930309757836516e-5, 5.848888922025553e-5, 3.3493649053890325e-5,
      1.5076844803522921e-5, 3.798061746947995e-6,
    ]
    for (const [s, lr] of logged.entries()) expect(lrAt(schedule, s)).toBeCloseTo(lr, 16)
  })

  it('linear: rises to the peak, falls to 0 at the end', () => {
    expect(rates('linear', 2, 6)).toEqual([0, 0.5, 1, 0.75, 0.5, 0.25])
    expect(rates('linear', 0, 4)).toEqual([1, 0.75, 0.5, 0.25])
    expect(lrAt({ type: 'linear', learningRate: 1, warmupSteps: 2, totalSteps: 6 }, 9)).toBe(0)
  })

  it('constant ignores warm-up; constant_with_warmup does not', () => {
    expect(rates('constant', 2, 4)).toEqual([1, 1, 1, 1])
    expect(rates('constant_with_warmup', 2, 4)).toEqual([0, 0.5, 1, 1])
  })

  it('survives a warm-up as long as the run', () => {
    for (const type of ['linear', 'cosine'] as const)
      expect(rates(type, 4, 4)).toEqual([0, 0.25, 0.5, 0.75])
  })
})

describe('warmupLength', () => {
  it('rounds the ratio up; given steps win; a fraction of a step is a ratio', () => {
    expect(warmupLength(478, { warmupRatio: 0.1 })).toBe(48)
    expect(warmupLength(478, { warmupRatio: 0.1, warmupSteps: 10 })).toBe(10)
    expect(warmupLength(478, { warmupSteps: 0.1 })).toBe(48)
    expect(warmupLength(478, {})).toBe(0)
  })

  it('refuses a ratio above 1', () => {
    expect(() => warmupLength(10, { warmupRatio: 10 })).toThrow(
      'warmup_ratio must be in [0, 1], got 10',
    )
  })
})

describe('planSteps', () => {
  it('counts the short last window of an epoch as a step', () => {
    const plan = planSteps({ microBatchesPerEpoch: 7, accumulation: 2, epochs: 3 })
    expect(plan).toEqual({ stepsPerEpoch: 4, totalSteps: 12, epochs: 3 })
  })

  it('plans the handbook DPO run: 61135 pairs, 8 GPUs, batch 8, accumulation 2', () => {
    const microBatchesPerEpoch = Math.ceil(61135 / 64)
    expect(planSteps({ microBatchesPerEpoch, accumulation: 2, epochs: 1 }).totalSteps).toBe(478)
  })

  it('stops at max_steps, beginning as many epochs as that needs', () => {
    const plan = planSteps({ microBatchesPerEpoch: 6, accumulation: 2, epochs: 1, maxSteps: 10 })
    expect(plan).toEqual({ stepsPerEpoch: 3, totalSteps: 10, epochs: 4 })
  })

  it('rounds a fraction of an epoch up', () => {
    const plan = planSteps({ microBatchesPerEpoch: 10, accumulation: 4, epochs: 0.5 })
    expect(plan).toEqual({ stepsPerEpoch: 3, totalSteps: 2, epochs: 1 })
  })

  it('says why there is no step', () => {
    expect(() => planSteps({ microBatchesPerEpoch: 0, accumulation: 1, epochs: 1 })).toThrow(
      'no training micro-batch',
    )
    expect(() => planSteps({ microBatchesPerEpoch: 4, accumulation: 1, epochs: 0 })).toThrow(
      'num_train_epochs=0 and max_steps=-1 give no step',
    )
  })
})
