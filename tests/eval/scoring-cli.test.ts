import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readRows } from '../../src/data/read-rows.js'
import { openCpu } from '../../src/device/device.js'
import { evaluateChoices } from '../../src/eval/choice/choice.js'
import { loadModel } from '../../src/model/model.js'
import { saveModel } from '../../src/train/run.js'
import { version } from '../../src/version.js'
import { cliBuilt, westwind } from '../support/cli.js'
import { fixturePath, jsonLines, readJson } from '../support/fixtures.js'
import { sharedPath } from '../support/shared.js'
import { randomModel } from '../support/small-models.js'

const dir = mkdtempSync(join(tmpdir(), 'westwind-eval-'))
const modelDir = join(dir, 'model')
const data = (name: string) => fixturePath('lm-eval', `${name}.jsonl`)
const cpu = openCpu()

beforeAll(async () => {
  using fresh = randomModel(cpu, { window: null })
  await saveModel(modelDir, fresh, { ...fresh.tokenizer?.files })
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

describe.skipIf(!cliBuilt)('westwind eval', () => {
  it('writes what the API returns, with what it came from, and prints a table', async () => {
    const args = ['--data', data('arc'), '--fewshot', '2', '--fewshot-data', data('arc_train')]
    const { code, stdout, stderr } = await westwind(['eval', 'arc', modelDir, ...args])
    expect({ code, stderr }).toEqual({
      code: 0,
      stderr: expect.stringMatching(/-> .*results.json\n$/),
    })
    expect(stdout).toMatch(
      /^arc: 8 questions, 2-shot, \d prompts cut to the model's context\nacc {7}0\.\d{4} ± 0\.\d{4}\nacc_norm {2}0\.\d{4} ± /,
    )
    using model = await loadModel(modelDir, { device: cpu })
    const fewshotRows = await readRows(data('arc_train'))
    const expected = await evaluateChoices(model, 'arc', await readRows(data('arc')), {
      fewshot: 2,
      fewshotRows,
    })
    const out = join(modelDir, 'eval', 'arc')
    expect(jsonLines(join(out, 'samples.jsonl'))).toEqual(expected.samples)
    const hash = expect.stringMatching(/^[0-9a-f]{64}$/)
    expect(readJson(join(out, 'results.json'))).toEqual({
      ...{ task: 'arc', model: 'model', model_path: modelDir, westwind: version },
      date: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      metrics: expected.metrics,
      settings: {
        ...{ n: 8, fewshot: 2, dtype: 'f32', device: 'cpu' },
        data: [{ file: 'arc.jsonl', sha256: hash }],
        fewshot_data: [{ file: 'arc_train.jsonl', sha256: hash }],
      },
      samples: 'samples.jsonl',
    })
  })

  it.each(['hellaswag', 'mmlu', 'truthfulqa'])('%s --json prints the results', async (task) => {
    const out = join(dir, task)
    const args = [
      'eval',
      task,
      modelDir,
      '--data',
      data(task),
      '--out',
      out,
      '--limit',
      '2',
      '--json',
    ]
    const { code, stdout } = await westwind(args)
    expect(code).toBe(0)
    const {
      date: _,
      westwind: __,
      samples: ___,
      ...rest
    } = readJson<Record<string, unknown>>(join(out, 'results.json'))
    expect(JSON.parse(stdout)).toEqual({ ...rest, out })
    expect(rest).toMatchObject({ task, settings: { limit: 2, n: task === 'mmlu' ? 6 : 2 } })
  })

  it('truthfulqa says what a missing preset means; with one it keeps its hash', async () => {
    const args = ['eval', 'truthfulqa', modelDir, '--data', data('truthfulqa'), '--limit', '1']
    const without = await westwind([...args, '--out', join(dir, 'tq')])
    expect(without.stderr).toContain('without --preset each question stands alone')
    const preset = join(dir, 'preset.txt')
    writeFileSync(preset, 'Q: One?\nA: Two.\n')
    const { stderr } = await westwind([...args, '--out', join(dir, 'tq'), '--preset', preset])
    expect(stderr).not.toContain('preset')
    expect(readJson(join(dir, 'tq', 'results.json'))).toMatchObject({
      settings: { preset_sha256: expect.any(String) },
    })
  })

  it('preferences and perplexity', async () => {
    const pairs = join(dir, 'pairs.jsonl')
    writeFileSync(
      pairs,
      '{"prompt":"a","chosen":"b","rejected":"c"}\n{"prompt":"d","chosen":"e f","rejected":"g"}\n',
    )
    const args = [
      '--reference',
      modelDir,
      '--data',
      pairs,
      '--kl-samples',
      '1',
      '--max-new-tokens',
      '2',
    ]
    const first = await westwind(['eval', 'preferences', modelDir, ...args])
    expect(first.stdout).toContain(
      'preferences: 2 pairs, beta 0.1\nrewards/accuracies  0.0000 ± 0.0000\n',
    )
    const out = join(modelDir, 'eval', 'preferences')
    expect(readJson(join(out, 'results.json'))).toMatchObject({
      settings: { n: 2, dropped: 0, reference: modelDir, beta: 0.1, kl_samples: 1 },
    })
    const second = await westwind(['eval', 'perplexity', modelDir, '--data', data('texts')])
    expect(second.stdout).toMatch(/^perplexity: 3 texts, \d+ tokens\nword_perplexity {3}\d/)
  })

  it.each([
    [
      ['--fewshot', '1'],
      '--fewshot 1 needs --fewshot-data FILE, the split that examples are taken from',
    ],
    [['--limit', '0'], "option '--limit <n>' argument '0' is invalid"],
  ])('%j is refused', async (args, message) => {
    const { code, stderr } = await westwind([
      'eval',
      'arc',
      modelDir,
      '--data',
      data('arc'),
      ...args,
    ])
    expect(code).toBe(1)
    expect(stderr).toContain(message)
  })
})

/** Models and data sets that others published, where this machine has them. */
const names = ['stories260K', 'BabyLlama-tok105']
const models = names.map((name) => sharedPath('pretrained', name))
const files = ['arc/arc_easy', 'hellaswag/hellaswag_val_sample', 'truthfulqa/truthfulqa'].map(
  (name) => sharedPath('data', `${name}.jsonl`),
)

describe.skipIf([...models, ...files].includes(undefined))('published models and data', () => {
  it.each(names)('%s: equal bits whatever is scored beside a question', async (name) => {
    using model = await loadModel(sharedPath('pretrained', name)!, { device: cpu })
    for (const [i, task] of (['arc', 'hellaswag', 'truthfulqa'] as const).entries()) {
      const rows = (await readRows(files[i]!)).slice(0, 12)
      const { samples } = await evaluateChoices(model, task, rows)
      for (const k of [0, 7, 11]) {
        const alone = await evaluateChoices(model, task, [rows[k]!])
        expect(alone.samples).toEqual([samples[k]])
      }
    }
  })
})
