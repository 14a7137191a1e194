import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openSafetensors, readTensor } from '../../src/checkpoint/safetensors.js'
import { cudaDevices, device, openCpu, openCuda } from '../../src/device/device.js'
import { generate } from '../../src/model/generate.js'
import { parseRecipe } from '../../src/recipe/recipe.js'
import { dpo } from '../../src/train/dpo.js'
import { sft } from '../../src/train/sft.js'
import { fixturePath } from '../support/fixtures.js'
import { integers } from '../support/random.js'
import { randomModel } from '../support/small-models.js'

let root: string
let made = 0

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'westwind-cuda-'))
  process.env.WESTWIND_CACHE = join(root, 'cache')
})

afterAll(async () => {
  await rm(root, { recursive: true, force: true })
})

type Kind = 'sft' | 'dpo'
type DType = 'float32' | 'bfloat16'

/** Five steps of a golden model on golden data; the folder it left. */
async function run(kind: Kind, dtype: DType, on: string, keys: Record<string, unknown> = {}) {
  const output_dir = join(root, `run-${made++}`)
  const data = kind === 'sft' ? 'trl_sft/packing_bfd' : 'trl_dpo/sigmoid_beta0.1'
  const recipe = {
    model_name_or_path: fixturePath(`golden/models/h64d32_win16_tied/f32`),
    tokenizer_name_or_path: fixturePath('golden/tiny_tokenizer'),
    dataset_name: fixturePath(`golden/${data}.dataset.jsonl`),
    per_device_train_batch_size: 2,
    ...(kind === 'sft' ? { max_length: 128 } : {}),
    learning_rate: kind === 'sft' ? 2e-3 : 5e-4,
    bf16: dtype === 'bfloat16',
    dtype,
    max_steps: 5,
    logging_steps: 1,
    save_strategy: 'no',
    report_to: 'none',
    output_dir,
    ...keys,
  }
  if (kind === 'sft') await sft(parseRecipe('sft', recipe), { device: on })
  else await dpo(parseRecipe('dpo', recipe), { device: on })
  return output_dir
}

/** What was logged at each step, but for what depends on the clock or the device. */
async function logged(folder: string): Promise<Record<string, number>[]> {
  const lines = (await readFile(join(folder, 'metrics.jsonl'), 'utf8')).trim().split('\n')
  const names = ['step', 'loss', 'grad_norm', 'logps/chosen', 'rewards/margins']
  return lines.map((line) => {
    const record: Record<string, number> = JSON.parse(line)
    return Object.fromEntries(names.filter((n) => n in record).map((n) => [n, record[n]!]))
  })
}

async function weights(folder: string): Promise<Float64Array> {
  const { file, tensors } = await openSafetensors(join(folder, 'model.safetensors'))
  const parts: number[] = []
  for (const name of [...tensors.keys()].sort()) {
    for (const value of await readTensor(file, tensors.get(name)!)) parts.push(Number(value))
  }
  return Float64Array.from(parts)
}

async function sha(folder: string): Promise<string> {
  const bytes = await readFile(join(folder, 'model.safetensors'))
  return createHash('sha256').update(bytes).digest('hex')
}

const largest = (a: Float64Array, b: Float64Array) =>
  a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i]!)), 0)

/**
 * AdamW divides a gradient by its own size: where it is no more than rounding, the weight moves by up to the
 * learning rate, 2e-3, a step, and either backend is as right. Few weights are there: on average they agree.
 */
function expectSameWeights(a: Float64Array, b: Float64Array): void {
  expect(mean(a, b)).toBeLessThan(1e-7)
  expect(largest(a, b)).toBeLessThan(2e-4)
}

const mean = (a: Float64Array, b: Float64Array) =>
  a.reduce((sum, x, i) => sum + Math.abs(x - b[i]!), 0) / a.length

describe.runIf(cudaDevices().devices.length > 0)('five steps on a GPU', () => {
  it.each(['sft', 'dpo'] as const)(
    '%s in float32: the losses, norms and weights of the CPU, within rounding',
    async (kind) => {
      const [gpu, cpu] = [await run(kind, 'float32', 'cuda'), await run(kind, 'float32', 'cpu')]
      const [ours, theirs] = [await logged(gpu), await logged(cpu)]
      expect(ours).toHaveLength(5)
      for (const [i, record] of ours.entries()) {
        for (const [name, value] of Object.entries(record)) {
          const expected = theirs[i]![name]!
          // Sums of some hundred log-probs in another order: 1e-5 of the value, or of 1 for differences of them.
          expect(Math.abs(value - expected), `${name} of step ${i + 1}`).toBeLessThanOrEqual(
            2e-5 * Math.max(Math.abs(expected), 1),
          )
        }
      }
      expectSameWeights(await weights(gpu), await weights(cpu))
    },
  )

  it.each(['sft', 'dpo'] as const)(
    '%s in bfloat16: as near to float32 as the CPU in bfloat16, within 2x',
    async (kind) => {
      const exact = await run(kind, 'float32', 'cpu')
      const cpu = await run(kind, 'bfloat16', 'cpu')
      const gpu = await run(kind, 'bfloat16', 'cuda')
      const [truth, theirs, ours] = [await logged(exact), await logged(cpu), await logged(gpu)]
      const off = (log: Record<string, number>[], name: string) =>
        log.reduce((sum, record, i) => sum + Math.abs(record[name]! - truth[i]![name]!), 0) / 5
      for (const name of ['loss', 'grad_norm']) {
        // Five numbers of either may happen to be near: half a bf16 step of the value is free.
        const free = 2 ** -9 * Math.abs(truth[0]![name]!)
        expect(off(ours, name), name).toBeLessThanOrEqual(2 * off(theirs, name) + free)
      }
      const w = await weights(exact)
      expect(mean(await weights(gpu), w)).toBeLessThanOrEqual(2 * mean(await weights(cpu), w))
    },
  )

  it('two runs give the same bits', async () => {
    const hashes = new Set<string>()
    for (let i = 0; i < 2; i++) hashes.add(await sha(await run('dpo', 'bfloat16', 'cuda')))
    expect(hashes.size).toBe(1)
  })

  it('a checkpoint of the GPU goes on on the CPU, and one of the CPU on the GPU', async () => {
    const keys = { save_strategy: 'steps', save_steps: 3 }
    const whole = await weights(await run('sft', 'float32', 'cpu'))
    for (const [first, then] of [
      ['cuda', 'cpu'],
      ['cpu', 'cuda'],
    ] as const) {
      const folder = await run('sft', 'float32', first, keys)
      const from = join(folder, 'checkpoint-3')
      const rest = await run('sft', 'float32', then, { ...keys, resume_from_checkpoint: from })
      expectSameWeights(await weights(rest), whole)
    }
  })

  it('leaves no tensor behind, and asks the driver for no memory once it is warm', async () => {
    device('cuda').dispose()
    const before = device('cuda').stats()
    await run('sft', 'bfloat16', 'cuda')
    const { liveBytes, forgottenTensors } = device('cuda').stats()
    expect({ liveBytes, forgottenTensors }).toEqual({
      liveBytes: before.liveBytes,
      forgottenTensors: 0,
    })
  })
})

describe.runIf(cudaDevices().devices.length > 0)('text from a GPU', () => {
  it.each([7, null])(
    'with window %s: token for token that of the CPU, in float32',
    async (window) => {
      using gpu = openCuda()
      using cpu = openCpu()
      const prompts = [3, 21, 1, 9, 30].map((length, i) => [...integers(length, 320, i + 1)])
      for (const options of [{}, { temperature: 1.3, topK: 40, topP: 0.9, seed: 11 }]) {
        const texts = []
        for (const on of [gpu, cpu]) {
          using model = randomModel(on, { window })
          texts.push(await generate(model, prompts, { maxNewTokens: 12, stopIds: [], ...options }))
        }
        expect(texts[0]).toEqual(texts[1])
      }
    },
  )
})
