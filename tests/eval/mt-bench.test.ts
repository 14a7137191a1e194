import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { openCpu } from '../../src/device/device.js'
import { mtBench } from '../../src/eval/mt-bench/mt-bench.js'
import { judgeRequest, readJudgePrompts } from '../../src/eval/mt-bench/prompts.js'
import { type Answer, readAnswers, readQuestions } from '../../src/eval/mt-bench/questions.js'
import { ratingOf, readJudgments, scoreJudgments } from '../../src/eval/mt-bench/score.js'
import { generate } from '../../src/model/generate.js'
import { loadModel } from '../../src/model/model.js'
import { saveModel } from '../../src/train/run.js'
import { cliBuilt, westwind } from '../support/cli.js'
import { jsonLines, readJson } from '../support/fixtures.js'
import { sharedPath } from '../support/shared.js'
import { randomModel } from '../support/small-models.js'
import {
  type ChatRequest,
  type Reply,
  startTeacher,
  type TeacherServer,
} from '../support/teacher.js'

const shared = sharedPath('data/mt_bench')

describe('ratingOf', () => {
  it.each([
    ['Good. Rating: [[7]]', 7],
    ['[[8.5]] and then [[3]]', 8.5],
    ['see [1], but [[4]]', 4],
    ['Rating: [6]', 6],
    ['Rating: [9.] of [10]', 9],
    ['Rating: 7/10', -1],
    ['[[seven]] [-3] [[-1]] [[1,2]]', -1],
    ['', -1],
  ])('of %j is %d', (judgment, rating) => {
    expect(ratingOf(judgment)).toBe(rating)
  })
})

describe.skipIf(!shared)('with the published judgments of GPT-4 (shared data)', () => {
  const file = `${shared}/model_judgment/gpt-4_single.jsonl.gz`

  it('the scores are the expected ones, to the last bit', async () => {
    const scores = scoreJudgments(await readJudgments(file))
    const rows = scores.flatMap(({ model, score, n, turns }) => [
      { model, turn: 'mean', n, score },
      ...Object.entries(turns).map(([turn, one]) => ({ model, turn: Number(turn), ...one })),
    ])
    const expected = jsonLines<object>(`${shared}/expected_scores.jsonl`)
    expect(rows).toHaveLength(expected.length)
    expect(rows).toEqual(expect.arrayContaining(expected))
  })

  it('every recorded rating is the one read from its text', async () => {
    const judgments = await readJudgments(file)
    expect(judgments).toHaveLength(384)
    expect(judgments.map(({ judgment }) => ratingOf(judgment))).toEqual(
      judgments.map(({ score }) => score),
    )
  })

  it("from FastChat's prompts comes every recorded user prompt, byte for byte", async () => {
    const prompts = await readJudgePrompts(`${shared}/judge_prompts.jsonl`)
    const questions = await readQuestions(`${shared}/question.jsonl`)
    const references = await readAnswers(`${shared}/reference_answer/gpt-4.jsonl`)
    const judgments = await readJudgments(file)
    let compared = 0
    for (const model of new Set(judgments.map((one) => one.model))) {
      const answers = await readAnswers(`${shared}/model_answer/${model}.jsonl`)
      for (const one of judgments.filter((judgment) => judgment.model === model)) {
        const id = one.question_id
        const question = questions.find(({ question_id }) => question_id === id)!
        const request = judgeRequest(
          prompts,
          question,
          answers.get(id)!,
          references.get(id),
          one.turn,
        )
        expect(request.user_prompt).toBe(one.user_prompt)
        expect(request.prompt.name).toBe(one.judge[1])
        compared++
      }
    }
    expect(compared).toBe(384)
  })

  it('judgments of pairs are refused, not taken for ratings', async () => {
    await expect(readJudgments(`${shared}/model_judgment/gpt-4_pair.jsonl.gz`)).rejects.toThrow(
      /gpt-4_pair.jsonl.gz:1: model: /,
    )
  })
})

const dir = mkdtempSync(join(tmpdir(), 'westwind-mt-bench-'))
const modelDir = join(dir, 'tiny')
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const categories = ['writing', 'math', 'stem']
const questionsFile = lines(
  'question.jsonl',
  Array.from({ length: 6 }, (_, i) => ({
    question_id: 101 + i,
    category: categories[i % 3],
    turns: [`Question ${i}?`, `And then ${i}?`],
    reference: ['not', 'read'],
  })),
)
const references = lines(
  'reference.jsonl',
  [102, 105].map((question_id) => answer(question_id, 'gpt-4', [`REF1 of ${question_id}`, 'REF2'])),
)
const given = lines(
  'given.jsonl',
  Array.from({ length: 6 }, (_, i) => answer(101 + i, 'given', [`ONE {x} ${i}`, `TWO $& ${i}`])),
)

function lines(name: string, rows: object[]): string {
  const path = join(dir, name)
  writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  return path
}

function answer(question_id: number, model_id: string, turns: string[]): Answer {
  const choices = [{ index: 0, turns }]
  return { question_id, answer_id: `a${question_id}`, model_id, choices, tstamp: 1 }
}

let teacher: TeacherServer | undefined
afterEach(() => teacher?.close())

const promptOf = ({ messages }: ChatRequest) => messages.at(-1)!.content
const judged = (script: (request: ChatRequest, times: number) => Reply) => async () => {
  teacher = await startTeacher(script)
  return { model: 'gpt-4', baseUrl: teacher.url }
}

describe('a judge pass', () => {
  it('asks once per turn, beside the reference where there is one, and writes the format of FastChat', async () => {
    const judge = await judged(() => ({ text: 'Fine. [[7.5]]' }))()
    const out = join(dir, 'judged')
    const options = { questions: questionsFile, answers: given, references, judge, out }
    const { scores } = await mtBench(options)
    expect(scores).toMatchObject({ model: 'given', score: 7.5, n: 12, unrated: 0 })
    expect(Object.keys(scores!.categories)).toEqual(categories)
    const file = join(out, 'model_judgment/gpt-4_single.jsonl')
    const judgments = await readJudgments(file)
    const prompts = await readJudgePrompts()
    expect(judgments.map(({ turn, question_id }) => `${turn}/${question_id}`)).toEqual(
      [1, 2].flatMap((turn) => [101, 102, 103, 104, 105, 106].map((id) => `${turn}/${id}`)),
    )
    for (const { question_id, turn, judge: by, user_prompt, judge_model } of judgments) {
      const kind = [102, 105].includes(question_id) ? 'single-math-v1' : 'single-v1'
      expect(by).toEqual(['gpt-4', turn === 1 ? kind : `${kind}-multi-turn`])
      expect(judge_model).toBe('gpt-4-0613')
      expect(user_prompt.includes('REF1')).toBe(kind === 'single-math-v1')
      expect(user_prompt).toContain(`ONE {x} ${question_id - 101}`)
      expect(user_prompt.includes('TWO $&')).toBe(turn === 2)
      const { request } = teacher!.log.find((one) => promptOf(one.request) === user_prompt)!
      const { system_prompt } = Object.values(prompts).find(({ name }) => name === by[1])!
      expect(request.messages[0]).toEqual({ role: 'system', content: system_prompt })
      expect(request).toMatchObject({ temperature: 0, max_tokens: 2048 })
    }
    expect(teacher!.log).toHaveLength(12)
    const text = readFileSync(file, 'utf8')
    await mtBench(options)
    expect(teacher!.log).toHaveLength(12)
    expect(readFileSync(file, 'utf8')).toBe(text)
    await mtBench({ ...options, modelId: 'other' })
    expect((await readJudgments(file)).filter(({ model }) => model === 'given')).toEqual(judgments)
    expect(readJson(join(out, 'results.json'))).toMatchObject({
      task: 'mt-bench',
      metrics: { score: 7.5, turn_1: 7.5, turn_2: 7.5, n: 12, unrated: 0, questions: 6 },
      groups: { math: { score: 7.5, n: 4 } },
      settings: { judge: 'gpt-4', judge_model: ['gpt-4-0613'], judge_prompts: 'westwind' },
    })
    const samples = jsonLines(join(out, 'samples.jsonl'))
    expect(samples).toHaveLength(12)
    expect(samples[0]).toMatchObject({
      id: '101/1',
      prompt: 'Question 0?',
      answer: 'ONE {x} 0',
      score: 7.5,
    })
  })

  it('garbage scores -1, is counted, and stays out of the means', async () => {
    const judge = await judged((request) => {
      const prompt = promptOf(request)
      if (prompt.includes('ONE {x} 0')) return { text: 'I would rather not.' }
      if (prompt.includes('ONE {x} 3')) return { text: '', refusal: 'no' }
      if (prompt.includes('ONE {x} 5')) return { status: 400, message: 'too many tokens: too long' }
      return { text: '[[10]]' }
    })()
    const out = join(dir, 'garbage')
    const { scores } = await mtBench({
      questions: questionsFile,
      answers: given,
      references,
      judge,
      out,
    })
    expect(scores).toMatchObject({ score: 10, n: 6, unrated: 6 })
    expect(scores!.categories).toEqual({
      math: { score: 10, n: 4, turns: { 1: { score: 10, n: 2 }, 2: { score: 10, n: 2 } } },
      stem: { score: 10, n: 2, turns: { 1: { score: 10, n: 1 }, 2: { score: 10, n: 1 } } },
    })
  })

  it('without the references nothing is asked', async () => {
    const judge = await judged(() => ({ text: '[[1]]' }))()
    const options = { questions: questionsFile, answers: given, judge, out: join(dir, 'no-ref') }
    await expect(mtBench(options)).rejects.toThrow(
      /--references FILE\): none: no reference answer to 2/,
    )
    expect(teacher!.log).toHaveLength(0)
  })

  it.skipIf(!cliBuilt)('killed in the middle, it goes on and pays for nothing twice', async () => {
    const judge = await judged(() => ({ text: '[[5]]', afterMs: 60 }))()
    const out = join(dir, 'killed')
    const args = ['eval', 'mt-bench', '--questions', questionsFile, '--answers', given]
    args.push(
      '--references',
      references,
      '--judge-model',
      'gpt-4',
      '--judge-base-url',
      judge.baseUrl,
    )
    args.push('--concurrency', '2', '--out', out)
    const program = join(import.meta.dirname, '../../bin/westwind.js')
    const child = spawn(process.execPath, [program, ...args], { stdio: 'ignore' })
    const ended = new Promise((resolve) => child.on('close', resolve))
    while (teacher!.log.length < 6) await sleep(5)
    child.kill('SIGKILL')
    await ended
    const { code, stdout } = await westwind(args)
    expect(code).toBe(0)
    expect(stdout).toMatch(/^all +5\.00 +5\.00 +5\.00 +12$/m)
    const paid = teacher!.log.map(({ request }) => JSON.stringify(request))
    expect(new Set(paid).size).toBe(12)
    expect(paid.length).toBeLessThanOrEqual(12 + 2) // what was in flight
  })
})

it.skipIf(!shared)(
  "GPT-4's recorded replies, given again over HTTP, score as expected (shared data)",
  async () => {
    const model = 'claude-3-opus-20240229'
    const recorded = await readJudgments(`${shared}/model_judgment/gpt-4_single.jsonl.gz`)
    const replies = new Map(recorded.map(({ user_prompt, judgment }) => [user_prompt, judgment]))
    const judge = await judged((request) => {
      const text = replies.get(promptOf(request))
      return text === undefined ? { status: 404, message: 'never asked' } : { text }
    })()
    const { scores } = await mtBench({
      questions: `${shared}/question.jsonl`,
      answers: `${shared}/model_answer/${model}.jsonl`,
      references: `${shared}/reference_answer/gpt-4.jsonl`,
      judgePrompts: `${shared}/judge_prompts.jsonl`,
      judge,
      out: join(dir, 'recorded'),
    })
    expect(scores).toMatchObject({ model, score: 8.5859375, n: 128, unrated: 0 })
    expect([scores!.turns[1], scores!.turns[2]]).toEqual([
      { score: 9.0234375, n: 64 },
      { score: 8.1484375, n: 64 },
    ])
  },
)

describe('answers', () => {
  it('of a local model: those of generate, two turns, sorted; a second run computes nothing', async () => {
    using fresh = randomModel(openCpu(), { window: null })
    await saveModel(modelDir, fresh, { ...fresh.tokenizer?.files })
    const shuffled = lines('shuffled.jsonl', jsonLines<object>(questionsFile).reverse())
    const options = { model: modelDir, questions: shuffled, maxNewTokens: 6, device: 'cpu' }
    const { out } = await mtBench(options)
    expect(out).toBe(join(modelDir, 'eval/mt-bench'))
    const file = join(out, 'model_answer/tiny.jsonl')
    const answers = [...(await readAnswers(file)).values()]
    expect(answers.map(({ question_id }) => question_id)).toEqual([101, 102, 103, 104, 105, 106])
    using model = await loadModel(modelDir, { device: 'cpu' })
    const math = [105, 102].map((id) => answers.find(({ question_id }) => question_id === id)!)
    const first = math.map(({ question_id }) => [
      { role: 'user', content: `Question ${question_id - 101}?` },
    ])
    const one = (await generate(model, first, { maxNewTokens: 6 })).map(({ text }) => text.trim())
    const second = first.map((turn, i) => [
      ...turn,
      { role: 'assistant', content: one[i]! },
      { role: 'user', content: `And then ${math[i]!.question_id - 101}?` },
    ])
    const two = (await generate(model, second, { maxNewTokens: 6 })).map(({ text }) => text.trim())
    expect(math.map(({ choices }) => choices[0]!.turns)).toEqual(
      [0, 1].map((i) => [one[i], two[i]]),
    )
    const journal = readFileSync(join(out, 'journal.jsonl'), 'utf8')
    await mtBench({ ...options, batchSize: 1 })
    expect(readFileSync(join(out, 'journal.jsonl'), 'utf8')).toBe(journal)
    const elsewhere = join(dir, 'elsewhere')
    await mtBench({ ...options, batchSize: 1, out: elsewhere })
    const again = await readAnswers(join(elsewhere, 'model_answer/tiny.jsonl'))
    expect([...again.values()].map(({ choices }) => choices)).toEqual(
      answers.map(({ choices }) => choices),
    )
  })

  it('a conversation that fills the context gets an empty answer, and is counted', async () => {
    const long = [{ question_id: 1, category: 'writing', turns: ['word '.repeat(400), 'And?'] }]
    const questions = lines('long.jsonl', long)
    const { out } = await mtBench({
      model: modelDir,
      questions,
      out: join(dir, 'long'),
      device: 'cpu',
    })
    const { metrics } = readJson<{ metrics: object }>(join(out, 'results.json'))
    expect(metrics).toMatchObject({ no_room: 2, truncated: 0, avg_length: 0 })
  })

  it('of an endpoint: temperatures by category, the first answer in the second conversation', async () => {
    teacher = await startTeacher((request) => ({ text: ` about ${promptOf(request)} ` }))
    const out = join(dir, 'endpoint')
    const options = { model: 'org/served', baseUrl: teacher.url, questions: questionsFile, out }
    await mtBench({ ...options, system: 'Be kind.' })
    const { request } = teacher.log.find((one) => promptOf(one.request) === 'And then 2?')!
    expect(request).toMatchObject({
      model: 'org/served',
      temperature: 0.1,
      max_tokens: 1024,
      seed: 1,
    })
    expect(request.messages).toEqual([
      { role: 'system', content: 'Be kind.' },
      { role: 'user', content: 'Question 2?' },
      { role: 'assistant', content: 'about Question 2?' },
      { role: 'user', content: 'And then 2?' },
    ])
    const answers = await readAnswers(join(out, 'model_answer/org_served.jsonl'))
    expect(answers.get(103)!.choices[0]!.turns).toEqual(['about Question 2?', 'about And then 2?'])
    await mtBench({ ...options, system: 'Be kind.' })
    expect(teacher.log).toHaveLength(12)
  })
})
