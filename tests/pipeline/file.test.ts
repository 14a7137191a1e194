import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { zephyr } from '../../src/pipeline/zephyr.js'

let root: string
let file: string
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'westwind-pipeline-file-'))
  file = join(root, 'p.yaml')
})
afterAll(() => rm(root, { recursive: true, force: true }))

/** What the plan of this file fails with, the path of the file cut to `p.yaml`. */
async function failure(...lines: string[]): Promise<string> {
  await writeFile(file, lines.join('\n'))
  const dry = zephyr({ pipeline: file, dryRun: true })
  const message = await dry.then(String, (error: Error) => error.message)
  return message.replaceAll(`${root}/`, '')
}

const sft = ['sft:', '  model_name_or_path: m', '  dataset_name: d']

describe('what is wrong with a file is said with line and key', () => {
  it('all of its outline at once, with the nearest name', async () => {
    const lines = ['output: x', 'preset: papper', 'seed: 1.5', 'dpoo: {}', 'eval: arc', 'sft: 3']
    expect(await failure(...lines)).toBe(
      [
        '7 problems in the recipe:',
        'p.yaml:1: output: unknown key; a pipeline has output_dir, preset, seed, sft, feedback, dpo, eval, report',
        'p.yaml:2: preset: "papper" is no preset; did you mean paper?',
        'p.yaml:3: seed must be a whole number of at least 0, got 1.5',
        'p.yaml:4: dpoo: unknown key; did you mean dpo?',
        'p.yaml:5: eval must be a list of tasks, got "arc"',
        'p.yaml:6: sft must be a mapping of keys, got 3',
        'p.yaml: output_dir is missing: expected a folder',
      ].join('\n'),
    )
  })

  it('a file without a stage that trains', async () => {
    expect(await failure('output_dir: o')).toBe('p.yaml: nothing to train: give sft, dpo or both')
  })

  it('a wrong key of a section, by the stage', async () => {
    expect(await failure('output_dir: o', ...sft, '  learnig_rate: 1')).toBe(
      'p.yaml:5: sft: learnig_rate: unknown key; did you mean learning_rate?',
    )
    expect(await failure('output_dir: o', ...sft, '  max_length: no')).toBe(
      'p.yaml:5: sft: max_length must be a whole number of at least 1, or null, got "no"',
    )
  })

  it('a wrong key of a recipe that a section names, by the file it stands in', async () => {
    await writeFile(join(root, 'sft.yaml'), 'model_name_or_path: m\nbatch: 4\ndataset_name: d\n')
    expect(await failure('output_dir: o', 'sft:', '  recipe: sft.yaml', '  seed: x')).toBe(
      [
        '2 problems in the recipe:',
        'sft.yaml:2: sft: batch: unknown key; docs/recipes.md lists the keys',
        'p.yaml:4: sft: seed must be a whole number of at least 0, got "x"',
      ].join('\n'),
    )
    expect(await failure('output_dir: o', 'sft:', '  recipe: none.yaml')).toMatch(
      /^p\.yaml:3: sft: recipe: none\.yaml could not be read: ENOENT/,
    )
  })

  it('keys that the pipeline decides', async () => {
    const dpo = ['dpo:', '  model_name_or_path: n', '  dataset_name: e', '  output_dir: z']
    expect(await failure('output_dir: o', ...sft, ...dpo)).toBe(
      [
        '2 problems in the recipe:',
        'p.yaml:6: dpo: model_name_or_path: the model is what sft leaves; leave it out',
        "p.yaml:8: dpo: output_dir: every stage has its folder in the pipeline's output_dir; leave it out",
      ].join('\n'),
    )
  })

  it('data that is not there', async () => {
    expect(await failure('output_dir: o', ...sft)).toContain('p.yaml: sft: ')
    expect(await failure('output_dir: o', ...sft.slice(0, 2), '  dataset_name: d.jsonl')).toBe(
      'p.yaml: sft: data set "d.jsonl": no such file or folder, and not a Hub id (owner/name)',
    )
  })
})

it('a section lays its keys over those of its recipe, the seed of the pipeline between them', async () => {
  const recipe = { model_name_or_path: root, dataset_mixer: { d: 1 }, dtype: 'auto', seed: 1 }
  await writeFile(join(root, 'base.yaml'), JSON.stringify({ ...recipe, output_dir: 'elsewhere' }))
  await writeFile(join(root, 'rows.jsonl'), '{"text":"a"}\n')
  const lines = [
    `output_dir: ${join(root, 'out')}`,
    'seed: 5',
    'preset: paper',
    'sft:',
    '  recipe: base.yaml',
    `  dataset_name: ${join(root, 'rows.jsonl')}`,
    '  torch_dtype: float32',
    '  packing: false',
  ]
  await writeFile(file, lines.join('\n'))
  let said = ''
  const write = (text: string) => {
    said += text
    return true
  }
  const stream = { write, on: () => undefined }
  await zephyr({ pipeline: file, dryRun: true, stream })
  expect(said).toContain('data: 1 rows to train on (1 kB)')
  expect(said).toContain(
    'bf16                          true         not used, the recipe has dtype: "float32"',
  )
  expect(said).toContain('steps: about 1 of 512 conversations')
})
