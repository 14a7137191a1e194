import { Tokenizer as HubTokenizer } from '@huggingface/tokenizers'
import { describe, expect, it } from 'vitest'
import { loadTokenizer } from '../../src/data/tokenizer/tokenizer.js'
import { jsonLines, readJson } from '../support/fixtures.js'
import { sharedPath } from '../support/shared.js'

const mistralDir = sharedPath('tokenizer')
const dialogues = sharedPath('data/ultrachat_like/test_sft.jsonl')

interface Dialogue {
  messages: { content: string }[]
}

interface TextCase {
  kind: string
  text: string
  ids: number[]
  ids_with_special: number[]
  decoded: string
  decoded_skip_special: string
}

describe.skipIf(mistralDir === undefined)('the Mistral tokenizer (reference data)', async () => {
  if (mistralDir === undefined) return
  const tokenizer = await loadTokenizer(mistralDir)
  const cases = jsonLines<TextCase>(`${mistralDir}/tokenizer_cases.jsonl`).filter(
    ({ kind }) => kind === 'text',
  )

  it('gives the same ids as Hugging Face for all 300 texts', () => {
    expect(cases).toHaveLength(300)
    for (const c of cases) {
      expect(tokenizer.encode(c.text), c.text).toEqual(c.ids)
      expect(tokenizer.encode(c.text, { addSpecialTokens: true }), c.text).toEqual(
        c.ids_with_special,
      )
    }
  })

  it('gives the same text back for all 300 lists of ids', () => {
    for (const c of cases) {
      expect(tokenizer.decode(c.ids), c.text).toBe(c.decoded)
      expect(tokenizer.decode(c.ids, { skipSpecialTokens: true })).toBe(c.decoded_skip_special)
    }
  })

  it.skipIf(dialogues === undefined)(
    'gives the same ids as the library on real dialogues, special tokens in between',
    () => {
      const hub = new HubTokenizer(
        readJson<object>(`${mistralDir}/tokenizer.json`),
        readJson<object>(`${mistralDir}/tokenizer_config.json`),
      )
      const rows = jsonLines<Dialogue>(dialogues ?? '').filter((_, i) => i % 20 === 0)
      expect(rows.length).toBeGreaterThan(50)
      for (const { messages } of rows) {
        // The library needs a second for 30,000 tokens
        const text = messages.map(({ content }) => content.slice(0, 2000)).join('</s>\n')
        expect(tokenizer.encode(text)).toEqual(hub.encode(text, { add_special_tokens: false }).ids)
      }
    },
  )

  it('knows its special tokens', () => {
    expect(tokenizer).toMatchObject({ vocabSize: 32000, bosId: 1, eosId: 2, padId: 2 })
    expect(tokenizer.chatTemplate).toContain("'<|assistant|>\n'")
  })
})

describe.skipIf(sharedPath('pretrained') === undefined)(
  'pretrained models (reference data)',
  () => {
    interface Generation {
      prompt: string
      prompt_ids: number[]
    }
    it.each(['stories260K', 'BabyLlama-tok105'])(
      '%s: prompts get their reference ids',
      async (name) => {
        const dir = sharedPath('pretrained', name)!
        const tokenizer = await loadTokenizer(dir)
        const cases = jsonLines<Generation>(`${dir}/reference_generations.jsonl`)
        expect(cases.length).toBeGreaterThan(0)
        for (const { prompt, prompt_ids } of cases) {
          expect(tokenizer.encode(prompt, { addSpecialTokens: true }), prompt).toEqual(prompt_ids)
        }
      },
    )
  },
)
