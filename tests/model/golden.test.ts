import { readFile } from 'node:fs/promises'
import { afterAll, describe, expect, it } from 'vitest'
import { openSafetensors, readTensor } from '../../src/checkpoint/safetensors.js'
import { sftBatch } from '../../src/data/batch.js'
import { backwardFromScored, scoredHidden, toDevice } from '../../src/model/batch.js'
import { loadModel } from '../../src/model/model.js'
import { forward } from '../../src/model/transformer.js'
import { gemm, linearLogps, linearLogpsBackward } from '../../src/ops/index.js'
import { roundToBf16 } from '../../src/tensor/dtype.js'
import { scope } from '../../src/tensor/scope.js'
import { fromArray } from '../../src/tensor/tensor.js'
import { ropeFrequencies, transformer } from '../reference/transformer.js'
import { engines } from '../support/devices.js'
import { relativeError } from '../support/exactness.js'
import { fixturePath } from '../support/fixtures.js'
import { sharedPath } from '../support/shared.js'
import { allLogits } from '../support/small-models.js'

const names = ['h64d16_full_untied', 'h64d32_win16_tied', 'h48d16_win16_untied_l3']
const models = engines.flatMap((on) => names.map((name) => ({ name, on, device: on.name })))
const shared = sharedPath('golden')
const golden = fixturePath('golden')
// The other cases say the same in other layouts; they are too large to keep here.
const cases = shared ? ['single', 'padded', 'packed'] : ['packed']

afterAll(() => {
  for (const on of engines) expect(on.stats().forgottenTensors).toBe(0)
})

async function readGolden(name: string) {
  const folder = name.endsWith('packed') ? golden : shared
  const file = await openSafetensors(`${folder}/forward/${name}.safetensors`)
  const get = async (key: string) => {
    const entry = file.tensors.get(key)
    if (!entry) throw new Error(`${name} has no ${key}`)
    return { shape: entry.shape, values: Array.from(await readTensor(file.file, entry), Number) }
  }
  const json = JSON.parse(await readFile(`${folder}/forward/${name}.json`, 'utf8')) as {
    doc_lengths?: number[]
    loss_f64: number
  }
  return { get, json, has: (key: string) => file.tensors.has(key) }
}

/** The documents of a case: rows without padding, or the documents of the packed row. */
async function documents(name: string) {
  const { get, json, has } = await readGolden(name)
  const ids = await get('input_ids')
  const labels = await get('labels')
  const [rows, width] = ids.shape as [number, number]
  const mask = has('attention_mask') ? (await get('attention_mask')).values : undefined
  const out: { ids: Int32Array; labels: Int32Array; at: number }[] = []
  for (let row = 0; row < rows; row++) {
    let at = row * width
    const end = at + width
    const lengths = json.doc_lengths ?? [
      mask ? mask.slice(at, end).reduce((a, b) => a + b, 0) : width,
    ]
    for (const length of lengths) {
      out.push({
        ids: Int32Array.from(ids.values.slice(at, at + length)),
        labels: Int32Array.from(labels.values.slice(at, at + length)),
        at,
      })
      at += length
    }
  }
  return { docs: out, width, get, loss: json.loss_f64 }
}

describe.each(models)('$name against float64 on $device', ({ name, on }) => {
  it.each(cases)('%s: logits, log-probs, loss and every gradient', async (kind) => {
    using model = await loadModel(`${golden}/models/${name}/f32`, { device: on })
    const { docs, width, get, loss } = await documents(`${name}.${kind}`)
    const batch = sftBatch([docs])
    using _ = scope()
    const device = toDevice(batch, on)

    const { hidden } = forward(model, device.tokens, { save: false })
    const logits = await gemm(hidden, model.parameters.lmHead.weight, { transB: true }).read()
    const truth = await get('logits_f64')
    const V = model.config.vocabSize
    let logitError = 0
    let row = 0
    for (const { ids, at } of docs) {
      for (let t = 0; t < ids.length; t++, row++) {
        for (let v = 0; v < V; v++) {
          const difference = Math.abs(logits[row * V + v]! - truth.values[(at + t) * V + v]!)
          logitError = Math.max(logitError, difference)
        }
      }
    }
    expect(logitError).toBeLessThan(2e-4)

    const n = batch.targets.length
    for (const recompute of [false, true]) {
      for (const parameter of model.parameters.list) parameter.freeGrad()
      const scored = scoredHidden(model, device, { save: true, recompute })
      const head = model.parameters.lmHead
      const out = linearLogps(scored.hidden, head.weight, device.targets)
      const logps = await out.logps.read()
      const truthLogps = (await get('logps_f64')).values
      let i = 0
      let sum = 0
      for (const { ids, labels, at } of docs) {
        const line = Math.floor(at / width)
        for (let t = 0; t + 1 < ids.length; t++) {
          if (labels[t + 1] === -100) continue
          const expected = truthLogps[line * (width - 1) + (at % width) + t]!
          expect(Math.abs(logps[i]! - expected)).toBeLessThan(1e-4)
          sum += logps[i++]!
        }
      }
      expect(i).toBe(n)
      expect(Math.abs(-sum / n - loss)).toBeLessThan(2e-6)

      const dlogps = fromArray(new Float32Array(n).fill(-1 / n), [n], 'f32', on)
      const dpicked = linearLogpsBackward(
        ...([scored.hidden, head.weight, device.targets, out.lse, dlogps, head.grad] as const),
      )
      backwardFromScored(model, device, scored, dpicked)
      for (const { spec, grad } of model.parameters.list) {
        const actual = await grad.read()
        const width = spec.shape[1] ?? 1
        for (const part of spec.parts) {
          const expected = (await get(`grad_f64.${part.hfName}`)).values
          const mine = actual.subarray(part.rowStart * width, (part.rowStart + part.rows) * width)
          let difference = 0
          let norm = 0
          for (let j = 0; j < expected.length; j++) {
            difference += (mine[j]! - expected[j]!) ** 2
            norm += expected[j]! ** 2
          }
          expect(Math.sqrt(difference / norm), part.hfName).toBeLessThan(5e-5)
        }
      }
    }
  })

  it.skipIf(!shared)(
    'in bf16 the logits are as close to float64 as those of a bf16 model of PyTorch, within 2x',
    async () => {
      const { docs, get } = await documents(`${name}.single`)
      using model = await loadModel(`${shared}/models/${name}/bf16`, { device: on })
      expect(model.dtype).toBe('bf16')
      using _ = scope()
      const { hidden } = forward(model, toDevice(sftBatch([docs]), on).tokens, { save: false })
      const logits = await gemm(hidden, model.parameters.lmHead.weight, { transB: true }).read()
      const truth = (await get('logits_f64')).values
      const torch = (await get('logits_bf16_model')).values
      expect(relativeError(logits, truth)).toBeLessThan(2 * relativeError(torch, truth))
    },
  )

  // The golden tensor `logits_bf16_weights_f32_math` is not what the bf16 checkpoint computes in f32: it is what
  // comes out when RoPE's inv_freq is rounded to bf16 too, as `model.to(bfloat16).float()` does to a buffer that
  // no checkpoint stores. The angles are then off by up to 2^-9 of themselves, more with every position.
  it.skipIf(!shared)(
    'a bf16 checkpoint in f32: the float64 reference, and with rounded RoPE frequencies the logits of PyTorch',
    async () => {
      const { docs, get } = await documents(`${name}.single`)
      const dir = `${shared}/models/${name}/bf16`
      using model = await loadModel(dir, { device: on, dtype: 'f32' })
      const { config } = model
      const { tensors, file } = await openSafetensors(`${dir}/model.safetensors`)
      const weights = new Map<string, ArrayLike<number>>()
      for (const [key, entry] of tensors) {
        weights.set(key, Array.from(await readTensor(file, entry), Number))
      }
      const weight = (key: string) => weights.get(key)!
      const frequencies = ropeFrequencies(config)
      const rounded = frequencies.map((x) => roundToBf16(Math.fround(x)))
      const torch = (await get('logits_bf16_weights_f32_math')).values
      for (const { ids, at } of docs.slice(0, 1)) {
        const engine = await allLogits(model, [...ids])
        const truth = transformer({ config, weight, frequencies }, [...ids])
        const asTorch = transformer({ config, weight, frequencies: rounded }, [...ids])
        const theirs = torch.slice(at * config.vocabSize, (at + ids.length) * config.vocabSize)
        expect(largestDifference(engine, truth)).toBeLessThan(2e-4)
        expect(largestDifference(theirs, asTorch)).toBeLessThan(2e-4)
        expect(largestDifference(theirs, truth)).toBeGreaterThan(1e-3)
      }
    },
  )
})

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length)
  let difference = 0
  for (let i = 0; i < a.length; i++) difference = Math.max(difference, Math.abs(a[i]! - b[i]!))
  return difference
}
