import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { openSafetensors } from '../../src/checkpoint/safetensors.js'
import { pairBatch } from '../../src/data/batch.js'

const golden = fileURLToPath(new URL('../fixtures/golden/trl_dpo/', import.meta.url))

interface Sequence {
  ids: Int32Array
  /** of its tokens, how many come before the completion */
  promptLength: number
}

/** The sequences of every micro-batch that TRL trained on: chosen, then rejected. */
async function microBatchesOfTrl(run: string): Promise<Sequence[][]> {
  const file = `${golden}${run}.batches.safetensors`
  const { tensors } = await openSafetensors(file)
  const bytes = readFileSync(file)
  const rows = (name: string) => {
    const { begin, shape } = tensors.get(name)!
    const [count, length] = shape
    const row = (r: number) =>
      Int32Array.from({ length: length! }, (_, t) =>
        bytes.readInt32LE(begin + 4 * (r * length! + t)),
      )
    return Array.from({ length: count! }, (_, r) => row(r))
  }
  const micros: Sequence[][] = []
  for (let m = 0; tensors.has(`micro${m}.input_ids`); m++) {
    const attended = rows(`micro${m}.attention_mask`)
    const completion = rows(`micro${m}.completion_mask`)
    const sequences = rows(`micro${m}.input_ids`).map((ids, r) => ({
      ids: ids.filter((_, t) => attended[r]![t] === 1),
      promptLength: completion[r]!.indexOf(1),
    }))
    micros.push(sequences)
  }
  return micros
}

describe.each(['sigmoid_beta0.1', 'ipo_precomputed_ga2'])('the TRL run %s', (run) => {
  it.each([true, false])(
    'scores and counts the tokens TRL does (prefixSharing: %s)',
    async (prefixSharing) => {
      const {
        log,
        optimiser_step_of_micro: steps,
      }: {
        log: { step: number; num_tokens: number }[]
        optimiser_step_of_micro: number[]
      } = JSON.parse(readFileSync(`${golden}${run}.json`, 'utf8'))
      const micros = await microBatchesOfTrl(run)
      expect(micros).toHaveLength(steps.length)
      let tokens = 0
      for (const [m, sequences] of micros.entries()) {
        const half = sequences.length / 2
        const pairs = sequences.slice(0, half).map(({ ids, promptLength }, i) => ({
          promptIds: ids.subarray(0, promptLength),
          chosenIds: ids.subarray(promptLength),
          rejectedIds: sequences[half + i]!.ids.subarray(promptLength),
        }))
        const batch = pairBatch(pairs, { prefixSharing })
        expect(batch.sequences).toBe(sequences.length)
        for (const [s, { ids, promptLength }] of sequences.entries()) {
          const mine = [...batch.targets.keys()].filter((n) => batch.sequence[n] === s)
          expect(mine.map((n) => batch.targets[n])).toEqual([...ids.subarray(promptLength)])
          const from = mine.map((n) => batch.positions[batch.scoredRows[n]!])
          expect(from).toEqual(mine.map((_, i) => promptLength - 1 + i))
        }
        tokens += batch.inputTokens
        const logged = log.find(({ step }) => step === steps[m] && steps[m + 1] !== step)
        if (logged) expect(tokens).toBe(logged.num_tokens)
      }
    },
  )
})
