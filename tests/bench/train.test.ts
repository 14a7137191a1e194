import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { benchModels } from '../../src/bench/models.js'
import { usefulFlops } from '../../src/bench/train/definitions.js'
import { dpoBatches, sftBatches } from '../../src/bench/train/inputs.js'
import { benchTasks, type TrainBenchOptions } from '../../src/bench/train/options.js'
import { benchTrain } from '../../src/bench/train/tasks.js'
import { writeSafetensors } from '../../src/checkpoint/safetensors.js'
import { openCpu } from '../../src/device/device.js'

const cpu = openCpu()
const model = benchModels.tiny!
const options: TrainBenchOptions = {
  ...{ device: cpu, model, precision: 'fp32', steps: 2, warmup: 1, seed: 0 },
  ...{ seq: 64, microBatch: 2, docs: 'packed', gradCkpt: false },
  ...{ pairs: 2, maxLength: 48, precomputeRef: true, batch: 2, prompt: 5, new: 4 },
}
const folder = mkdtempSync(join(tmpdir(), 'westwind-bench-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** A file of i64 tensors, as the program that westwind is compared with writes it. */
async function dump(name: string, tensors: Record<string, number[]>): Promise<string> {
  const file = join(folder, name)
  const entries = Object.entries(tensors).map(([tensor, values]) => ({
    name: tensor,
    dtype: 'I64' as const,
    shape: [values.length],
    bytes: async () => new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
  }))
  await writeSafetensors(file, entries)
  return file
}

describe('bench train', () => {
  it.each(benchTasks)(
    '%s: rates and memory under the keys of the peer, no memory left',
    async (task) => {
      for (const precision of ['bf16', 'amp', 'fp32'] as const) {
        const result = await benchTrain(task, { ...options, precision })
        expect(result).toMatchObject({ task, precision, steps: 2 })
        const keys = ['tokens_per_s', 's_per_step', 'peak_rss_mb', 'base_rss_mb']
        if (task !== 'generate') keys.push('useful_tflops', 'tokens_per_step', 'last_loss')
        if (task === 'dpo') keys.push('pairs_per_s', 'precompute_s_per_batch')
        if (task === 'generate')
          keys.push('prefill_tokens_per_s', 'ms_per_decode_step', 'weight_GBps')
        for (const key of keys) expect(result[key], key).toBeGreaterThan(0)
        expect(cpu.stats()).toMatchObject({ liveBytes: 0, forgottenTensors: 0 })
      }
    },
  )

  it('dpo without known log-probs of the reference starts at ln 2 too, and counts its forward', async () => {
    const once = { ...options, steps: 1, warmup: 0 }
    const known = await benchTrain('dpo', once)
    const asked = await benchTrain('dpo', { ...once, precomputeRef: false })
    for (const { last_loss } of [known, asked]) expect(last_loss).toBeCloseTo(Math.LN2, 6)
    const flops = (r: typeof known) => Number(r.useful_tflops) * Number(r.s_per_step)
    expect(flops(asked) / flops(known)).toBeCloseTo(4 / 3, 10)
  })

  it('useful FLOPs are those of the formula', () => {
    // tiny: C 64, F 192, 2 layers, 4 heads and 2 KV heads of 16, V 512.
    const perToken = 2 * (64 * (4 + 2 * 2) * 16 + 64 * 64 + 3 * 64 * 192)
    const forward = 2 * perToken * 30 + 2 * 512 * 64 * 28 + 2 * 2 * 4 * 16 * (10 ** 2 + 20 ** 2)
    expect(usefulFlops(model, [10, 20], 28, 3)).toBe(3 * forward)
  })

  it('rows are full or packed, the same for the same seed', async () => {
    const packed = await sftBatches(options)
    expect(packed).toEqual(await sftBatches(options))
    expect(packed).not.toEqual(await sftBatches({ ...options, seed: 1 }))
    for (const documents of packed) {
      const tokens = documents.reduce((sum, { ids }) => sum + ids.length, 0)
      expect(tokens).toBeGreaterThan(0.9 * 128)
      expect(tokens).toBeLessThanOrEqual(128)
    }
    const full = await sftBatches({ ...options, docs: 'full' })
    expect(full.map((documents) => documents.map(({ ids }) => ids.length))).toEqual(
      Array.from({ length: 3 }, () => [64, 64]),
    )
  })

  it('takes the very steps of a dumped file', async () => {
    const steps = { 'step0.input_ids': [5, 6, 7, 8, 9], 'step0.doc_lengths': [2, 3] }
    const batches = await dump('sft.safetensors', steps)
    const one = { ...options, steps: 1, warmup: 0, batches }
    expect((await sftBatches(one))[0]!.map(({ ids }) => [...ids])).toEqual([
      [5, 6],
      [7, 8, 9],
    ])
    await expect(sftBatches({ ...one, steps: 2 })).rejects.toThrow('has 1 steps')
    await expect(dpoBatches(one)).rejects.toThrow('no step0.chosen_ids')
    const pairs = await dump('dpo.safetensors', {
      'step0.prompt_lengths': [1, 2],
      ...{ 'step0.chosen_ids': [5, 6, 7, 8, 9], 'step0.chosen_lengths': [2, 3] },
      ...{ 'step0.rejected_ids': [5, 9, 9, 7, 8, 3], 'step0.rejected_lengths': [3, 3] },
    })
    const [batch] = await dpoBatches({ ...one, batches: pairs })
    expect(
      batch!.map((pair) => [pair.promptIds, pair.chosenIds, pair.rejectedIds].map((x) => [...x])),
    ).toEqual([
      [[5], [6], [9, 9]],
      [[7, 8], [9], [3]],
    ])
    const short = await dump('short.safetensors', { ...steps, 'step0.doc_lengths': [2, 2] })
    await expect(sftBatches({ ...one, batches: short })).rejects.toThrow('lengths sum to 4')
  })

  it('takes pairs of token ids, cut to the longest sequence', async () => {
    const data = join(folder, 'pairs.jsonl')
    const row = { prompt_ids: [5, 6], chosen_ids: [7, 8, 9], rejected_ids: [9] }
    writeFileSync(data, `${JSON.stringify(row)}\n`)
    const [batch] = await dpoBatches({ ...options, data, maxLength: 4 })
    expect([...batch![0]!.chosenIds]).toEqual([7, 8])
    writeFileSync(data, `${JSON.stringify({ ...row, rejected_ids: [512] })}\n`)
    await expect(dpoBatches({ ...options, data })).rejects.toThrow('row 1: rejected_ids')
  })
})
