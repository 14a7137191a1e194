import { describe, expect, it } from 'vitest'
import { StopText } from '../../src/serve/stop-text.js'
import { uniform } from '../support/random.js'
import { collect, fakeServer } from './support.js'

/** The rule in one line: the text up to the stop string that is complete first, of those the longest. */
function cut(text: string, stops: readonly string[]): { text: string; stopped: boolean } {
  for (let end = 1; end <= text.length; end++) {
    const found = stops.filter((stop) => text.slice(0, end).endsWith(stop))
    const longest = Math.max(0, ...found.map(({ length }) => length))
    if (longest > 0) return { text: text.slice(0, end - longest), stopped: true }
  }
  return { text, stopped: false }
}

describe('stop strings', () => {
  it('cut 3000 random texts the same however they come in pieces, and nothing leaks', () => {
    const next = uniform(11)
    const below = (n: number) => Math.floor(next() * n)
    const word = (n: number) => Array.from({ length: n }, () => 'ab€'[below(3)]).join('')
    let stopped = 0
    for (let i = 0; i < 3000; i++) {
      const whole = word(below(30))
      const stops = Array.from({ length: 1 + below(4) }, () => word(1 + below(5)))
      const expected = cut(whole, stops)
      const text = new StopText(stops)
      let shown = ''
      let done = false
      for (let at = 0; at < whole.length && !done; ) {
        const end = at + 1 + below(6)
        const piece = text.push(whole.slice(at, end))
        shown += piece.text
        done = piece.stopped
        expect(expected.text.startsWith(shown)).toBe(true)
        at = end
      }
      if (!done) shown += text.end()
      expect({ text: shown, stopped: done }).toEqual(expected)
      if (done) stopped++
    }
    expect(stopped).toBeGreaterThan(1000)
    expect(stopped).toBeLessThan(2900)
  })

  it('hold back no more than may be the beginning of one', () => {
    const text = new StopText(['END', '\n\n'])
    expect(text.push('an E')).toEqual({ text: 'an ', stopped: false })
    expect(text.push('N')).toEqual({ text: '', stopped: false })
    expect(text.push('T\n')).toEqual({ text: 'ENT', stopped: false })
    expect(text.push('\nrest')).toEqual({ text: '', stopped: true })
  })

  it.each([false, true] as const)(
    'across tokens end a text before them (stream: %s)',
    async (stream) => {
      const { engine, client, say } = await fakeServer()
      say('one two three four')
      const asked = {
        model: 'tiny',
        prompt: 'x',
        max_tokens: 60,
        stop: ['o th', 'zzz'],
        logprobs: 1,
      }
      const { completions } = client
      const choices = stream
        ? (await collect(await completions.create({ ...asked, stream }))).map(
            (chunk) => chunk.choices[0]!,
          )
        : (await completions.create({ ...asked, stream })).choices
      expect(
        choices
          .map(({ text }) => text)
          .join('')
          .trimStart(),
      ).toBe('one tw')
      const tokens = choices.flatMap(({ logprobs }) => logprobs?.tokens ?? [])
      expect(tokens.join('').trimStart()).toBe('one tw')
      expect(choices.at(-1)!.finish_reason).toBe('stop')
      expect(engine.active).toBe(0)
    },
  )

  it('that are special tokens end a text by their id', async () => {
    const { client, tokenizer, say, engine } = await fakeServer()
    const special = tokenizer.tokenToId('<unk>')!
    say('one', special)
    const asked = { model: 'tiny', prompt: 'x', max_tokens: 60, stop: '<unk>' }
    const { choices, usage } = await client.completions.create(asked)
    expect(choices[0]).toMatchObject({ text: ' one', finish_reason: 'stop' })
    expect(usage!.completion_tokens).toBe(engine.says.length)
  })
})
