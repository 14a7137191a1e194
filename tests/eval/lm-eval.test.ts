import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readRows } from '../../src/data/read-rows.js'
import { tokenizerFromFiles } from '../../src/data/tokenizer/tokenizer.js'
import { openCpu } from '../../src/device/device.js'
import { evaluateChoices } from '../../src/eval/choice/choice.js'
import { evaluatePerplexity } from '../../src/eval/perplexity.js'
import { loadModel, Model } from '../../src/model/model.js'
import { fixturePath, readJson } from '../support/fixtures.js'
import { tinyTokenizer } from '../support/small-models.js'

// What lm-evaluation-harness 0.4.13 makes of rows of our own and a model of the fixtures, with its own tasks.

type Value = { value: number; stderr: number }
interface Sample {
  prompt_sha256: string
  choices: string[]
  logprobs: number[]
  greedy: boolean[]
}
interface Expected {
  fewshot: number
  samples: Sample[]
  metrics: Record<string, Value>
}
const expected = readJson<{
  arc: Expected
  hellaswag: Expected
  mmlu: Expected & { groups: Record<string, Record<string, Value>> }
  truthfulqa: { mc1: Sample[]; mc2: Sample[]; metrics: Record<string, Value> }
  perplexity: { logprobs: number[]; metrics: Record<string, number> }
}>(fixturePath('lm-eval', 'expected.json'))

/** PyTorch sums in f32, here in another order: of sums up to some 1000 nats. */
const kRelative = 2e-6

let model: Model
beforeAll(async () => {
  const dir = fixturePath('golden/models/h64d16_full_untied/f32')
  const bare = await loadModel(dir, { device: openCpu(), dtype: 'f32' })
  model = new Model({ ...bare, tokenizer: tokenizerFromFiles(tinyTokenizer().files) })
})
afterAll(() => model.dispose())

const rows = (name: string) => readRows(fixturePath('lm-eval', `${name}.jsonl`))

function expectClose(got: readonly number[], want: readonly number[]): void {
  expect(got).toHaveLength(want.length)
  for (const [i, x] of got.entries()) {
    expect(Math.abs(x - want[i]!)).toBeLessThan(kRelative * Math.abs(want[i]!))
  }
}

function expectMetrics(got: object, want: Record<string, Value>): void {
  const close = Object.entries(want).map(([name, { value, stderr }]) => {
    return [name, { value: expect.closeTo(value, 6), stderr: expect.closeTo(stderr, 6) }]
  })
  expect(got).toEqual(Object.fromEntries(close))
}

describe('against lm-evaluation-harness', () => {
  it.each([
    ['arc', 'arc_train'],
    ['hellaswag', 'hellaswag_train'],
    ['mmlu', 'mmlu_dev'],
  ] as const)('%s: the same prompts, log-probs, metrics and errors', async (task, examples) => {
    const { fewshot, samples, metrics } = expected[task]
    const fewshotRows = await rows(examples)
    const got = await evaluateChoices(model, task, await rows(task), { fewshot, fewshotRows })
    expect(got.samples.map((sample) => sample.prompt_sha256)).toEqual(
      samples.map((sample) => sample.prompt_sha256),
    )
    expect(got.samples.map(({ greedy }) => greedy)).toEqual(samples.map(({ greedy }) => greedy))
    for (const [i, { logprobs }] of samples.entries())
      expectClose(got.samples[i]!.logprobs, logprobs)
    expectMetrics(got.metrics, metrics)
  })

  it('arc: some of these prompts are longer than the context', async () => {
    const options = { fewshot: 7, fewshotRows: await rows('arc_train') }
    const { samples } = await evaluateChoices(model, 'arc', await rows('arc'), options)
    expect(samples.some(({ truncated }) => truncated)).toBe(true)
  })

  it('mmlu: the same means and errors of subjects', async () => {
    const options = { fewshot: 2, fewshotRows: await rows('mmlu_dev') }
    const { groups } = await evaluateChoices(model, 'mmlu', await rows('mmlu'), options)
    for (const [subject, metrics] of Object.entries(expected.mmlu.groups)) {
      const { n, ...got } = groups![subject]!
      expect(n).toBe(subject === 'sociology' ? 4 : 3 + (subject.length % 2))
      expectMetrics(got, metrics)
    }
  })

  it('truthfulqa: the same log-probs, mc1 and mc2', async () => {
    const { samples, metrics } = await evaluateChoices(
      model,
      'truthfulqa',
      await rows('truthfulqa'),
    )
    for (const kind of ['mc1', 'mc2'] as const) {
      for (const [i, want] of expected.truthfulqa[kind].entries()) {
        const { choices, logprobs, prompt_sha256 } = samples[i]!
        expect(prompt_sha256).toBe(want.prompt_sha256)
        expectClose(
          want.choices.map((choice) => logprobs[choices.indexOf(choice)]!),
          want.logprobs,
        )
      }
    }
    expectMetrics(metrics, expected.truthfulqa.metrics)
  })

  it('perplexity: the same rolling log-probs and metrics', async () => {
    const { metrics, samples } = await evaluatePerplexity(model, await rows('texts'))
    expectClose(
      samples.map(({ logprob }) => logprob),
      expected.perplexity.logprobs,
    )
    for (const [name, value] of Object.entries(expected.perplexity.metrics)) {
      const got = Object.entries(metrics).find(([key]) => key === name)?.[1]
      expect(got! / value).toBeCloseTo(1, 4)
    }
  })
})
