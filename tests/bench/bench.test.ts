import { describe, expect, it, vi } from 'vitest'
import { adamwCases } from '../../src/bench/adamw.js'
import { attentionCases } from '../../src/bench/attention.js'
import { copyCases } from '../../src/bench/copy.js'
import { gemmCases } from '../../src/bench/gemm.js'
import { type BenchCase, measure, ofRoofline, quantile } from '../../src/bench/harness.js'
import { linearLogpsCases } from '../../src/bench/linear-logps.js'
import { benchModels } from '../../src/bench/models.js'
import { csvHeader, csvLines } from '../../src/bench/report.js'
import { rmsNormCases } from '../../src/bench/rms-norm.js'
import { openCpu } from '../../src/device/device.js'
import { isolated, scope } from '../../src/tensor/scope.js'
import { Tensor } from '../../src/tensor/tensor.js'

const cpu = openCpu()
const tiny = benchModels.tiny!
const options = { device: cpu, dtype: 'f32', repetitions: 2, peaks: { flops: 1e11 } }

describe('bench', () => {
  it.each([
    { name: 'gemm', make: gemmCases, count: 12 },
    { name: 'attention', make: attentionCases, count: 4 },
    { name: 'linear_logps', make: linearLogpsCases, count: 3 },
    { name: 'rms_norm', make: rmsNormCases, count: 4 },
    { name: 'adamw', make: adamwCases, count: 1 },
    { name: 'copy', make: copyCases, count: 1 },
  ])(
    '$name: each case is checked against float64 and timed, and leaves no memory behind',
    async ({ name, make, count }) => {
      for (const dtype of ['f32', 'bf16'] as const) {
        const results = await isolated(async () => {
          using _ = scope()
          return await measure(make(tiny, 70, cpu, dtype), { ...options, dtype })
        })
        expect(results).toHaveLength(count)
        for (const { kernel, ms, ms20, ms80, gflops, gbs, ofPeak, error } of results) {
          expect(kernel).toBe(name)
          expect(ms).toBeGreaterThan(0)
          expect(ms20).toBeLessThanOrEqual(ms80)
          expect(gbs).toBeGreaterThan(0)
          // What memory limits counts no FLOPs, and its peak is not known here.
          const counts = ['gemm', 'attention', 'linear_logps'].includes(name)
          expect([gflops > 0, ofPeak !== null]).toEqual([counts, counts])
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
    { name: 'rms_norm forward residual', make: rmsNormCases, at: 1 },
    { name: 'rms_norm backward', make: rmsNormCases, at: 2 },
    { name: 'adamw forward', make: adamwCases, at: 0 },
    { name: 'copy', make: copyCases, at: 0 },
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

  it('a wrong result of another provider is told, left out and not timed', async () => {
    using _ = scope()
    const [right] = copyCases(tiny, 3, cpu, 'f32')
    let runs = 0
    const wrong: BenchCase = {
      ...{ ...right!, provider: 'other', mode: 'b', run: () => void runs++ },
      error: () => Promise.resolve(Number.NaN),
    }
    const remarks: string[] = []
    const remark = (text: string) => void remarks.push(text)
    const results = await measure([right!, wrong], { ...options, remark })
    expect(results.map(({ provider }) => provider)).toEqual(['westwind'])
    expect(remarks).toEqual([
      'other is left out: bench: copy b N=576 is wrong: relative error NaN, at most 0 is right',
    ])
    expect(runs).toBe(0)
  })

  it('runs take turns through the copies of the inputs', async () => {
    using _ = scope()
    const turns: number[] = []
    const [right] = copyCases(tiny, 3, cpu, 'f32')
    await measure([{ ...right!, run: (turn) => void turns.push(turn) }], options)
    expect(turns).toEqual([0, 1, 2])
  })

  it('the roofline: the peak that bounds first counts, and one that is not known does not', () => {
    const peaks = { flops: 1e12, memory: 1e9 }
    expect(ofRoofline({ flops: 1e9, bytes: 0 }, 2, peaks)).toBe(0.5)
    expect(ofRoofline({ flops: 1e9, bytes: 4e6 }, 8, peaks)).toBe(0.5) // 250 FLOPs a byte: 0.25 TFLOP/s
    expect(ofRoofline({ flops: 0, bytes: 1e6 }, 4, peaks)).toBe(0.25)
    expect(ofRoofline({ flops: 1e9, bytes: 4e6 }, 4, { flops: 1e12 })).toBe(0.25)
    expect(ofRoofline({ flops: 0, bytes: 1e6 }, 4, { flops: 1e12 })).toBeNull()
  })

  it("CSV has Liger's columns; percentiles are of the value they stand beside", () => {
    expect(csvHeader).toBe(
      'kernel_name,kernel_provider,kernel_operation_mode,metric_name,metric_unit,x_name,x_label,' +
        'x_value,y_value_50,y_value_20,y_value_80,extra_benchmark_config_str,gpu_name,timestamp,version',
    )
    const x = { name: 'T', label: 'tokens', value: 64 }
    const about = {
      kernel: 'gemm',
      provider: 'westwind',
      mode: 'qkv dgrad',
      shape: 'M=64 N=32 K=8',
    }
    const speed = { ms: 4, ms20: 2, ms80: 8, gflops: 2000, gbs: 8, ofPeak: 0.5 }
    const result = { ...about, x, dtype: 'bf16', error: 0.001, ...speed }
    const machine = { device: 'cuda:0', processor: 'A, B', driver: 'CUDA 12.4' }
    const when = { westwind: '0.1.0+abc', date: '2026-01-02T03:04:05' }
    const config =
      '"{""model"":""tiny"",""dtype"":""bf16"",""shape"":""M=64 N=32 K=8"",""error"":0.001,""driver"":""CUDA 12.4""}"'
    const tail = `${config},"A, B",2026-01-02 03:04:05,0.1.0+abc`
    const head = 'gemm,westwind,qkv dgrad'
    expect(csvLines(result, 'tiny', { ...machine, ...when })).toEqual([
      `${head},speed,ms,T,tokens,64,4,2,8,${tail}`,
      `${head},throughput,TFLOP/s,T,tokens,64,2,1,4,${tail}`,
      `${head},bandwidth,GB/s,T,tokens,64,8,4,16,${tail}`,
      `${head},roofline,%,T,tokens,64,50,25,100,${tail}`,
    ])
    const copy = { ...result, gflops: 0, ofPeak: null }
    expect(csvLines(copy, 'tiny', { ...machine, ...when })).toHaveLength(2)
  })

  it('quantiles are values that were measured', () => {
    expect([0.2, 0.5, 0.8].map((q) => quantile([5, 1, 3], q))).toEqual([1, 3, 5])
  })
})
