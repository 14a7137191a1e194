import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { device } from '../../src/device/device.js'
import { outcomeOf } from '../../src/quickstart/compare.js'
import { dialogues, partOf, tasksOf } from '../../src/quickstart/data.js'
import { quickstart } from '../../src/quickstart/quickstart.js'
import { seeded } from '../../src/quickstart/random.js'
import { dpoRecipe, layout, pipelineYaml, sftRecipe } from '../../src/quickstart/recipes.js'
import { fullSizes, type Sizes } from '../../src/quickstart/sizes.js'
import { type Task, taskKey } from '../../src/quickstart/tasks.js'
import { judge, points } from '../../src/quickstart/teacher.js'
import { ratingOf, serveTeacher, teacherPort } from '../../src/quickstart/teacher-server.js'

let root: string
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'westwind-quickstart-'))
  process.env.WESTWIND_CACHE = join(root, 'cache')
})
afterAll(() => rm(root, { recursive: true, force: true }))

const tiny: Sizes = {
  model: { hidden: 32, layers: 1, heads: 2, intermediate: 64, init: 0.08, theta: 1000 },
  tokenizer: { vocabSize: 400 },
  sft: { dialogues: 300, testDialogues: 20, steps: 12, rows: 1, learningRate: 3e-3 },
  feedback: { prompts: 16, testPrompts: 8, answers: 3 },
  dpo: { epochs: 1, pairs: 8, learningRate: 1e-4 },
  evalPrompts: 6,
}

describe('the data', () => {
  it('is the same for the same seed and another for another', () => {
    expect(dialogues('dialogues', 20, 1, 0)).toEqual(dialogues('dialogues', 20, 1, 0))
    expect(dialogues('dialogues', 20, 1, 0)).not.toEqual(dialogues('dialogues', 20, 2, 0))
  })

  it('no held-out prompt shares its words with one that is trained on', () => {
    const seen = new Set(
      (['dialogues', 'preferences'] as const).flatMap((part) =>
        tasksOf(part, 2000, seeded(3, 0)).map(taskKey),
      ),
    )
    for (const task of tasksOf('held out', 300, seeded(4, 0))) {
      expect(partOf(task)).toBe('held out')
      expect(seen.has(taskKey(task))).toBe(false)
    }
  })
})

describe('the teacher', () => {
  const tasks = tasksOf('dialogues', 60, seeded(5, 0))

  it('gives all points to a right, courteous, brief sentence', () => {
    const all = Object.values(points).reduce((a, b) => a + b, 0)
    for (const task of tasks)
      expect(judge(task, `Sure! ${task.sentence(task.answer)}`).score).toBe(all)
  })

  it('a wrong answer, a missing one and a second one are not right', () => {
    for (const task of tasks) {
      const wrong = task.mistake(seeded(6, 0))
      expect(judge(task, `Sure! ${task.sentence(wrong)}`).correct).toBe(false)
      expect(judge(task, '').score).toBe(0)
      const twice = `${task.sentence(task.answer)} ${task.sentence(task.answer)}`
      expect(judge(task, twice).correct).toBe(false)
    }
  })

  it('as an endpoint it scores answers of a judging request as it does itself', async () => {
    const server = await serveTeacher(tasks)
    const [task] = tasks as [Task]
    const right = `Sure! ${task.sentence(task.answer)}`
    const ask = (content: string) =>
      fetch(`${server.url}/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'four-rules', messages: [{ role: 'user', content }] }),
      })
    const marked = (name: string, text: string) =>
      `<<1a ${name}>>\n${text}\n<<1a end of ${name}>>\n`
    const answers = marked('answer 1', 'what?') + marked('answer 2', right)
    const reply = await ask(marked('instruction', task.prompt) + answers)
    const { choices } = (await reply.json()) as { choices: { message: { content: string } }[] }
    expect(JSON.parse(choices[0]!.message.content)).toMatchObject({
      answer_1: { rating: ratingOf(judge(task, 'what?').score) },
      answer_2: { rating: 10, rationale: 'correct, sentence, courteous, brief' },
    })
    expect((await ask(marked('instruction', 'another prompt') + answers)).status).toBe(400)
    expect((await ask('hello')).status).toBe(400)
    await server.close()
  })
})

it('examples/quickstart is what the quickstart writes and runs', async () => {
  const paths = layout('runs/quickstart')
  const url = `http://127.0.0.1:${teacherPort}/v1`
  const written = {
    'sft.yaml': sftRecipe(paths, 584, fullSizes, 42),
    'dpo.yaml': dpoRecipe(paths, fullSizes, 42),
    'pipeline.yaml': pipelineYaml(paths, fullSizes, 42, url),
  }
  for (const [name, text] of Object.entries(written)) {
    const file = new URL(`../../examples/quickstart/${name}`, import.meta.url)
    expect(await readFile(file, 'utf8'), name).toBe(text)
  }
})

it('ties count half in the win rate', () => {
  const at = (sft: number, aligned: number) => ({
    task: tasksOf('dialogues', 1, seeded(1, 0))[0]!,
    sft: { text: '', score: sft, correct: true, sentence: true, courteous: true, brief: true },
    aligned: {
      text: '',
      score: aligned,
      correct: true,
      sentence: true,
      courteous: true,
      brief: true,
    },
  })
  const outcome = outcomeOf([at(1, 2), at(3, 2), at(2, 2), at(0, 9)])
  expect(outcome).toEqual({ winRate: 0.625, wins: 2, ties: 1, losses: 1 })
})

it('a miniature run leaves its report and the models, the same ones every time', async () => {
  const runs = []
  for (const name of ['a', 'b']) {
    const out = join(root, name)
    const report = await quickstart({ out, sizes: tiny, seed: 3 })
    const json = JSON.parse(await readFile(join(out, 'report.json'), 'utf8')) as typeof report
    expect(json.winRate).toBe(report.winRate)
    expect(json.evalPrompts).toBe(6)
    for (const key of ['sftLoss', 'rewardAccuracy', 'seconds'] as const) {
      expect(Number.isFinite(json[key])).toBe(true)
    }
    const html = await readFile(join(out, 'report.html'), 'utf8')
    expect(html).toContain('<svg')
    expect(html).not.toMatch(/src="http|href="http/)
    const weights = await readFile(join(out, 'dpo/model.safetensors'))
    const { winRate, sftLoss, rewardAccuracy, scores } = report
    runs.push({ winRate, sftLoss, rewardAccuracy, scores, weights: weights.toString('base64') })
  }
  expect(runs[0]).toEqual(runs[1])
  const again = await quickstart({ out: join(root, 'a'), sizes: tiny, seed: 3 })
  expect(again.winRate).toBe(runs[0]!.winRate)
  expect(await readdir(join(root, 'a'))).not.toContain('previous')
  expect(device('cpu').stats()).toMatchObject({ liveBytes: 0, forgottenTensors: 0 })
})
