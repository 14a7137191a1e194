import { describe, expect, it, vi } from 'vitest'
import { attentionCases } from '../../src/bench/attention.js'
import { gemmCases } from '../../src/bench/gemm.js'
import { measure, quantile } from '../../src/bench/harness.js'
import { linearLogpsCases } from '../../src/bench/linear-logps.js'
import { benchModels } from '../../src/bench/models.js'
import { benchSft } from '../../src/bench/sft.js'
import { openCpu } from '../../src/device/device.js'
import { isolated, scope } from '../../src/tensor/scope.js'
import { Tensor } from '../../src/tensor/tensor.js'

const cpu = openCpu()
const tiny = benchModels.tiny!
const options = { device: cpu, dtype: 'f32', repetitions: 2, peakFlops: 1e11 }

describe('bench', () => {
  it.each([
    { name: 'gemm', make: gemmCases, count: 12 },
    { name: 'attention', make: attentionCases, count: 4 },
    { name: 'linear_logps', make: linearLogpsCases, count: 3 },
  ])(
    '$name: each case is checked against float64 and timed, and leaves no memory behind',
    async ({ make, count }) => {
      for (const dtype of ['f32', 'bf16'] as const) {
        const results = await isolated(async () => {
          using _ = scope()
          return await measure(make(tiny, 70, cpu, dtype), { ...options, dtype })
        })
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

  it.each([
    { name: 'gemm qkv wgrad', make: gemmCases, at: 2 },
    { name: 'attention backward', make: attentionCases, at: 1 },
    { name: 'linear_logps one pass', make: linearLogpsCases, at: 2 },
  ])('$name: a wrong result is found and not timed', async ({ name, make, at }) => {
    using _ = scope()
    const right = make(tiny, 70, cpu, 'f32')[at]!
    let runs = 0
    const wrong = { ...right, run: () => void runs++ }
    const truth = Tensor.prototype.read
    vi.spyOn(Tensor.prototype, 'read').mockImplementation(async function (this: Tensor) {
      const values = await truth.call(this)
      values[values.length - 1]! += 1
      return values
    })
    await expect(measure([wrong], options)).rejects.toThrow(`bench: ${name}`)
    vi.restoreAllMocks()
    expect(runs).toBe(0)
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
