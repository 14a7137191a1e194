import { describe, expect, it } from 'vitest'
import {
  type Counts,
  countsOf,
  extrapolate,
  gpus,
  occupancy,
  parsePtxas,
  place,
  predict,
  predictCase,
  quantisation,
  solve,
  sum,
  wgmmaBytesPerFlop,
} from '../../scripts/kernel-report/model.mjs'

const [a100, h100] = [gpus[80], gpus[90]]
const none: Counts = {
  ...{ flops: 0, wgmma: 0, warps: 0, fp32: 0, int: 0, sfu: 0, fp64: 0, sectors: 0 },
  ...{ leastSectors: 0, requests: 0, extra: 0, arriving: 0, blocks: 1 },
}

describe('what ptxas says', () => {
  const text = `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'plain' for 'sm_80'
ptxas info    : Function properties for plain
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 38 registers, used 1 barriers, 8192 bytes smem, 464 bytes cmem[0]
ptxas info    : Compile time = 19.253 ms
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to insufficient register resources for the wgmma pipeline in function 'spills'
ptxas info    : Compiling entry function 'spills' for 'sm_90a'
ptxas info    : Function properties for spills
    48 bytes stack frame, 64 bytes spill stores, 88 bytes spill loads
ptxas info    : Used 255 registers, used 16 barriers
`
  it('is read kernel by kernel: registers, static shared memory, spills, serialised wgmma', () => {
    expect(parsePtxas(text)).toEqual([
      {
        ...{ kernel: 'plain', arch: 'sm_80', registers: 38, shared: 8192 },
        ...{ stack: 0, stores: 0, loads: 0, serialised: false },
      },
      {
        ...{ kernel: 'spills', arch: 'sm_90a', registers: 255, shared: 0 },
        ...{ stack: 48, stores: 64, loads: 88, serialised: true },
      },
    ])
  })
})

describe('occupancy', () => {
  it.each([
    // 65536 registers are 64 warps of 32.
    ['sm_80', a100, { threads: 256, registers: 32, shared: 0 }, 8, ['registers', 'threads']],
    // 33 registers are given as 40: 12 warps a file, 48 in all.
    ['sm_80', a100, { threads: 256, registers: 33, shared: 0 }, 6, ['registers']],
    ['sm_80', a100, { threads: 128, registers: 255, shared: 0 }, 2, ['registers']],
    // 164 KiB hold two blocks of 81, with 1 KiB each of their own, but not of 82.
    ['sm_80', a100, { threads: 128, registers: 32, shared: 81 << 10 }, 2, ['shared memory']],
    ['sm_80', a100, { threads: 128, registers: 32, shared: 82 << 10 }, 1, ['shared memory']],
    ['sm_90', h100, { threads: 128, registers: 32, shared: 113 << 10 }, 2, ['shared memory']],
    ['sm_90', h100, { threads: 1024, registers: 16, shared: 0 }, 2, ['threads']],
    ['sm_90', h100, { threads: 32, registers: 16, shared: 0 }, 32, ['blocks']],
    ['sm_90', h100, { threads: 384, registers: 168, shared: 0 }, 1, ['registers']],
    ['sm_80', a100, { threads: 1024, registers: 128, shared: 0 }, 0, ['registers']],
  ])('%s: %3$j', (_, gpu, block, blocks, limit) => {
    expect(occupancy(gpu, block)).toEqual({ blocks, limit })
  })
})

describe('counts of a large shape', () => {
  it('are a sum of features whose factors the small ones give', () => {
    expect(
      solve(
        [
          [0, 2],
          [4, 1],
        ],
        [6, 11],
      ),
    ).toEqual([2, 3])
    const count = (tiles: number, k: number) => ({ warps: 100 * tiles + 7 * tiles * k })
    const samples = [256, 512].map((k) => ({ features: [64, 64 * k], counts: count(64, k) }))
    const { warps } = extrapolate(samples, [1024, 1024 * 8192])
    expect(warps).toBeCloseTo(count(1024, 8192).warps, 3)
  })

  it('need runs that differ', () => {
    expect(() =>
      solve(
        [
          [1, 2],
          [2, 4],
        ],
        [1, 2],
      ),
    ).toThrow('do not tell the features apart')
  })

  it('are added launch by launch', () => {
    expect(
      sum([
        { warps: 1, flops: 2 },
        { warps: 3, flops: 4 },
      ]),
    ).toEqual({ warps: 4, flops: 6 })
  })

  it('come from a line of statistics; asynchronous copies fill shared memory', () => {
    const launch = {
      ...{ grid: [3, 2, 1], mma_flops: 5, wgmma_flops: 7, warp_instructions: 11 },
      thread_instructions: { fp32: 1, int: 2, sfu: 3, fp64: 4, async_copy: 1 },
      ...{ global_bytes: 640, global_sectors: 20, global_sectors_min: 19 },
      ...{ shared_requests: 9, shared_extra_wavefronts: 8 },
    }
    expect(countsOf(launch)).toMatchObject({ flops: 12, wgmma: 7, arriving: 640, blocks: 6 })
    launch.thread_instructions.async_copy = 0
    expect(countsOf(launch)).toMatchObject({ arriving: 0 })
  })
})

describe('wgmma', () => {
  const line = (n: number, a: string) =>
    `wgmma.mma_async.sync.aligned.m64n${n}k16.f32.bf16.bf16 {%f1, %f2}, ${a}, %rd2, p, 1, 1, 0, 0;`
  it('reads B, and A where it is no register', () => {
    expect(wgmmaBytesPerFlop(line(256, '%rd1'))).toBe((32 * (256 + 64)) / (2 * 64 * 256 * 16))
    expect(wgmmaBytesPerFlop(line(128, '{%r1, %r2, %r3, %r4}'))).toBe(32 / (2 * 64 * 16))
    const both = `${line(64, '%rd1')}\n${line(64, '{%r1, %r2, %r3, %r4}')}`
    expect(wgmmaBytesPerFlop(both)).toBe((32 * (128 + 64)) / (2 * 2 * 64 * 64 * 16))
    expect(wgmmaBytesPerFlop('add.s32 %r1, %r2, %r3;')).toBe(0)
  })
})

describe('the time', () => {
  it('is that of the busiest unit', () => {
    const flops = { ...none, flops: 312e12 }
    const tensor = predict(a100, flops, { bytes: 2.039e12 / 2, work: 108 })
    expect(tensor.seconds).toBeCloseTo(1, 2)
    expect(tensor.units).toMatchObject({ HBM: 0.5 })
    const memory = predict(a100, flops, { bytes: 2.039e12 * 2, work: 108 })
    expect(memory.seconds).toBe(2)
  })

  it('counts four wavefronts a request, those of conflicts, and what arrives and is read by wgmma', () => {
    const second = h100.sms * h100.clock
    const shared = (counts: Counts, more = {}) =>
      predict(h100, { ...none, ...counts }, { bytes: 0, work: 132, ...more }).units['shared memory']
    expect(shared({ requests: second / 4 })).toBeCloseTo(1)
    expect(shared({ extra: second })).toBeCloseTo(1)
    expect(shared({ arriving: second * 64 }, { spread: 2 })).toBeCloseTo(1)
    expect(shared({ wgmma: second * 1024 }, { wgmmaBytes: 1 / 16 })).toBeCloseTo(0.5)
  })

  it('grows with waves that are not full', () => {
    expect(quantisation(108, 108)).toBe(1)
    expect(quantisation(109, 108)).toBeCloseTo(216 / 109)
    expect(quantisation([4, 2, 2], 2)).toBe(1)
    expect(quantisation([3, 3, 3], 2)).toBeCloseTo(12 / 9)
    const counts = { ...none, flops: 1e12 }
    const { seconds } = predict(a100, counts, { bytes: 0, work: 54 })
    expect(seconds).toBeCloseTo(2 * predict(a100, counts, { bytes: 0, work: 108 }).seconds)
  })
})

describe('a case', () => {
  it('is its kernels one after the other, each with the bytes of the first name that fits', () => {
    const counts: Counts = { ...none, blocks: 108, launches: 1 }
    const part = {
      ...{ samples: [{ T: 1 }], real: { T: 4 }, times: 3 },
      features: (_: string, s: object) => [(s as { T: number }).T],
      bytes: [
        ['sums_second', 2.039e9],
        ['sums', 3 * 2.039e9],
      ] as [string, number][],
    }
    const samples = [
      new Map<string, Counts>([
        ['sums', { ...counts, warps: 5 }],
        ['sums_second', counts],
      ]),
    ]
    const got = predictCase(a100, [{ part, samples }], () => 0)
    expect(got.seconds).toBeCloseTo(3 * (3e-3 + 1e-3))
    expect(got.bytes).toBe(3 * 4 * 2.039e9)
    expect(got.counts).toMatchObject({ warps: 3 * 4 * 5 })
    expect(got.busy[0]).toEqual(['HBM', expect.closeTo(1)])
  })
})

describe('a page', () => {
  it('gets the report before its last section, and a new one in the same place', () => {
    const page = '# op\n\ntext\n\n## Where\n\nfiles\n'
    const first = place(page, 'one')
    expect(first).toBe(
      '# op\n\ntext\n\n<!-- kernel-report -->\none\n<!-- end -->\n\n## Where\n\nfiles\n',
    )
    expect(place(first, 'two $1')).toBe(first.replace('one', 'two $1'))
  })
})
