import { afterAll, describe, expect, it } from 'vitest'
import { PythonRandom } from '../../src/data/python-random.js'
import type { Row } from '../../src/data/read-rows.js'
import { openCpu } from '../../src/device/device.js'
import { evaluateChoices } from '../../src/eval/choice/choice.js'
import { accuracies, argmax, goldOf } from '../../src/eval/choice/document.js'
import { encodeContinuations } from '../../src/eval/choice/encode.js'
import { prompts } from '../../src/eval/choice/few-shot.js'
import { type ChoiceTaskName, choiceTasks } from '../../src/eval/choice/tasks.js'
import { score } from '../../src/eval/score.js'
import { uniform } from '../support/random.js'
import { allLogits, randomModel, tinyTokenizer } from '../support/small-models.js'

const cpu = openCpu()
const model = randomModel(cpu, { window: null })
const tokenizer = tinyTokenizer()
afterAll(() => model.dispose())

const documents = (task: ChoiceTaskName, rows: Row[]) =>
  rows.map((row, i) => choiceTasks[task].document(row, i, `row ${i + 1}`))

/** The prompts of rows, `n` examples of the pool before each question. */
function promptsOf(task: ChoiceTaskName, rows: Row[], n = 0, pool: Row[] = [], preset?: string) {
  const examples = documents(task, pool)
  return [...prompts(choiceTasks[task], documents(task, rows), n, examples, preset)]
}

describe('prompts', () => {
  const arc = (i: number): Row => {
    const label = ['A', 'B']
    return { question: `Q${i}?`, choices: { text: [`yes ${i}`, 'no'], label }, answerKey: 'A' }
  }

  it('arc: examples are drawn anew for each question, as by Python with seed 1234', () => {
    const pool = Array.from({ length: 40 }, (_, i) => arc(i))
    const random = new PythonRandom(1234)
    const indices = Array.from({ length: 40 }, (_, i) => i)
    const expected = [100, 101].map((i) => {
      const shots = random.sample(indices, 3).map((k) => `Question: Q${k}?\nAnswer: yes ${k}\n\n`)
      return `${shots.join('')}Question: Q${i}?\nAnswer:`
    })
    expect(promptsOf('arc', [arc(100), arc(101)], 3, pool)).toEqual(expected)
  })

  it('hellaswag: activity, the two halves of the context, WikiHow marks taken out', () => {
    const row = {
      activity_label: 'Baking',
      ctx_a: 'He mixes. [title] The dough [step] rests.',
      ctx_b: 'the MAN',
      endings: ['[substeps] waits', ' leaves  it '],
      label: '1',
    }
    const [document] = documents('hellaswag', [row])
    expect(document).toMatchObject({
      context: 'Baking: He mixes.. The dough rests. The man',
      choices: [' waits', 'leaves it'],
      gold: 1,
    })
    expect(
      documents('hellaswag', [{ query: 'as it is ', choices: ['a', 'b'], gold: 0 }]),
    ).toMatchObject([{ context: 'as it is ' }])
  })

  it('mmlu: the first examples of the subject, behind its description', () => {
    const row = (subject: string, question: string, answer: unknown) => {
      return { subject, question, choices: ['w', 'x', 'y', 'z'], answer }
    }
    const pool = [row('a_b', ' one ', 0), row('c', 'other', 1), row('a_b', 'two', 'D')]
    const ask = (question: string) => `${question}\nA. w\nB. x\nC. y\nD. z\nAnswer:`
    expect(promptsOf('mmlu', [row('a_b', 'three', 2)], 2, pool)).toEqual([
      'The following are multiple choice questions (with answers) about a b.\n\n' +
        `${ask('one')} A\n\n${ask('two')} D\n\n${ask('three')}`,
    ])
    expect(() => promptsOf('mmlu', [row('c', 'x', 0)], 2, pool)).toThrow(
      'fewshot: 2 examples of c are needed, fewshotRows has 1',
    )
  })

  it('truthfulqa: a preset stands before each question', () => {
    const row = {
      question: 'Why?',
      best_answer: 'a',
      correct_answers: ['a'],
      incorrect_answers: ['b'],
    }
    expect(promptsOf('truthfulqa', [row])).toEqual(['Q: Why?\nA:'])
    expect(promptsOf('truthfulqa', [row], 0, [], 'Q: x\nA: y')).toEqual([
      'Q: x\nA: y\n\nQ: Why?\nA:',
    ])
  })

  it('multiple-choice: a question is never its own example', () => {
    const rows = Array.from({ length: 6 }, (_, i) => {
      return { query: `text ${i} goes`, choices: ['on', 'off'], label: i % 2 }
    })
    for (const [i, prompt] of promptsOf('multiple-choice', rows, 5, rows).entries()) {
      expect(prompt.split(`text ${i} goes`)).toHaveLength(2)
      expect(prompt.split('\n\n')).toHaveLength(6)
    }
    expect(() => promptsOf('multiple-choice', rows, 6, rows)).toThrow('7 examples are needed')
  })
})

describe('the right choice', () => {
  const choices = ['1', 'red', 'B']
  const labels = ['A', 'B', 'C']
  it.each([
    [{ gold: 2 }, undefined, 2],
    [{ answer: 'red' }, undefined, 1],
    [{ answer: '1' }, undefined, 0], // a choice before an index
    [{ label: '2' }, undefined, 2],
    [{ label: 'B' }, undefined, 2], // a choice before a letter
    [{ label: 'C' }, undefined, 2],
    [{ answerKey: 'B' }, labels, 1], // labels before choices
  ])('%j with labels %j is %d', (row, given, index) => {
    expect(goldOf(row, { choices, ...(given && { labels: given }) }, 'row 1')).toBe(index)
  })

  it.each([
    { gold: 3 },
    { gold: -1 },
    { gold: 0.5 },
    { label: 'D' },
    { label: '' },
    {},
    { gold: [] },
  ])('%j is refused', (row) => {
    expect(() => goldOf(row, { choices }, 'row 4')).toThrow(
      /^row 4: (gold|label).*expected one of 3/,
    )
  })
})

describe('metrics', () => {
  it('acc takes the likeliest, acc_norm the likeliest per character, the first of equals', () => {
    expect(accuracies(['ab', 'abcd'], 1)([-2, -3])).toEqual({ acc: 0, acc_norm: 1 })
    expect(accuracies(['😀', 'ab'], 0)([-1, -2])).toEqual({ acc: 1, acc_norm: 1 })
    expect(argmax([1, 3, 3])).toBe(1)
  })

  it('mc2 is the share of the true answers, however small the probabilities', () => {
    const row = {
      question: 'Why?',
      mc1_targets: { choices: ['t', 'f'], labels: [1, 0] },
      mc2_targets: { choices: ['t', 'u', 'f', 'g'], labels: [1, 1, 0, 0] },
    }
    const [document] = documents('truthfulqa', [row])
    expect(document!.choices).toEqual(['t', 'f', 'u', 'g'])
    const next = uniform(1)
    for (let i = 0; i < 50; i++) {
      const logprobs = Array.from({ length: 4 }, () => -5 * next())
      const p = logprobs.map(Math.exp)
      const share = (p[0]! + p[2]!) / (p[0]! + p[1]! + p[2]! + p[3]!)
      const mc1 = logprobs[0]! >= logprobs[1]! ? 1 : 0
      expect(document!.metrics(logprobs)).toEqual({ mc1, mc2: expect.closeTo(share, 12) })
      const far = logprobs.map((x) => x - 2000)
      expect(document!.metrics(far).mc2).toBeCloseTo(share, 9)
    }
  })
})

describe('tokens', () => {
  it('white space at the end of the context belongs to the continuation', () => {
    const [with_, without] = [
      encodeContinuations(tokenizer, 'A cat \n', [' sat'], 128, 'x')[0]!,
      encodeContinuations(tokenizer, 'A cat', [' \n sat'], 128, 'x')[0]!,
    ]
    expect(with_).toEqual(without)
    expect(with_.ids[0]).toBe(tokenizer.bosId)
    expect(with_.ids.length - with_.scored).toBe(
      tokenizer.encode('A cat', { addSpecialTokens: true }).length,
    )
  })

  it('what begins with BOS gets no second one; without a context BOS is it', () => {
    const [one] = encodeContinuations(tokenizer, '<s>A cat', [' sat'], 128, 'x')
    expect([...one!.ids.slice(0, 2)].filter((id) => id === tokenizer.bosId)).toHaveLength(1)
    const [two] = encodeContinuations(tokenizer, '', [' sat'], 128, 'x')
    expect([...two!.ids]).toEqual([tokenizer.bosId, ...tokenizer.encode(' sat')])
    expect(two!.scored).toBe(two!.ids.length - 1)
  })

  it('a prompt that is too long keeps its end: as many inputs as the context has, and one target', () => {
    const [long] = encodeContinuations(tokenizer, 'abc '.repeat(40), [' def'], 32, 'x')
    const [whole] = encodeContinuations(tokenizer, 'abc '.repeat(40), [' def'], 1000, 'x')
    expect(long).toEqual({ ids: whole!.ids.slice(-33), scored: whole!.scored, truncated: true })
  })

  it('a continuation without a token, or longer than the context, is refused', () => {
    const encode = (text: string) => () =>
      encodeContinuations(tokenizer, 'A', [text], 8, 'document 7')
    expect(encode('')).toThrow(
      'document 7: choice 1 ("") has 0 tokens; from 1 to the model\'s context of 8',
    )
    expect(encode(' '.repeat(50))).toThrow(/has \d\d tokens/)
  })
})

describe('scores', () => {
  const requests = Array.from({ length: 40 }, (_, i) => {
    const common = [
      1,
      ...Array.from({ length: 30 + (i % 3) * 15 }, (_, t) => (t * 7 + (i % 4)) % 320),
    ]
    const own = Array.from({ length: 1 + (i % 5) }, (_, t) => (i * 31 + t * 11) % 320)
    return { ids: Int32Array.from([...common, ...own]), scored: own.length }
  })

  it('have the same bits alone, together and in another order', async () => {
    const together = await score(model, requests)
    const backward = (await score(model, [...requests].reverse())).reverse()
    expect(backward).toEqual(together)
    for (const [i, request] of requests.entries()) {
      expect(await score(model, [request])).toEqual([together[i]])
    }
  })

  it('are the log-softmax of the forward pass; greedy says that it is the largest', async () => {
    const V = model.config.vocabSize
    for (const request of requests.slice(0, 6)) {
      const [got] = await score(model, [request])
      const ids = [...request.ids]
      const logits = await allLogits(model, ids)
      let greedy = true
      for (let n = 0; n < request.scored; n++) {
        const t = ids.length - request.scored + n
        const at = logits.subarray((t - 1) * V, t * V)
        const lse = Math.log(at.reduce((sum, x) => sum + Math.exp(x), 0))
        expect(got!.logprobs[n]).toBeCloseTo(at[ids[t]!]! - lse, 4)
        greedy &&= argmax(Array.from(at)) === ids[t]
      }
      expect(got!.greedy).toBe(greedy)
    }
    const best = argmax(Array.from((await allLogits(model, [1, 9])).subarray(V)))
    expect(await score(model, [{ ids: Int32Array.from([1, 9, best]), scored: 1 }])).toMatchObject([
      { greedy: true },
    ])
  })

  it('one token more than the context fits: the last is no input', async () => {
    const ids = Int32Array.from({ length: 129 }, (_, t) => (t * 5) % 320)
    const [got] = await score(model, [{ ids, scored: 1 }])
    expect(got!.logprobs).toHaveLength(1)
    await expect(score(model, [{ ids: Int32Array.from([...ids, 1]), scored: 1 }])).rejects.toThrow(
      '130',
    )
  })
})

describe('evaluateChoices', () => {
  const rows = Array.from({ length: 5 }, (_, i) => {
    return {
      id: `q${i}`,
      question: `Which of ${i}?`,
      choices: ['one', 'two words', 'x'],
      gold: i % 3,
    }
  })

  it('metrics are the means of the samples, which keep order and id', async () => {
    const seen: number[] = []
    const onProgress = (done: number, total: number) => seen.push(done / total)
    const { metrics, samples, groups } = await evaluateChoices(model, 'arc', rows, { onProgress })
    expect(samples.map(({ id }) => id)).toEqual(['q0', 'q1', 'q2', 'q3', 'q4'])
    const acc = samples.filter(({ predicted, gold }) => predicted === gold).length / 5
    expect(metrics.acc).toMatchObject({ value: acc })
    expect(groups).toBe(undefined)
    expect(seen.at(-1)).toBe(1)
    expect(seen).toHaveLength(15)
    const first = await evaluateChoices(model, 'arc', rows, { limit: 2 })
    expect(first.samples).toEqual(samples.slice(0, 2))
  })

  it.each(['hellaswag', 'multiple-choice'] as const)('%s without examples', async (task) => {
    const row = { query: 'A text', choices: ['goes on', 'ends'], gold: 1 }
    const { samples } = await evaluateChoices(model, task, [row])
    expect(samples).toMatchObject([{ id: '0', gold: 1, logprobs: expect.any(Array) }])
  })

  it('a limit counts within each subject of mmlu', async () => {
    const ask = (subject: string) => ({
      subject,
      question: '?',
      choices: ['a', 'b', 'c', 'd'],
      gold: 1,
    })
    const all = ['virology', 'virology', 'virology', 'sociology', 'my_own'].map(ask)
    const { samples, groups } = await evaluateChoices(model, 'mmlu', all, { limit: 2 })
    expect(samples.map(({ group }) => group)).toEqual([
      'virology',
      'virology',
      'sociology',
      'my_own',
    ])
    expect(Object.entries(groups!).map(([name, { n }]) => [name, n])).toEqual([
      ['other', 2],
      ['social_sciences', 1],
      ['virology', 2],
      ['sociology', 1],
      ['my_own', 1],
    ])
  })

  it('an error names row and column', async () => {
    const run = (row: Row, task: ChoiceTaskName = 'arc') =>
      evaluateChoices(model, task, [rows[0]!, row])
    await expect(run({ question: 3, choices: ['a'], gold: 0 })).rejects.toMatchObject({
      code: 'ERR_DATA',
      message: 'row 2: question: expected a string, got 3',
    })
    await expect(run({ question: '?', choices: ['a', ''], gold: 0 })).rejects.toThrow(
      'row 2: choices[1]: expected a string that is not empty, got ""',
    )
    await expect(run({ question: '?', choices: [], gold: 0 })).rejects.toThrow('row 2: choices')
    await expect(
      evaluateChoices(model, 'mmlu', [
        { subject: 's', question: '?', choices: ['a', 'b'], gold: 0 },
      ]),
    ).rejects.toThrow('row 1: choices: expected four choices, got ["a","b"]')
    const targets = { choices: ['a', 'b'], labels: [0, 0] }
    await expect(
      evaluateChoices(model, 'truthfulqa', [
        { question: '?', mc1_targets: targets, mc2_targets: targets },
      ]),
    ).rejects.toThrow('row 1: mc1_targets.labels: expected a 0 or 1 per choice')
    await expect(evaluateChoices(model, 'arc', [])).rejects.toThrow('arc: no rows')
  })

  it('what the task cannot use is refused', async () => {
    await expect(evaluateChoices(model, 'truthfulqa', rows, { fewshot: 1 })).rejects.toThrow(
      'fewshot must be 0 for truthfulqa, got 1',
    )
    await expect(evaluateChoices(model, 'arc', rows, { preset: 'x' })).rejects.toThrow(
      'preset must be left out for arc, got x',
    )
    await expect(evaluateChoices(model, 'arc', rows, { fewshot: 1 })).rejects.toThrow(
      'fewshot: 1 examples are needed, fewshotRows has 0',
    )
  })

  it('a signal ends it', async () => {
    const stop = new AbortController()
    const onProgress = () => stop.abort()
    await expect(
      evaluateChoices(model, 'arc', Array.from({ length: 50 }, () => rows).flat(), {
        signal: stop.signal,
        onProgress,
      }),
    ).rejects.toMatchObject({ code: 'ERR_ABORTED' })
  })
})
