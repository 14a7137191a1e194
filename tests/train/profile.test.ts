import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseRecipe } from '../../src/recipe/recipe.js'
import { sft } from '../../src/train/sft.js'
import { fixturePath } from '../support/fixtures.js'

let root: string
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'westwind-profile-'))
  process.env.WESTWIND_CACHE = join(root, 'cache')
})
afterAll(() => rm(root, { recursive: true, force: true }))

interface Event {
  name: string
  ph: string
  tid: number
  ts: number
  dur: number
  id: number
}

async function run(name: string, max_steps: number, profile?: string) {
  const notes: string[] = []
  const stream = { write: (text: string) => notes.push(text), on: () => undefined }
  const recipe = parseRecipe('sft', {
    model_name_or_path: fixturePath('golden/models/h64d32_win16_tied/f32'),
    tokenizer_name_or_path: fixturePath('golden/tiny_tokenizer'),
    dataset_name: fixturePath('golden/trl_sft/packing_bfd.dataset.jsonl'),
    ...{ bf16: false, dtype: 'float32', max_steps, max_length: 128, save_strategy: 'no' },
    ...{ per_device_train_batch_size: 2, report_to: 'none', output_dir: join(root, name) },
  })
  const result = await sft(recipe, { device: 'cpu', stream, ...(profile && { profile }) })
  const weights = await readFile(join(result.outputDir, 'model.safetensors'))
  return { notes: notes.join(''), weights }
}

async function eventsOf(file: string): Promise<{ events: Event[]; javascript: number }> {
  const trace = JSON.parse(await readFile(file, 'utf8'))
  return { events: trace.traceEvents, javascript: trace.otherData.javascript }
}

describe('a profile of training steps', () => {
  it('has every op of steps 2 to 4: enqueued, then done, one after the other', async () => {
    const file = join(root, 'trace.json')
    const { notes, weights } = await run('profiled', 6, file)
    const { events, javascript } = await eventsOf(file)
    const steps = events.filter(({ ph, tid }) => ph === 'X' && tid === 3)
    expect(steps.map(({ name }) => name)).toEqual(['step 2', 'step 3', 'step 4'])
    const ops = events.filter(({ ph, tid }) => ph === 'X' && tid === 2)
    const names = new Set(ops.map(({ name }) => name))
    for (const name of ['gemm', 'attention_backward', 'linear_logps', 'adamw']) {
      expect(
        [...names].some((one) => one.startsWith(name)),
        name,
      ).toBe(true)
    }
    const ofEachStep = steps.map(({ ts, dur }) => {
      return ops.filter((op) => op.ts >= ts && op.ts < ts + dur && op.name === 'adamw').length
    })
    expect(ofEachStep).toEqual([1, 1, 1])
    for (const [i, { ts, dur }] of ops.entries()) {
      expect(dur).toBeGreaterThanOrEqual(0)
      if (i > 0) expect(ts).toBeGreaterThanOrEqual(ops[i - 1]!.ts + ops[i - 1]!.dur)
    }
    const enqueued = new Map(events.filter(({ ph }) => ph === 's').map(({ id, ts }) => [id, ts]))
    for (const { ph, id, ts } of events) {
      if (ph === 'f') expect(enqueued.get(id)).toBeLessThanOrEqual(ts)
    }
    expect(javascript).toBeGreaterThan(0)
    expect(javascript).toBeLessThan(1)
    expect(notes).toMatch(/profile: 3 steps in .* device busy .* JavaScript .* gemm/)
    expect(weights.equals((await run('plain', 6)).weights)).toBe(true)
  })

  it('has the steps there were where a run ends before', async () => {
    const file = join(root, 'short.json')
    await run('short', 2, file)
    const { events } = await eventsOf(file)
    const steps = events.filter(({ ph, tid }) => ph === 'X' && tid === 3)
    expect(steps.map(({ name }) => name)).toEqual(['step 2'])
    await run('one', 1, join(root, 'none.json'))
    await expect(readFile(join(root, 'none.json'))).rejects.toThrow('ENOENT')
  })
})
