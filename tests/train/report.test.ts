import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { modelCard } from '../../src/train/model-card.js'
import { saveResults, speedResults } from '../../src/train/report-files.js'

describe('saveResults', () => {
  let dir: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'westwind-report-'))
  })
  afterEach(() => rmSync(dir, { recursive: true }))

  it('writes one file per split and merges both into all_results.json, sorted', async () => {
    await saveResults(dir, 'train', { train_loss: 0.5, epoch: 1 })
    await saveResults(dir, 'eval', { eval_loss: 0.7, epoch: 1 })
    await saveResults(dir, 'eval', { eval_loss: 0.6, epoch: 2 })
    expect(readdirSync(dir).sort()).toEqual([
      'all_results.json',
      'eval_results.json',
      'train_results.json',
    ])
    expect(readFileSync(join(dir, 'all_results.json'), 'utf8')).toBe(
      '{\n    "epoch": 2,\n    "eval_loss": 0.6,\n    "train_loss": 0.5\n}\n',
    )
  })

  it('names an all_results.json that it cannot merge into', async () => {
    writeFileSync(join(dir, 'all_results.json'), '[1]')
    await expect(saveResults(dir, 'eval', { eval_loss: 1 })).rejects.toThrow(
      'all_results.json: expected a JSON object',
    )
  })

  it('speedResults rounds as transformers does', () => {
    expect(speedResults('train', { seconds: 3.123456, samples: 100, steps: 10 })).toEqual({
      train_runtime: 3.1235,
      train_samples: 100,
      train_samples_per_second: 32.016,
      train_steps_per_second: 3.202,
    })
  })
})

describe('modelCard', () => {
  const card = modelCard({
    name: 'zephyr-7b-dpo',
    stage: 'dpo',
    baseModel: 'org/a: "quoted" #model',
    datasets: ['org/pairs'],
    hyperparameters: { beta: 0.01, loss_type: 'sigmoid', 'odd|key': 'a\nb' },
    metrics: { 'eval_rewards/accuracies': 0.76543219, eval_samples: 2000 },
    history: [
      { step: 10, loss: 0.69 },
      { step: 20, loss: 0.61, extra: 1 },
    ],
    deviations: ['Global batch 16, not 128.'],
    version: '0.1.0',
  })

  it('has front matter that a YAML reader gives back unchanged', () => {
    const [, yaml] = card.split('---\n')
    expect(parse(yaml!)).toEqual({
      base_model: 'org/a: "quoted" #model',
      datasets: ['org/pairs'],
      library_name: 'transformers',
      pipeline_tag: 'text-generation',
      tags: ['westwind', 'dpo', 'generated_from_trainer'],
    })
  })

  it('shows results, hyperparameters, log and deviations', () => {
    expect(card).toContain('| `eval_rewards/accuracies` | 0.765432 |')
    expect(card).toContain('| `eval_samples` | 2000 |')
    expect(card).toContain('| `odd\\|key` | a b |')
    expect(card).toContain('| step | loss |\n| --- | --- |\n| 10 | 0.69 |')
    expect(card).toContain('- Global batch 16, not 128.')
    expect(card).toContain('westwind 0.1.0')
  })

  it('says so where there was no base model', () => {
    const scratch = modelCard({
      name: 'x',
      stage: 'sft',
      datasets: [],
      hyperparameters: {},
      metrics: {},
      deviations: [],
      version: '0.1.0',
    })
    expect(scratch).toContain('Trained from scratch, by distilled supervised fine-tuning')
    expect(scratch).not.toContain('base_model')
  })
})
