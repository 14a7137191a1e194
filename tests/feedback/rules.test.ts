import { describe, expect, it } from 'vitest'
import { ratedTuple } from '../../src/feedback/ratings.js'
import { choose, chosenRules, type Rule } from '../../src/feedback/rules.js'
import { type Completion, type RatingsRow, randomRatings } from './ratings.js'

const tuples = [1, 2, 3].flatMap((seed) =>
  randomRatings(100, seed).map((row, i) => ratedTuple({ ...row }, 'file', i + 1)),
)

function tuple(...completions: Partial<Completion>[]) {
  const all = completions.map((one, i) => ({ model: `m${i}`, response: `r${i}`, ...one }))
  const row: RatingsRow = { instruction: 'prompt', completions: all }
  return ratedTuple({ ...row }, 'file', 1)
}

/** Responses of chosen and rejected, or why there are none. */
function pair(of: ReturnType<typeof tuple>, rule: Partial<Rule> = {}) {
  const choice = choose(of, { chosen: 'overall', rejected: 'random', seed: 42, ...rule })
  return typeof choice === 'string' ? choice : [choice.chosen.response, choice.rejected.response]
}

/** The scores of a tuple, by the plain formula. */
function scoresOf(of: (typeof tuples)[number], rule: Rule['chosen']): (number | undefined)[] {
  return of.answers.map(({ overall, aspects }) => {
    if (rule === 'overall') return overall
    let sum = 0
    for (const { rating } of aspects.values()) sum += rating
    return aspects.size === 0 ? undefined : sum / aspects.size
  })
}

describe.each(chosenRules)('chosen by %s', (chosen) => {
  it('is the first answer with the highest score', () => {
    for (const one of tuples) {
      const choice = choose(one, { chosen, rejected: 'lowest', seed: 0 })
      const scores = scoresOf(one, chosen)
      const known = scores.filter((score) => score !== undefined)
      if (known.length < 2) expect(choice).toBe('unscored')
      if (typeof choice === 'string') continue
      expect(choice.chosen.response).toBe(one.answers[scores.indexOf(Math.max(...known))]!.response)
      expect(choice.chosen.score).toBe(Math.max(...known))
      expect(choice.rejected.score).toBe(Math.min(...known))
      expect(choice.spread).toBe(Math.max(...known) - Math.min(...known))
      expect(choice.tie).toBe(choice.spread === 0)
    }
  })

  it('with a random rejected takes every other answer about equally often', () => {
    const of = tuple({ overall_score: 3 }, { overall_score: 9 }, {}, { overall_score: 1 })
    const rated = {
      ...of,
      answers: of.answers.map((answer, i) => ({
        ...answer,
        overall: answer.overall ?? 3,
        aspects: new Map([['honesty', { rating: i === 1 ? 5 : 2, spread: undefined }]]),
      })),
    }
    const counts = new Map<string, number>()
    for (let seed = 0; seed < 3000; seed++) {
      const [best, other] = pair(rated, { chosen, seed })
      expect(best).toBe('r1')
      counts.set(other!, (counts.get(other!) ?? 0) + 1)
    }
    // 1000 expected, standard deviation 26
    expect([...counts.keys()].sort()).toEqual(['r0', 'r2', 'r3'])
    for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(130)
  })
})

describe('rejected by zephyr-beta', () => {
  it('of four answers is the first, or the third where the first is chosen', () => {
    for (const best of [0, 1, 2, 3]) {
      const scores = [0, 1, 2, 3].map((i) => ({ overall_score: i === best ? 9 : 4 }))
      const expected = [`r${best}`, best === 0 ? 'r2' : 'r0']
      for (const seed of [0, 1, 42]) {
        expect(pair(tuple(...scores), { rejected: 'zephyr-beta', seed })).toEqual(expected)
      }
    }
  })

  it('draws again where the answer drawn has the text of the chosen one', () => {
    const same = { response: 'same' }
    const of = tuple(
      { ...same, overall_score: 2 },
      { overall_score: 3 },
      { ...same, overall_score: 8 },
      { overall_score: 4 },
    )
    expect(pair(of, { rejected: 'zephyr-beta' })).toEqual(['same', 'r1']) // 0, 0, 2, then 1
  })
})

describe('a tuple', () => {
  it('takes the exact numbers where rounding made scores equal', () => {
    const equal = { overall_score: 6.6 }
    const of = tuple(
      { ...equal, win_prob: 0.62245 },
      { ...equal, win_prob: 0.62247 },
      { ...equal, win_prob: 0.62241 },
    )
    expect(pair(of, { rejected: 'lowest' })).toEqual(['r1', 'r2'])
    expect(choose(of, { chosen: 'overall', rejected: 'lowest', seed: 0 })).toMatchObject({
      tie: false,
    })
  })

  it('leaves out answers without a score, and does not count N/A as zero', () => {
    const rating = (value: unknown) => ({ Rating: value, Rationale: '' })
    const of = tuple(
      { annotations: { honesty: rating('4'), helpfulness: rating('N/A') } },
      { annotations: { honesty: rating('4'), helpfulness: rating('3') } },
      { annotations: { honesty: rating('N/A'), helpfulness: rating(null) }, overall_score: 9 },
    )
    expect(pair(of, { chosen: 'mean_aspects' })).toEqual(['r0', 'r1'])
    expect(pair(of, { chosen: 'overall' })).toBe('unscored')
  })

  it('never pairs equal texts', () => {
    const scores = [{ overall_score: 9 }, { overall_score: 2 }, { overall_score: 1 }]
    const of = tuple(...scores.map((score, i) => ({ ...score, response: i < 2 ? 'a' : 'b' })))
    for (let seed = 0; seed < 50; seed++) expect(pair(of, { seed })).toEqual(['a', 'b'])
    expect(pair(tuple(...scores.map((score) => ({ ...score, response: 'a' }))))).toBe('identical')
  })
})

describe('ratings', () => {
  it('are read from numbers, decimal strings and one entry per order', () => {
    const of = tuple({
      overall_score: ' 7.5 ',
      annotations: {
        honesty: { Rating: '4', Rationale: '' },
        truthfulness: [{ Rating: '5' }, { Rating: '2' }],
        helpfulness: { Type: ['1'], Rating: [3, 'N/A', '4'] },
        instruction_following: { rating: 3.5, spread: 1, count: 2, rationale: '' },
        empty: { rating: null, spread: null, count: 0 },
        missing: null,
      },
    })
    expect(of.answers[0]).toMatchObject({ overall: 7.5 })
    expect(Object.fromEntries(of.answers[0]!.aspects)).toEqual({
      honesty: { rating: 4, spread: undefined },
      truthfulness: { rating: 3.5, spread: 3 },
      helpfulness: { rating: 3.5, spread: 1 },
      instruction_following: { rating: 3.5, spread: 1 },
    })
  })

  it.each([
    ['8/10', '8/10'],
    ['0x8', '0x8'],
    ['1e1', '1e1'],
    ['-3', '-3'],
    ['', ''],
    [100, 100],
    [0, 0],
    [true, true],
  ])('of %j are refused, with file, row and field', (value, shown) => {
    const row = {
      instruction: 'p',
      completions: [
        { model: 'a', response: 'b' },
        { model: 'a', response: 'c', overall_score: value },
      ],
    }
    expect(() => ratedTuple(row, 'file.jsonl', 7)).toThrow(
      `file.jsonl, row 7: completions[1].overall_score must be a number from 1 to 10, null or N/A, got ${JSON.stringify(shown)}`,
    )
  })

  it.each([
    [{ completions: [] }, 'instruction must be a string, got undefined'],
    [{ instruction: '', completions: [] }, 'instruction must be a prompt, got ""'],
    [{ instruction: 'p' }, 'completions must be an array of rated answers, got undefined'],
    [{ instruction: 'p', completions: ['a'] }, 'completions[0] must be an object with model'],
    [{ instruction: 'p', completions: [{ model: 'a' }] }, 'completions[0].response must be a'],
    [
      {
        instruction: 'p',
        completions: [{ model: 'a', response: '', annotations: { honesty: { Rating: '10' } } }],
      },
      'completions[0].annotations.honesty.Rating must be a number from 1 to 5, null or N/A, got "10"',
    ],
    [
      { instruction: 'p', completions: [{ model: 'a', response: '', annotations: { x: 3 } }] },
      'completions[0].annotations.x must be a Rating, got 3',
    ],
  ])('row %j: %s', (row, message) => {
    expect(() => ratedTuple(row, 'f', 1)).toThrow(`f, row 1: ${message}`)
  })

  it('have an id that depends on prompt, models and answers alone', () => {
    const a = tuple({ overall_score: 1 }, { overall_score: 2 })
    expect(tuple({ overall_score: 9 }, { overall_score: 2 }).id).toBe(a.id)
    expect(tuple({ overall_score: 1 }, { overall_score: 2, response: 'other' }).id).not.toBe(a.id)
    expect(tuple({ model: 'n' }, {}).id).not.toBe(a.id)
  })
})
