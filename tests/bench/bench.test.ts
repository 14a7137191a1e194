import { describe, expect, it } from 'vitest'
import { attentionCases, gemmCases, linearLogpsCases } from '../../src/bench/cases.js'
import { measure, quantile } from '../../src/bench/harness.js'
import { benchModels } from '../../src/bench/models.js'
import { benchSft } from '../../src/bench/sft.js'
import { openCpu } from '../../src/device/device.js'

const cpu = openCpu()
const tiny = benchModels.tiny!
const options = { device: cpu, dtype: 'f32', repetitions: 2, peakFlops: 1e11 }

describe('bench', () => {
  it.each([
    { name: 'gemm', make: gemmCases, count: 12 },
    { name: 'attention', make: attentionCases, count: 2 },
    { name: 'linear_logps', make: linearLogpsCases, count: 2 },
  ])(
    '$name: each case is checked against float64 and timed, and leaves no memory behind',
    async ({ make, count }) => {
      for (const dtype of ['f32', 'bf16'] as const) {
        const { cases, dispose } = make(tiny, 70, cpu, dtype)
        const results = await measure(cases, { ...options, dtype })
        dispose()
        expect(results).toHaveLength(count)
        for (const { ms, ms20, ms80, gflops, error } of results) {
          expect(ms).toBeGreaterThan(0)
          expect(ms20).toBeLessThanOrEqual(ms80)
          expect(gflops).toBeGreaterThan(0)
          expect(error).toBeLessThan(2e-2)
        }
      }
      expect(cpu.stats()).toMatchObject({ liveBytes: 0, forgottenTensors: 0 })
    },
  )

  it('a wrong result is not timed', async () => {
    const { cases, dispose } = gemmCases(tiny, 16, cpu, 'f32')
    let runs = 0
    const wrong = { ...cases[0]!, error: async () => 0.5, run: () => void runs++ }
    await expect(measure([wrong], options)).rejects.toThrow(
      /gemm qkv forward .* is wrong: relative error 5.0e-1/,
    )
    expect(runs).toBe(0)
    dispose()
  })

  it('whole steps: finite loss, speed and memory under the keys of the peer', async () => {
    const result = await benchSft(tiny, { device: cpu, dtype: 'f32', steps: 2, warmup: 1 })
    expect(result.loss).toBeGreaterThan(0)
    for (const key of ['s_per_step', 'tokens_per_s', 'useful_tflops', 'peak_rss_mb'] as const) {
      expect(result[key]).toBeGreaterThan(0)
    }
    expect(cpu.stats()).toMatchObject({ liveBytes: 0, forgottenTensors: 0 })
  })

  it('quantiles are values that were measured', () => {
    expect([0.2, 0.5, 0.8].map((q) => quantile([5, 1, 3], q))).toEqual([1, 3, 5])
  })
})
