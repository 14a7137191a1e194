import { describe, expect, it } from 'vitest'
import { parseReply } from '../../src/feedback/parse-reply.js'
import type { Aspect } from '../../src/feedback/templates.js'

const nonce = '0a1b2c3d'
const helpfulness: Aspect = {
  title: 'help',
  task: 'judge',
  least: 1,
  most: 5,
  not_applicable: false,
  levels: {},
}
const honesty = { ...helpfulness, not_applicable: true }

function parse(
  text: string,
  options: { aspect?: Aspect; structured?: boolean; finish?: string } = {},
) {
  const { aspect = helpfulness, structured = false, finish = 'stop' } = options
  const usage = { prompt_tokens: 1, completion_tokens: 1 }
  const answer = { text, finish_reason: finish, usage, model: 'm' }
  return parseReply(answer, aspect, { answers: 2, nonce, structured })
}

const block = (number: number, rating: string, rationale = 'Fine.') =>
  `## Answer ${number} [${nonce}]\nRationale: ${rationale}\nRating: ${rating}\n`

describe('blocks', () => {
  it('a rationale may have paragraphs, ratings of its own, and headings without the code', () => {
    const rationale = 'One.\n\nRating: 1\n\n## Answer 2\nRating: 5\n\nTwo.'
    expect(parse(`Here they are.\n\n${block(1, '4.5', rationale)}\n\n${block(2, '2')}`)).toEqual({
      verdicts: [
        { rating: 4.5, rationale },
        { rating: 2, rationale: 'Fine.' },
      ],
    })
  })

  it('emphasis and another order do no harm', () => {
    const text = `**Answer 2 [${nonce}]**\n**Rationale:** Good.\n**Rating:** 3\n\n${block(1, '1')}`
    expect(parse(text)).toEqual({
      verdicts: [
        { rating: 1, rationale: 'Fine.' },
        { rating: 3, rationale: 'Good.' },
      ],
    })
  })

  const wrong: [string, string, RegExp][] = [
    ['an answer is missing', block(1, '3'), /answer 2 has no block/],
    ['an answer is rated twice', block(1, '3') + block(2, '3') + block(2, '5'), /rated twice/],
    [
      'there are more answers than shown',
      block(1, '3') + block(2, '3') + block(3, '3'),
      /answer 3 is not there/,
    ],
    [
      'the code is another',
      block(1, '3').replace(nonce, 'ffffffff') + block(2, '3'),
      /answer 1 has no block/,
    ],
    [
      'the scale is another',
      block(1, '7') + block(2, '3'),
      /answer 1 must be a number from 1 to 5, got 7/,
    ],
    ['a rating is below the scale', block(1, '0') + block(2, '3'), /got 0/],
    ['a rating is a fraction', block(1, '4/5') + block(2, '3'), /got "4\/5"/],
    ['a rating is no number', block(1, 'four') + block(2, '3'), /got "four"/],
    ['N/A is not allowed', block(1, 'N/A') + block(2, '3'), /got "N\/A"/],
    ['a rationale is missing', block(1, '3', '') + block(2, '3'), /no rationale/],
    [
      'the rating is not last',
      `${block(1, '3')}More.\n${block(2, '3')}`,
      /does not end with "Rating/,
    ],
    ['the text is empty', '', /answer 1 has no block/],
  ]
  it.each(wrong)('refuses all where %s', (_, text, problem) => {
    expect(parse(text)).toEqual({ problem: expect.stringMatching(problem) })
  })

  it('N/A is null where it is allowed', () => {
    expect(parse(block(1, 'N/A') + block(2, '5'), { aspect: honesty })).toMatchObject({
      verdicts: [{ rating: null }, { rating: 5 }],
    })
  })

  it('a refusal is called one, and a reply cut at max_tokens too', () => {
    expect(parse("I'm sorry, but I can't.")).toEqual({
      problem: expect.stringMatching(/^refusal: /),
    })
    const cut = parse(block(1, '3') + block(2, '3'), { finish: 'length' })
    expect(cut).toEqual({ problem: 'unparsable: cut at max_tokens' })
    expect(parse('', { finish: 'content_filter' })).toEqual({ problem: 'refusal: content filter' })
  })
})

describe('structured replies', () => {
  const json = (first: unknown, second: unknown = { rating: 2, rationale: 'b' }) =>
    JSON.stringify({ answer_1: first, answer_2: second })

  it('are read as JSON, decimals kept, in a fence too', () => {
    const text = json({ rationale: 'a', rating: 3.5 })
    const verdicts = [
      { rating: 3.5, rationale: 'a' },
      { rating: 2, rationale: 'b' },
    ]
    expect(parse(text, { structured: true })).toEqual({ verdicts })
    expect(parse(`\`\`\`json\n${text}\n\`\`\``, { structured: true })).toEqual({ verdicts })
  })

  it.each([
    ['no JSON', '{"answer_1": ', /not JSON/],
    ['no object', '[1, 2]', /expected an object/],
    ['an answer too few', '{"answer_1": {"rating": 1, "rationale": "a"}}', /answer_2 is missing/],
    [
      'an answer too many',
      '{"answer_1": {}, "answer_2": {}, "answer_3": {}}',
      /"answer_3" is none/,
    ],
    ['a number in quotes', json({ rating: '3', rationale: 'a' }), /got "3"/],
    ['another scale', json({ rating: 10, rationale: 'a' }), /got 10/],
    ['null', json({ rating: null, rationale: 'a' }), /got null/],
    ['code', 'process.exit(3)', /not JSON/],
  ])('refuses %s', (_, text, problem) => {
    expect(parse(text, { structured: true })).toEqual({ problem: expect.stringMatching(problem) })
  })
})
