import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { loadTokenizer, tokenizerFromFiles } from '../../src/data/tokenizer/tokenizer.js'
import { fixturePath } from '../support/fixtures.js'

const dir = fixturePath('golden/tiny_tokenizer')
const tokenizerJson = readFileSync(join(dir, 'tokenizer.json'), 'utf8')
const configJson = readFileSync(join(dir, 'tokenizer_config.json'), 'utf8')

/** tokenizer.json with one top-level field, or one field of `model`, replaced. */
function changed(fields: object, model: object = {}): string {
  const json = JSON.parse(tokenizerJson)
  return JSON.stringify({ ...json, ...fields, model: { ...json.model, ...model } })
}

describe('tokenizer files', () => {
  it('that are wrong give an error that names file and field', () => {
    const cases: [string, RegExp][] = [
      ['{', /tokenizer\.json is not valid JSON/],
      ['[]', /tokenizer\.json: .*expected object/],
      ['null', /tokenizer\.json: .*expected object/],
      ['{}', /tokenizer\.json: model: /],
      [changed({}, { type: 'Unigram' }), /model\.type is "Unigram"/],
      [changed({}, { vocab: { a: 'one' } }), /model: vocab\.a: .*expected number/],
      [changed({}, { vocab: { a: -1 } }), /model: vocab\.a: /],
      [changed({}, { vocab: { a: 1e15 } }), /model: vocab\.a: /],
      [changed({}, { merges: 'a b' }), /model: merges: .*expected array/],
      [changed({}, { merges: ['ab'] }), /model\.merges\[0\] must be two tokens/],
      [changed({}, { merges: [['a', 'nothing']] }), /model\.merges\[0\] needs the token "nothing"/],
      [changed({}, { dropout: 0.1 }), /model\.dropout is 0\.1/],
      [changed({ added_tokens: [{ id: 1 }] }), /tokenizer\.json: added_tokens\.0\.content/],
      [changed({ normalizer: { type: 'Magic' } }), /tokenizer\.json: .*Magic/],
      [changed({ decoder: 7 }), /tokenizer\.json: decoder: .*expected object/],
      [changed({ post_processor: { type: 'TemplateProcessing' } }), /tokenizer\.json: /],
    ]
    for (const [text, message] of cases) {
      expect(() => tokenizerFromFiles({ 'tokenizer.json': text }), text.slice(0, 60)).toThrow(
        message,
      )
    }
    const config = (text: string) => () =>
      tokenizerFromFiles({ 'tokenizer.json': tokenizerJson, 'tokenizer_config.json': text })
    expect(config('{"eos_token": 5}')).toThrow(/tokenizer_config\.json: eos_token/)
    expect(config('{"eos_token": "<end>"}')).toThrow(/eos_token is "<end>", which tokenizer\.json/)
    expect(config('{"chat_template": 1}')).toThrow(/tokenizer_config\.json: chat_template/)
  })

  it('that are missing are named with the directory', async () => {
    const empty = mkdtempSync(join(tmpdir(), 'westwind-'))
    await expect(loadTokenizer(empty)).rejects.toMatchObject({
      code: 'ERR_TOKENIZER',
      message: expect.stringContaining(`${empty} has no tokenizer.json`),
    })
    writeFileSync(join(empty, 'tokenizer.json'), '{')
    await expect(loadTokenizer(empty)).rejects.toThrow(`${empty}: tokenizer.json is not valid JSON`)
  })

  it('make the same tokenizer again, with the same hash', async () => {
    const first = await loadTokenizer(dir)
    const second = tokenizerFromFiles(first.files)
    expect(second.hash).toBe(first.hash)
    expect(second.encode('Is this it?</s> yes')).toEqual(first.encode('Is this it?</s> yes'))
    expect(tokenizerFromFiles({ ...first.files, 'chat_template.jinja': 'x' }).hash).not.toBe(
      first.hash,
    )
  })

  it('chat_template.jinja wins over tokenizer_config.json, a named list gives its default', () => {
    const files = { 'tokenizer.json': tokenizerJson, 'tokenizer_config.json': configJson }
    expect(tokenizerFromFiles(files).chatTemplate).toContain('<|assistant|>')
    expect(tokenizerFromFiles({ ...files, 'chat_template.jinja': 'J' }).chatTemplate).toBe('J')
    const list = [
      { name: 'tool_use', template: 'T' },
      { name: 'default', template: 'D' },
    ]
    const config = JSON.stringify({ chat_template: list })
    expect(tokenizerFromFiles({ ...files, 'tokenizer_config.json': config }).chatTemplate).toBe('D')
  })

  it('special tokens may be objects, and may stand in special_tokens_map.json alone', () => {
    const made = tokenizerFromFiles({
      'tokenizer.json': tokenizerJson,
      'tokenizer_config.json': '{"eos_token": {"content": "</s>", "lstrip": false}}',
      'special_tokens_map.json': '{"bos_token": "<s>", "pad_token": null}',
    })
    expect(made).toMatchObject({ eosId: 2, eosToken: '</s>', bosId: 1, bosToken: '<s>' })
    expect(made.padId).toBeUndefined()
  })
})

describe('decode', () => {
  const tokenizer = tokenizerFromFiles({ 'tokenizer.json': tokenizerJson })

  it('of no ids, or of ids the vocabulary does not have, is empty', () => {
    expect(tokenizer.decode([])).toBe('')
    expect(tokenizer.decode([-1, 1e6, 0.5])).toBe('')
  })

  it('gives back any text', () => {
    for (const text of ['a', ' two  spaces ', 'naïve 字 😀\n\ttab', 'x'.repeat(300)]) {
      expect(tokenizer.decode(Int32Array.from(tokenizer.encode(text)))).toBe(text)
    }
  })
})
