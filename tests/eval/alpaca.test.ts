import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { compileTemplate, zephyrTemplate } from '../../src/data/chat-template.js'
import { openCpu } from '../../src/device/device.js'
import { alpacaEval } from '../../src/eval/alpaca/alpaca-eval.js'
import { isSwapped } from '../../src/eval/alpaca/judge.js'
import { averageLength, readOutputs } from '../../src/eval/alpaca/outputs.js'
import { annotationWinRates, winRate } from '../../src/eval/alpaca/score.js'
import {
  ownPrompt,
  rankVerdict,
  readJudgePrompt,
  verdictOf,
} from '../../src/eval/alpaca/verdict.js'
import { generate } from '../../src/model/generate.js'
import { loadModel } from '../../src/model/model.js'
import { seedOf } from '../../src/model/random.js'
import { saveModel } from '../../src/train/run.js'
import { jsonLines, readJson } from '../support/fixtures.js'
import { sharedPath } from '../support/shared.js'
import { randomModel } from '../support/small-models.js'
import {
  type ChatRequest,
  chance,
  type Reply,
  startTeacher,
  type TeacherServer,
} from '../support/teacher.js'

const shared = sharedPath('data/alpaca_eval')
const dir = mkdtempSync(join(tmpdir(), 'westwind-alpaca-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

describe('winRate', () => {
  it('counts draws half, leaves out what is no preference, and gives the error of the mean', () => {
    expect(winRate([2, 2, 1, 0, 1.5, 1.75, null, 7, Number.NaN])).toEqual({
      win_rate: (100 * 3.75) / 6,
      standard_error: expect.closeTo(
        100 * Math.sqrt((2 * 0.375 ** 2 + 0.625 ** 2 + 2 * 0.125 ** 2 + 0.125 ** 2) / 5 / 6),
        12,
      ),
      n_wins: 3,
      n_wins_base: 1,
      n_draws: 2,
      n_total: 6,
      discrete_win_rate: (100 * 4) / 6,
    })
  })

  it('has no value without preferences, and no error of a single one', () => {
    expect(winRate([null])).toMatchObject({ win_rate: null, standard_error: null, n_total: 0 })
    expect(winRate([2])).toMatchObject({ win_rate: 100, standard_error: null, n_total: 1 })
  })
})

describe.skipIf(!shared)('with the published annotations (shared data)', () => {
  it('all 133 win rates are the expected ones, to 12 digits', async () => {
    const runs = await annotationWinRates(`${shared}/annotations.parquet`)
    const expected = jsonLines<{ judge: string; model: string; n: number; win_rate: number }>(
      `${shared}/expected_winrates.jsonl`,
    )
    expect(runs).toHaveLength(133)
    expect(expected).toHaveLength(133)
    for (const { judge, model, n, win_rate } of expected) {
      const found = runs.filter((run) => run.annotator === judge && run.model === model)
      expect(found, `${judge} ${model}`).toHaveLength(1)
      expect(found[0]!.n_total).toBe(n)
      expect(Math.abs(found[0]!.win_rate! - win_rate)).toBeLessThan(1e-12 * Math.max(1, win_rate))
    }
  })

  it('lengths are those of the table: Unicode code points', async () => {
    const outputs = await readOutputs(`${shared}/outputs/zephyr-7b-beta.json.gz`)
    expect(averageLength(outputs)).toBeCloseTo(1430.5856697819315, 9)
  })
})

describe('verdicts', () => {
  it.each([
    ["[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]", 1],
    ['[{"model":"model_2","rank":1},{"model":"model_1","rank":2}]', 2],
    ['Sure: [{"model": "model_1", "rank": 1}, {"model": "model_2", "rank": 1}]', 1.5],
    ['[{"model": "model_1", "rank": 1}]', null],
    ['[{"model": "model_1", "rank": 1}, {"model": "model_1", "rank": 2}]', null],
    ['[{"model": "model_1", "rank": 3}, {"model": "model_2", "rank": 9}]', null],
    ['I cannot choose.', null],
  ])('of the list %j is %j', (text, preference) => {
    expect(rankVerdict(text)).toBe(preference)
  })

  const answer = (top: Record<string, number>) => {
    const top_logprobs = Object.entries(top).map(([token, p]) => ({ token, logprob: Math.log(p) }))
    const logprobs = [{ token: 'm', logprob: 0, top_logprobs }]
    const usage = { prompt_tokens: 1, completion_tokens: 1 }
    return { text: 'm', finish_reason: 'stop', usage, model: 'judge', logprobs }
  }

  it('weighted: the probability of M beside m, whatever else is likely', () => {
    expect(verdictOf('weighted', answer({ m: 0.3, M: 0.1, The: 0.6 }))).toBeCloseTo(1.25, 12)
    expect(verdictOf('weighted', answer({ M: 0.9, Neither: 0.1 }))).toBe(2)
    expect(verdictOf('weighted', answer({ Neither: 1 }))).toBe(null)
  })

  it('weighted: an endpoint without log-probabilities is an error that says what to do', () => {
    const { logprobs: _, ...without } = answer({})
    expect(() => verdictOf('weighted', without)).toThrow(
      /no log-probabilities .*--judge-method rank/,
    )
  })

  it('a prompt file fills its three places once, and needs all of them', async () => {
    const file = join(dir, 'prompt.txt')
    writeFileSync(
      file,
      '<|im_start|>system\nBe fair.\n<|im_end|>\n<|im_start|>user\n{"q": "{instruction}"}\n{output_1}|{output_2}\n<|im_end|>',
    )
    const prompt = await readJudgePrompt(file)
    expect(prompt('$& {output_1}', 'a', 'b')).toEqual([
      { role: 'system', content: 'Be fair.' },
      { role: 'user', content: '{"q": "$& {output_1}"}\na|b' },
    ])
    writeFileSync(file, '<|im_start|>user\n{instruction} {output_1}\n<|im_end|>')
    await expect(readJudgePrompt(file)).rejects.toThrow(/prompt.txt: no \{output_2\} in a turn/)
  })
})

const instructions = Array.from({ length: 24 }, (_, i) => `Task ${i}: write something.`)
const outputs = (name: string, generator: string, text: (i: number) => string) => {
  const path = join(dir, name)
  const rows = instructions.map((instruction, i) => {
    return { dataset: i % 2 ? 'odd' : 'even', instruction, output: text(i), generator }
  })
  writeFileSync(path, JSON.stringify(rows))
  return path
}
/** Of equal outputs there are three: nobody is to be asked about them. */
const mine = outputs('mine.json', 'mine', (i) => (i < 3 ? 'same' : `GOOD ${i}`))
const theirs = outputs('theirs.json', 'theirs', (i) => (i < 3 ? 'same' : `BAD ${i}`))

let teacher: TeacherServer | undefined
afterEach(() => teacher?.close())

/** A judge that knows that GOOD is better, by log-probability 0.9 or by list. */
function fair({ messages, logprobs }: ChatRequest): Reply {
  const shown = messages.at(-1)!.content
  const goodFirst = shown.indexOf('GOOD') < shown.indexOf('BAD')
  if (!logprobs) {
    const [best, other] = goodFirst ? ['model_1', 'model_2'] : ['model_2', 'model_1']
    return { text: `[{"model": "${best}", "rank": 1}, {"model": "${other}", "rank": 2}]` }
  }
  const token = goodFirst ? 'm' : 'M'
  const top_logprobs = [
    { token, logprob: Math.log(0.9) },
    { token: goodFirst ? 'M' : 'm', logprob: Math.log(0.1) },
  ]
  return { text: token, logprobs: { content: [{ token, logprob: Math.log(0.9), top_logprobs }] } }
}

describe('a judge pass', () => {
  it.each(['weighted', 'rank'] as const)(
    '%s: swaps half, and turns the verdicts back',
    async (judgeMethod) => {
      teacher = await startTeacher(fair)
      const judge = { model: 'judge', baseUrl: teacher.url }
      const out = join(dir, judgeMethod)
      const result = await alpacaEval({ outputs: mine, reference: theirs, judge, judgeMethod, out })
      const one = judgeMethod === 'rank' ? 2 : 1.9
      const annotations = readJson<Record<string, unknown>[]>(join(out, 'annotations.json'))
      const asked = annotations.slice(3)
      expect(annotations.slice(0, 3).map(({ preference }) => preference)).toEqual([1.5, 1.5, 1.5])
      for (const { preference } of asked) expect(preference).toBeCloseTo(one, 12)
      expect(teacher.log).toHaveLength(21)
      const swapped = asked.filter((row) => row.swapped).length
      expect(swapped).toBeGreaterThan(4)
      expect(swapped).toBeLessThan(17)
      for (const { instruction, swapped } of annotations) {
        expect(swapped).toBe(isSwapped(0, String(instruction)))
      }
      expect(result.scores?.win_rate).toBeCloseTo((100 * (1.5 + 21 * (one - 1))) / 24, 10)
      const [request] = teacher.log.map((entry) => entry.request)
      const expected =
        judgeMethod === 'rank'
          ? { temperature: 0, max_tokens: 100 }
          : { temperature: 1, max_tokens: 1, logprobs: true, top_logprobs: 5 }
      expect(request).toMatchObject(expected)
      const csv = readFileSync(join(out, 'leaderboard.csv'), 'utf8').split('\n')
      expect(csv[0]).toBe(
        ',win_rate,standard_error,n_wins,n_wins_base,n_draws,n_total,discrete_win_rate,mode,avg_length',
      )
      expect(csv[1]).toMatch(/^mine,\d.*,21,0,3,24,93\.75,community,6$/)
      expect(readJson(join(out, 'results.json'))).toMatchObject({
        task: 'alpaca-eval',
        model: 'mine',
        metrics: { win_rate: { value: result.scores?.win_rate }, n_total: 24, instructions: 24 },
        groups: { odd: { n_total: 12 }, even: { n_total: 12 } },
        settings: { judge: 'judge', judge_model: ['judge-0613'], judge_method: judgeMethod },
        samples: 'samples.jsonl',
      })
      const [run] = await annotationWinRates(join(out, 'annotations.json'))
      expect(run).toMatchObject({ model: 'mine', baseline: 'theirs', ...result.scores })
    },
  )

  it('what the judge garbles is left out and counted; a stopped pass pays for nothing twice', async () => {
    let answered = 0
    const stop = new AbortController()
    teacher = await startTeacher((request, times) => {
      const shown = request.messages.at(-1)!.content
      if (times === 1 && chance(shown) < 0.2)
        return { status: 503, headers: { 'retry-after-ms': '1' } }
      if (++answered === 9) stop.abort()
      if (/GOOD 7\b/.test(shown)) return { text: 'Both are lovely.' }
      if (/GOOD 8\b/.test(shown)) return { status: 400, message: 'context length exceeded' }
      return fair(request)
    })
    const out = join(dir, 'garbled')
    const judge = { model: 'judge', baseUrl: teacher.url }
    const options = { outputs: mine, reference: theirs, judge, judgeMethod: 'rank', out } as const
    const stopped = alpacaEval({ ...options, concurrency: 2, signal: stop.signal })
    await expect(stopped).rejects.toMatchObject({ code: 'ERR_ABORTED' })
    const result = await alpacaEval(options)
    expect(result.scores).toMatchObject({ n_total: 22, n_wins: 19, n_draws: 3 })
    const paid = teacher.log.filter((entry) => entry.answered)
    const distinct = new Set(paid.map(({ request }) => JSON.stringify(request)))
    expect(paid.length - distinct.size).toBeLessThanOrEqual(2) // those in flight when it was stopped
    const before = teacher.log.length
    await alpacaEval({ ...options, judge: { model: 'judge', baseUrl: teacher.url } })
    expect(teacher.log.length - before).toBe(1) // what the endpoint refuses has no answer to keep
  })

  it('a reference without an instruction is refused before anything is asked', async () => {
    teacher = await startTeacher(fair)
    const short = join(dir, 'short.json')
    writeFileSync(short, JSON.stringify(readJson<object[]>(theirs).slice(1)))
    const judge = { model: 'judge', baseUrl: teacher.url }
    const run = alpacaEval({ outputs: mine, reference: short, judge, out: join(dir, 'short') })
    await expect(run).rejects.toThrow(/none for the instruction "Task 0/)
    expect(teacher.log).toHaveLength(0)
  })
})

describe('own prompts', () => {
  it.each(['weighted', 'rank'] as const)('%s shows both outputs', async (method) => {
    const prompt = await readJudgePrompt(ownPrompt(method))
    const text = prompt('DO', 'FIRST', 'SECOND')
      .map(({ content }) => content)
      .join('\n')
    expect(text).toMatch(/DO[\s\S]*FIRST[\s\S]*SECOND/)
  })
})

const stories = sharedPath('pretrained/stories260K')
describe('outputs', () => {
  it.skipIf(!stories)(
    "of a local model: those of generate with Zephyr's settings, and other columns stay",
    async () => {
      const asked = instructions
        .slice(0, 3)
        .map((instruction, i) => ({ instruction, dataset: 'd', idx: i }))
      const file = join(dir, 'asked.jsonl')
      writeFileSync(file, asked.map((row) => JSON.stringify(row)).join('\n'))
      const out = join(dir, 'local')
      const options = { model: stories!, instructions: file, out, maxNewTokens: 20, device: 'cpu' }
      const result = await alpacaEval(options)
      using model = await loadModel(stories!, { device: 'cpu' })
      const conversations = asked.map(({ instruction }) => [
        { role: 'system', content: '' },
        { role: 'user', content: instruction },
      ])
      const texts = await generate(model, conversations, {
        maxNewTokens: 20,
        temperature: 0.7,
        seed: seedOf(0, 0),
      })
      const expected = asked.map((row, i) => {
        return { ...row, output: texts[i]!.text.trim(), generator: 'stories260K' }
      })
      const written = await readOutputs(join(out, 'model_outputs.json'))
      expect(written).toEqual(expected)
      expect(result).toMatchObject({
        answered: 3,
        avg_length: averageLength(written),
        scores: undefined,
      })
      const samples = jsonLines(join(out, 'samples.jsonl'))
      expect(samples[1]).toEqual({
        id: '1',
        dataset: 'd',
        prompt: asked[1]!.instruction,
        answer: expected[1]!.output,
      })
    },
  )

  it('of a run that was stopped between two groups equal those of one that was not', async () => {
    using model = randomModel(openCpu(), { window: null })
    const path = join(dir, 'tiny')
    await saveModel(path, model, { ...model.tokenizer?.files })
    const rows = Array.from({ length: 70 }, (_, i) => ({ instruction: `Say ${i}` }))
    const file = join(dir, 'seventy.jsonl')
    writeFileSync(file, rows.map((row) => JSON.stringify(row)).join('\n'))
    const options = {
      model: path,
      instructions: file,
      maxNewTokens: 3,
      device: 'cpu',
      batchSize: 64,
    }
    const stop = new AbortController()
    const stream = { write: () => stop.abort(), on: () => undefined }
    const out = join(dir, 'stopped')
    const stopped = alpacaEval({ ...options, out, signal: stop.signal, stream })
    await expect(stopped).rejects.toMatchObject({ code: 'ERR_ABORTED' })
    expect(jsonLines(join(out, 'journal.jsonl'))).toHaveLength(64)
    await alpacaEval({ ...options, out })
    expect(jsonLines(join(out, 'journal.jsonl'))).toHaveLength(70)
    const whole = join(dir, 'whole')
    await alpacaEval({ ...options, out: whole })
    const outputs = await readOutputs(join(out, 'model_outputs.json'))
    expect(outputs).toEqual(await readOutputs(join(whole, 'model_outputs.json')))
    expect(new Set(outputs.map(({ output }) => output)).size).toBeGreaterThan(35)
  })

  it('the prompt is that of AlpacaEval for Zephyr: empty system turn, user turn, header', () => {
    const text = compileTemplate(zephyrTemplate).render(
      [
        { role: 'system', content: '' },
        { role: 'user', content: 'Q' },
      ],
      { addGenerationPrompt: true, eosToken: '</s>' },
    )
    expect(text).toBe('<|system|>\n</s>\n<|user|>\nQ</s>\n<|assistant|>\n')
  })
})
