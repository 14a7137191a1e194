import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openCpu } from '../../src/device/device.js'
import { generate } from '../../src/model/generate.js'
import { loadModel } from '../../src/model/model.js'
import { jsonLines } from '../support/fixtures.js'
import { readNpz } from '../support/npz.js'
import { sharedPath } from '../support/shared.js'
import { allLogits } from '../support/small-models.js'

interface Reference {
  id: number
  prompt: string
  prompt_ids: number[]
  greedy_ids: number[]
  /** Of every token of prompt + greedy but the first. */
  token_logprobs: number[]
}

const cpu = openCpu()

// Real Llama checkpoints; the references are of a NumPy implementation in float64.
describe.each(['stories260K', 'BabyLlama-tok105'])('%s in f32', (name) => {
  const dir = sharedPath('pretrained', name)
  const rows = dir ? jsonLines<Reference>(join(dir, 'reference_generations.jsonl')) : []

  it.skipIf(!dir)(
    'continues every prompt with the 100 greedy tokens of the reference',
    async () => {
      using model = await loadModel(dir!, { device: cpu, dtype: 'f32' })
      const done = await generate(
        model,
        rows.map(({ prompt }) => prompt),
        { maxNewTokens: 100 },
      )
      expect(done.map(({ ids }) => ids)).toEqual(rows.map((row) => row.greedy_ids))
    },
  )

  it.skipIf(!dir)('has its logits (2e-4) and the log-prob of every token (1e-4)', async () => {
    using model = await loadModel(dir!, { device: cpu, dtype: 'f32' })
    const { vocabSize: V } = model.config
    const reference = readNpz(join(dir!, 'reference_logits.npz'))
    for (const row of rows) {
      const ids = [...row.prompt_ids, ...row.greedy_ids]
      const logits = await allLogits(model, ids)
      const expected = reference.get(`logits_${row.id}`)!
      expect(expected.shape).toEqual([row.prompt_ids.length, V])
      for (const [i, value] of expected.values.entries()) {
        expect(Math.abs(logits[i]! - value)).toBeLessThan(2e-4)
      }
      for (const [t, value] of row.token_logprobs.entries()) {
        const at = logits.subarray(t * V, (t + 1) * V)
        const lse = Math.log(at.reduce((sum, x) => sum + Math.exp(x), 0))
        expect(Math.abs(at[ids[t + 1]!]! - lse - value)).toBeLessThan(1e-4)
      }
    }
  })
})
