import { appendFile, cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadRecipe, parseRecipe } from '../../src/recipe/recipe.js'
import type { RunReport } from '../../src/report/compare.js'
import { type ReportOptions, report } from '../../src/report/report.js'
import { dpo } from '../../src/train/dpo.js'
import { sft } from '../../src/train/sft.js'
import { cliBuilt, westwind } from '../support/cli.js'
import { fixturePath } from '../support/fixtures.js'

let root: string
const at = (...parts: string[]) => join(root, ...parts)
const keys = {
  model_name_or_path: fixturePath('golden/models/h64d32_win16_tied/f32'),
  tokenizer_name_or_path: fixturePath('golden/tiny_tokenizer'),
  dataset_name: fixturePath('golden/trl_sft/packing_bfd.dataset.jsonl'),
  bf16: false,
  learning_rate: 2e-3,
  max_steps: 4,
  max_length: 64,
  per_device_train_batch_size: 2,
  logging_steps: 1,
  do_eval: false,
  save_strategy: 'no',
  report_to: 'none',
}

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'westwind-report-'))
  process.env.WESTWIND_CACHE = at('cache')
  await sft(parseRecipe('sft', { ...keys, output_dir: at('sft') }), { device: 'cpu' })
  const pairs = {
    ...keys,
    dataset_name: fixturePath('golden/trl_dpo/sigmoid_beta0.1.dataset.jsonl'),
    model_name_or_path: at('sft'),
    learning_rate: 5e-4,
    eval_strategy: 'steps',
    eval_steps: 2,
    output_dir: at('dpo'),
  }
  await dpo(parseRecipe('dpo', pairs), { device: 'cpu' })
  await evaluation(at('sft/eval/mt-bench'), { score: { value: 5.25, stderr: 0.125 } }, 'sft')
  await evaluation(at('dpo/eval/mt-bench'), { score: { value: 6.5, stderr: 0.25 } }, 'dpo')
})

afterAll(() => rm(root, { recursive: true, force: true }))

/** Writes results and samples as `westwind eval` does; the samples are of three items. */
async function evaluation(
  dir: string,
  metrics: Record<string, unknown>,
  model: string,
  more: Record<string, unknown> = {},
): Promise<void> {
  await mkdir(dir, { recursive: true })
  const results = {
    task: 'mt-bench',
    model,
    date: '2026-01-02T03:04:05Z',
    westwind: '0.1.0',
    metrics,
  }
  const groups = { math: { score: model.length } }
  const whole = { ...results, groups, settings: { judge: 'j' }, samples: 'samples.jsonl', ...more }
  await writeFile(join(dir, 'results.json'), JSON.stringify(whole))
  const lines = ['a/1', 'a/2', 'b/1'].map((id) => ({
    id,
    prompt: `ask ${id}`,
    answer: `${model} says ${id}`,
    score: 7,
  }))
  await writeFile(
    join(dir, 'samples.jsonl'),
    lines.map((line) => `${JSON.stringify(line)}\n`).join(''),
  )
}

async function make(runs: string[], options: Omit<ReportOptions, 'runs'> = {}) {
  const out = at(`report-${Math.random()}.html`)
  const result = await report({ runs, out, ...options })
  const page = await readFile(out, 'utf8')
  const json: RunReport = JSON.parse(await readFile(out.replace(/html$/, 'json'), 'utf8'))
  return { result, page, json }
}

/** The numbers of the row with this header: as programs read them, null where there is none. */
function rowOf(page: string, header: string): (number | null)[] {
  const row = page.split('<tr>').find((one) => one.startsWith(`<th scope="row">${header}</th>`))
  return [...row!.matchAll(/<td[^>]*>(?:<data value="([^"]*)">|<span)/g)].map(([, value]) =>
    value === undefined ? null : Number(value),
  )
}

const readJson = async (...parts: string[]) => JSON.parse(await readFile(at(...parts), 'utf8'))

describe('two runs', () => {
  let made: Awaited<ReturnType<typeof make>>
  beforeAll(async () => {
    made = await make([at('sft'), at('dpo')])
  })

  it('stand side by side with the numbers that they left', async () => {
    const { json } = made
    expect(
      json.runs.map(({ name, stage, state, step, max_steps }) => [
        name,
        stage,
        state,
        step,
        max_steps,
      ]),
    ).toEqual([
      ['sft', 'sft', 'finished', 4, 4],
      ['dpo', 'dpo', 'finished', 4, 4],
    ])
    const [ofSft, ofDpo] = [
      await readJson('sft/all_results.json'),
      await readJson('dpo/all_results.json'),
    ]
    const all = new Map(json.metrics.map(({ name, values }) => [name, values]))
    expect(all.get('train_loss')).toEqual([ofSft.train_loss, ofDpo.train_loss])
    expect(all.get('eval_rewards/accuracies')).toEqual([null, ofDpo['eval_rewards/accuracies']])
    expect([...all.keys()].sort()).toEqual(
      [...new Set([...Object.keys(ofSft), ...Object.keys(ofDpo)])].sort(),
    )
    const text = await readFile(at('dpo/metrics.jsonl'), 'utf8')
    const lines: Record<string, number>[] = text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    const curve = json.curves.find(
      ({ stage, metric }) => stage === 'dpo' && metric === 'rewards/margins',
    )
    const logged = (name: string) =>
      lines.flatMap((line) => (line[name] === undefined ? [] : [[line.step, line[name]]]))
    expect(curve!.lines).toEqual([
      { run: 'dpo', train: logged('rewards/margins'), eval: logged('eval_rewards/margins') },
    ])
    expect(curve!.lines[0]!.eval.map(([step]) => step)).toEqual([2, 4])
  })

  it('have the same numbers on the page as in the JSON, which is what the call returns', () => {
    const { page, json, result } = made
    expect(json).toEqual(result)
    for (const { name, values } of json.metrics) expect(rowOf(page, name), name).toEqual(values)
    for (const { group, metric, values } of json.evaluations) {
      const header = group === null ? metric : `${group}: ${metric}`
      expect(rowOf(page, header), header).toEqual(values.map((score) => score?.value ?? null))
    }
    expect(rowOf(page, 'score')).toEqual([5.25, 6.5])
    expect(page).toContain('<data value="5.25">5.25</data> <span class="note">± 0.125</span>')
    for (const { stage, metric } of json.curves) {
      expect(page).toContain(`${stage === 'sft' ? 'dSFT' : 'dDPO'}: ${metric}`)
    }
  })

  it('show where the model of each comes from: parent, data with its hash, machine, versions', async () => {
    const { page, json } = made
    expect(json.runs.map(({ parent }) => parent)).toEqual([null, 'sft'])
    expect(page).toContain('dpo: a finished run of dDPO, from sft, 4 of 4 steps.')
    const { data, sessions } = await readJson('dpo/run.json')
    expect(json.runs[1]).toMatchObject({
      training_data: data,
      sessions,
      model: { parameters: 106_816 },
    })
    expect(page).toContain(data.hash)
    expect(page).toContain('sigmoid_beta0.1.dataset.jsonl')
    expect(rowOf(page, 'examples')).toEqual(json.runs.map((run) => run.training_data!.examples))
    expect(page).toContain(`<td>${sessions[0].westwind}</td><td>${process.version}</td>`)
  })

  it('have the settings that differ marked, and only these', () => {
    const { page, json } = made
    const differ = json.recipe.filter((row) => row.differs)
    expect(differ.map(({ key }) => key)).toEqual(
      expect.arrayContaining(['model_name_or_path', 'learning_rate', 'data', 'eval_strategy']),
    )
    expect(differ.find(({ key }) => key === 'learning_rate')!.values).toEqual(['0.002', '0.0005'])
    expect(json.recipe.find(({ key }) => key === 'beta')).toEqual({
      key: 'beta',
      values: [null, '0.1'],
      differs: false,
    })
    expect(page.match(/class="differs"/g)).toHaveLength(2 * differ.length)
    expect(page).toContain('0.0005 <span class="hidden">(differs)</span>')
  })

  it('have their answers to the same items side by side', () => {
    const { page, json } = made
    expect(json.samples.map(({ id }) => id)).toEqual(['a/1', 'a/2', 'b/1'])
    expect(json.samples[1]).toEqual({
      task: 'mt-bench',
      id: 'a/2',
      prompt: 'ask a/2',
      answers: [
        { text: 'sft says a/2', score: 7 },
        { text: 'dpo says a/2', score: 7 },
      ],
    })
    const article = page.split('<article>').find((one) => one.includes('ask a/2'))!
    expect(article).toMatch(
      /<h3>sft .*score 7.*<pre>sft says a\/2<\/pre>.*<h3>dpo .*<pre>dpo says a\/2/s,
    )
  })

  it('make a page that is well formed and accessible, without script and without anything from elsewhere', () => {
    const { page } = made
    expect(unbalanced(page)).toBeUndefined()
    expect(page).toMatch(/^<!doctype html>\n<html lang="en">/)
    expect(page.match(/<h1>/g)).toHaveLength(1)
    const levels = [...page.matchAll(/<h(\d)>/g)].map(([, level]) => Number(level))
    const steps = levels.map((level, i) => level - (levels[i - 1] ?? 0))
    expect(Math.max(...steps)).toBe(1)
    expect(page.match(/<caption/g)).toHaveLength(page.match(/<table>/g)!.length)
    for (const [cell] of page.matchAll(/<th\b[^>]*>/g)) expect(cell).toMatch(/ scope="(row|col)"/)
    for (const [svg] of page.matchAll(/<svg\b[^>]*>/g))
      expect(svg).toMatch(/ role="img" aria-label=".+"/)
    expect(page.match(/<summary>Values of /g)).toHaveLength(page.match(/<svg/g)!.length)
    expect(page).toContain('prefers-color-scheme:dark')
    expect(page).not.toMatch(
      /<(script|link|img|iframe|object)\b|\bon\w+=|javascript:|@import|url\(/i,
    )
    expect(page.replaceAll('http://www.w3.org/2000/svg', '')).not.toMatch(/https?:|\bsrc=|\bhref=/)
  })
})

/** The first tag that is closed out of turn or never; attributes of our pages hold no `>`. */
function unbalanced(page: string): string | undefined {
  const open: string[] = []
  for (const [, close, name, self] of page.matchAll(/<(\/?)([a-z][a-z0-9]*)\b[^>]*?(\/?)>/g)) {
    if (name === 'meta' || self) continue
    if (!close) open.push(name!)
    else if (open.pop() !== name) return name
  }
  return open.pop()
}

describe('runs that are not whole', () => {
  it('an unfinished run tells its last values, a resumed one each start', async () => {
    const recipe = { ...keys, save_strategy: 'steps', save_steps: 2, output_dir: at('stopped') }
    await writeFile(at('stopped.yaml'), JSON.stringify(recipe))
    const stop = new AbortController()
    const onLog = ({ step }: Record<string, number>) => step === 2 && stop.abort()
    await sft(await loadRecipe('sft', at('stopped.yaml')), {
      device: 'cpu',
      signal: stop.signal,
      onLog: (line) => void onLog(line),
    })
    const { json, page } = await make([at('stopped')])
    expect(json.runs[0]).toMatchObject({
      state: 'unfinished',
      step: 2,
      max_steps: 4,
      checkpoints: [2],
    })
    expect(page).toContain('stopped: an unfinished run')
    const lines = (await readFile(at('stopped/metrics.jsonl'), 'utf8')).trim().split('\n')
    const last: Record<string, number> = JSON.parse(lines.at(-1)!)
    expect(json.metrics.find(({ name }) => name === 'loss')!.values).toEqual([last.loss])
    expect(json.problems).toEqual([])

    await sft(await loadRecipe('sft', at('stopped.yaml'), ['--resume_from_checkpoint=true']), {
      device: 'cpu',
    })
    const { json: after } = await make([at('stopped')])
    expect(after.runs[0]).toMatchObject({ state: 'finished', step: 4 })
    expect(after.runs[0]!.sessions.map(({ step }) => step)).toEqual([0, 2])
  })

  it('a run begun anew in the folder of another does not show the results of the other', async () => {
    await cp(at('sft'), at('again'), { recursive: true })
    const { finished: _, ...begun } = await readJson('again/run.json')
    await writeFile(at('again/run.json'), JSON.stringify(begun))
    const { json } = await make([at('again')])
    expect(json.runs[0]!.state).toBe('unfinished')
    expect(json.metrics.map(({ name }) => name)).not.toContain('train_loss')
    expect(json.problems).toEqual([
      expect.stringMatching(/again: all_results.json is of an earlier run/),
    ])
  })

  it('a run of a version without run.json tells what its other files say', async () => {
    await cp(at('dpo'), at('old'), { recursive: true })
    await rm(at('old/run.json'))
    const { json } = await make([at('sft'), at('old')])
    expect(json.runs[1]).toMatchObject({
      state: 'finished',
      stage: 'dpo',
      parent: 'sft',
      step: 4,
      sessions: [],
    })
    expect(json.runs[1]!.data.map(({ name }) => name)).toEqual([
      fixturePath('golden/trl_dpo/sigmoid_beta0.1.dataset.jsonl'),
    ])
    expect(json.recipe.find(({ key }) => key === 'beta')!.values).toEqual([null, '0.1'])
  })

  it('each damaged file is named on the page, and the rest is shown', async () => {
    const dir = at('damaged')
    await cp(at('dpo'), dir, { recursive: true })
    await cp(at('stopped/checkpoint-2'), join(dir, 'checkpoint-2'), { recursive: true })
    await writeFile(join(dir, 'checkpoint-2/trainer_state.json'), '{"global_step":"two"}')
    await mkdir(join(dir, 'checkpoint-3'))
    await appendFile(join(dir, 'metrics.jsonl'), 'torn{\n{"step":9}\n')
    await writeFile(join(dir, 'all_results.json'), '{"train_loss": 0.5')
    await writeFile(join(dir, 'run.json'), '{"version":7}')
    await writeFile(join(dir, 'config.json'), '[]')
    await writeFile(join(dir, 'README.md'), '---\nbase_model: [\n---\n')
    await writeFile(join(dir, 'eval/mt-bench/samples.jsonl'), '{"id":\n')
    await mkdir(join(dir, 'eval/other'))
    await writeFile(
      join(dir, 'eval/other/results.json'),
      '{"task":"other","model":"m","metrics":{"x":"high"}}',
    )
    const { json, page } = await make([dir])
    const damaged = [
      'checkpoint-2/trainer_state.json',
      'checkpoint-3/trainer_state.json',
      'metrics.jsonl:',
      'all_results.json',
      'run.json',
      'config.json',
      'README.md',
      'eval/mt-bench/samples.jsonl',
      'eval/other/results.json',
    ]
    for (const name of damaged) {
      const named = json.problems.filter((problem) => problem.includes(join(dir, name)))
      expect(named, name).toHaveLength(1)
    }
    expect(json.problems).toHaveLength(damaged.length)
    expect(page.split('<h2>Curves')[0]!.match(/<p>/g)).toHaveLength(damaged.length)
    expect(json.curves.length).toBeGreaterThan(0) // from the log that trainer_state.json has, too
    expect(json.evaluations).toHaveLength(2)
  })

  it('a checkpoint is a run that is as far as its step', async () => {
    const { json } = await make([at('stopped/checkpoint-2'), at('stopped/checkpoint-4')])
    expect(json.runs.map(({ name, state, step }) => [name, state, step])).toEqual([
      ['checkpoint-2', 'unfinished', 2],
      ['checkpoint-4', 'finished', 4],
    ])
    expect(json.curves[0]!.lines.map(({ train }) => train.length)).toEqual([2, 4])
  })

  it('an empty folder is said to be one, and a folder that is not there is an error', async () => {
    await mkdir(at('empty'))
    const { json } = await make([at('empty')])
    expect(json.problems).toEqual([`${at('empty')}: nothing of a run or a model is here`])
    await expect(make([at('nowhere')])).rejects.toThrow(`${at('nowhere')} does not exist`)
    await expect(make([at('sft'), at('sft.yaml')])).rejects.toThrow('sft.yaml does not exist')
    await expect(make([])).rejects.toThrow('report: options.runs must be the folders')
    await expect(make([at('sft')], { out: 'page.pdf' })).rejects.toThrow(
      'must be a name that ends in .html',
    )
  })
})

describe('evaluations', () => {
  it('from other folders go to the run whose model they name, and else get a column of their own', async () => {
    await evaluation(at('evals/one'), { win_rate: 0.75 }, 'x', {
      task: 'alpaca',
      model_path: at('sft'),
    })
    await evaluation(at('evals/two'), { win_rate: 0.5 }, 'dpo', { task: 'alpaca' })
    await evaluation(at('evals/three'), { win_rate: null }, 'gpt', { task: 'alpaca', groups: {} })
    const { json, page } = await make([at('sft'), at('dpo')], { eval: [at('evals')] })
    expect(json.runs.map(({ name }) => name)).toEqual(['sft', 'dpo', 'gpt'])
    const row = json.evaluations.find(({ metric }) => metric === 'win_rate')
    expect(row!.values.map((score) => score?.value)).toEqual([0.75, 0.5, null])
    expect(page).toContain('gpt: a model, without a run of training.')
  })

  it('made with other settings are said to be', async () => {
    await evaluation(at('judges/a'), { score: 5 }, 'a', { settings: { judge: 'one', n: 1 } })
    await evaluation(at('judges/b'), { score: 6 }, 'b', { settings: { judge: 'two', n: 1 } })
    const { json, page } = await make([], { eval: [at('judges')] })
    expect(json.problems).toEqual([
      'mt-bench: not all runs were evaluated with the same settings: judge is one, two',
    ])
    expect(json.settings).toEqual([
      {
        task: 'mt-bench',
        rows: [
          { key: 'judge', values: ['one', 'two'], differs: true },
          { key: 'n', values: ['1', '1'], differs: false },
        ],
      },
    ])
    expect(page).toContain('<caption>mt-bench: settings that differ</caption>')
  })

  it('have answers side by side only where id and prompt are the same', async () => {
    await evaluation(at('items/a'), {}, 'a')
    await evaluation(at('items/b'), {}, 'b')
    const other = { id: 'a/1', prompt: 'something else', answer: 'b says another thing' }
    await appendFile(at('items/b/samples.jsonl'), `${JSON.stringify(other)}\n`)
    const { json } = await make([], { eval: [at('items')] })
    expect(json.samples).toHaveLength(3)
    for (const { answers } of json.samples) expect(answers).not.toContain(null)
    expect(json.samples.map(({ prompt }) => prompt)).not.toContain('something else')
  })

  it('of one task, the newer counts and the older is named', async () => {
    await evaluation(at('twice/a'), { score: 5 }, 'm', { date: '2026-01-01T00:00:00Z' })
    await evaluation(at('twice/b'), { score: 6 }, 'm', { date: '2026-02-01T00:00:00Z' })
    const { json } = await make([], { eval: [at('twice')] })
    expect(json.evaluations[0]!.values[0]!.value).toBe(6)
    expect(json.problems[0]).toContain(
      `${at('twice/a/results.json')}: m has a newer result of mt-bench`,
    )
  })
})

it('the manifest of feedback data is shown, and a file that changed since is named', async () => {
  await mkdir(at('pairs'))
  await writeFile(at('pairs/train_prefs.jsonl'), 'changed\n')
  const files = { 'train_prefs.jsonl': { rows: 1, sha256: '0'.repeat(64) } }
  await writeFile(
    at('pairs/manifest.json'),
    JSON.stringify({ rule: 'random', judge: 'the teacher', files }),
  )
  await cp(at('dpo'), at('fed'), { recursive: true })
  const record = await readJson('fed/run.json')
  record.recipe.data = {
    kind: 'mixer',
    sources: [{ id: at('pairs'), fraction: 1 }],
    splits: ['train_prefs'],
  }
  await writeFile(at('fed/run.json'), JSON.stringify(record))
  const { json, page } = await make([at('fed')])
  expect(json.runs[0]!.data[0]).toMatchObject({
    name: at('pairs'),
    manifest: { judge: 'the teacher' },
  })
  expect(page).toContain('<th scope="row">judge</th><td>the teacher</td>')
  expect(page).toContain('<th scope="row">files: train_prefs.jsonl: rows</th><td>1</td>')
  expect(json.problems).toEqual([
    expect.stringMatching(/train_prefs.jsonl: changed since .*manifest.json/),
  ])
})

it('of a long log a line keeps some hundred points and every peak', async () => {
  await mkdir(at('long'))
  const lines = Array.from({ length: 20_000 }, (_, i) => ({
    step: i + 1,
    loss: i === 12_345 ? 99 : Math.sin(i),
  }))
  await writeFile(
    at('long/metrics.jsonl'),
    lines.map((line) => `${JSON.stringify(line)}\n`).join(''),
  )
  const { json } = await make([at('long')])
  const points = json.curves[0]!.lines[0]!.train
  expect(points.length).toBeLessThanOrEqual(600)
  expect(points).toContainEqual([12_346, 99])
})

it('lets no text of runs, evaluations and manifests become markup', async () => {
  const hostile = '<img src=x onerror=alert(1)> "\' </pre></style><script>alert(2)</script> &'
  const dir = at('a<b onload=x>&"\'')
  await cp(at('dpo'), dir, { recursive: true })
  const record = JSON.parse(await readFile(join(dir, 'run.json'), 'utf8'))
  Object.assign(record.recipe, { [hostile]: hostile, run_name: hostile, data: { name: hostile } })
  Object.assign(record.data.dropped, { [hostile]: 1 })
  Object.assign(record.model, { architecture: hostile })
  Object.assign(record.sessions[0], { processor: hostile, westwind: hostile, node: hostile })
  await writeFile(join(dir, 'run.json'), JSON.stringify(record))
  await writeFile(join(dir, 'all_results.json'), JSON.stringify({ [hostile]: 1, __proto__: 2 }))
  const results = { task: hostile, model: hostile, metrics: { [hostile]: 1 } }
  const settings = { settings: { [hostile]: hostile }, groups: { [hostile]: { [hostile]: 3 } } }
  const eval_ = join(dir, 'eval/hostile')
  await mkdir(eval_)
  await writeFile(
    join(eval_, 'results.json'),
    JSON.stringify({ ...results, ...settings, samples: 's.jsonl' }),
  )
  const sample = { id: hostile, prompt: hostile, answer: hostile }
  await writeFile(join(eval_, 's.jsonl'), `${JSON.stringify(sample)}\n`)
  const { page } = await make([dir, at('sft')])
  expect(page).not.toMatch(/<img|<script/)
  expect(page.match(/<\/style>/g)).toHaveLength(1 + page.match(/<svg/g)!.length)
  expect(unbalanced(page)).toBeUndefined()
  expect(page).toContain('&lt;img src=x onerror=alert(1)&gt;')
})

it.skipIf(!cliBuilt)(
  'on the command line, says where the page is and, as notes, what is wrong',
  async () => {
    const out = at('cli.html')
    const { code, stdout, stderr } = await westwind([
      'report',
      at('sft'),
      at('empty'),
      '--out',
      out,
    ])
    expect(code).toBe(0)
    expect(stdout).toBe(`${out}\n${at('cli.json')}\n`)
    expect(stderr).toBe(`note: ${at('empty')}: nothing of a run or a model is here\n`)
  },
)
