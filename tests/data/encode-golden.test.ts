import { describe, expect, it } from 'vitest'
import {
  compileTemplate,
  encodeConversation,
  zephyrTemplate,
} from '../../src/data/chat-template.js'
import { encodePair, encodeSft, pairSource, sftSource } from '../../src/data/encode.js'
import { loadTokenizer } from '../../src/data/tokenizer/tokenizer.js'
import { fixturePath, jsonLines, readJson } from '../support/fixtures.js'
import { sharedPath } from '../support/shared.js'

const tokenizer = await loadTokenizer(fixturePath('golden/tiny_tokenizer'))
const templates = [
  { name: 'with generation blocks', template: compileTemplate(tokenizer.chatTemplate ?? '') },
  { name: 'without generation blocks', template: compileTemplate(zephyrTemplate) },
]

describe.each(templates)('rows prepared by TRL 1.13, Zephyr template $name', ({ template }) => {
  interface SftRow {
    input_ids: number[]
    assistant_mask: number[]
  }

  it.each(['assistant_only_ga2', 'packing_bfd'])('SFT %s: ids and assistant mask', (name) => {
    const rows = jsonLines<SftRow>(fixturePath(`golden/trl_sft/${name}.dataset.jsonl`))
    expect(rows.length).toBeGreaterThan(100)
    for (const [i, row] of rows.entries()) {
      // input_ids come first in a row that has both: here the messages are meant
      const source = sftSource({ ...row, input_ids: undefined }, `row ${i}`)
      const labels = row.input_ids.map((id, t) => (row.assistant_mask[t] === 1 ? id : -100))
      const got = encodeSft(tokenizer, template, source, { assistantOnlyLoss: true })
      expect(got).toEqual({ ids: Int32Array.from(row.input_ids), labels: Int32Array.from(labels) })
      const all = encodeSft(tokenizer, template, source)
      expect(all).toMatchObject({ labels: Int32Array.from(row.input_ids) })
    }
  })

  it('SFT, at most 96 tokens: ids, labels and dropped rows', () => {
    const name = 'golden/trl_sft/assistant_only_ga2'
    const rows = jsonLines<SftRow>(fixturePath(`${name}.dataset.jsonl`))
    const prepared = readJson<{ input_ids: number[]; labels: number[] }[]>(
      fixturePath(`${name}.prepared.json`),
    )
    const options = { assistantOnlyLoss: true, maxLength: 96 }
    const got = rows.flatMap((row, i) => {
      const source = sftSource({ ...row, input_ids: undefined }, `row ${i}`)
      const example = encodeSft(tokenizer, template, source, options)
      return 'dropped' in example ? [] : [example]
    })
    expect(got.map(({ ids, labels }) => ({ ids: [...ids], labels: [...labels] }))).toEqual(
      prepared.map(({ input_ids, labels }) => ({ ids: input_ids, labels })),
    )
    expect(got.some(({ truncated }) => truncated)).toBe(true)
  })

  it.each(['ipo_precomputed_ga2', 'sigmoid_beta0.1'])('DPO %s: prompt and completions', (name) => {
    interface PairRow {
      prompt: unknown[]
      chosen: unknown[]
      rejected: unknown[]
      prompt_ids: number[]
      chosen_ids: number[]
      rejected_ids: number[]
    }
    const rows = jsonLines<PairRow>(fixturePath(`golden/trl_dpo/${name}.dataset.jsonl`))
    expect(rows).toHaveLength(64)
    for (const [i, { prompt, chosen, rejected, ...ids }] of rows.entries()) {
      const want = {
        promptIds: Int32Array.from(ids.prompt_ids),
        chosenIds: Int32Array.from(ids.chosen_ids),
        rejectedIds: Int32Array.from(ids.rejected_ids),
      }
      const options = { maxLength: 1024 }
      const explicit = pairSource({ prompt, chosen, rejected }, `row ${i}`)
      expect(encodePair(tokenizer, template, explicit, options)).toEqual(want)
      const whole = { chosen: [...prompt, ...chosen], rejected: [...prompt, ...rejected] }
      const implicit = pairSource({ prompt: 'not used', ...whole }, `row ${i}`)
      expect(encodePair(tokenizer, template, implicit, options)).toEqual(want)
    }
  })
})

const mistralDir = sharedPath('tokenizer')

describe.skipIf(mistralDir === undefined)('Mistral chats (reference data)', async () => {
  if (mistralDir === undefined) return
  const mistral = await loadTokenizer(mistralDir)
  const cases = jsonLines<ChatCase>(`${mistralDir}/tokenizer_cases.jsonl`).filter(
    ({ kind }) => kind === 'chat',
  )
  interface ChatCase {
    kind: string
    messages: { role: string; content: string }[]
    rendered: string
    ids: number[]
    ids_with_bos: number[]
    assistant_mask: number[]
    labels: number[]
    rendered_generation_prompt: string
    ids_generation_prompt: number[]
  }

  it.each(templates)('all 50, template $name: text, ids, masks, labels', ({ template }) => {
    expect(cases).toHaveLength(50)
    for (const c of cases) {
      const { messages } = c
      expect(template.render(messages, { eosToken: '</s>' })).toBe(c.rendered)
      const prompt = template.render(messages, { eosToken: '</s>', addGenerationPrompt: true })
      expect(prompt).toBe(c.rendered_generation_prompt)
      expect(mistral.encode(prompt)).toEqual(c.ids_generation_prompt)
      const plain = encodeConversation(mistral, template, messages)
      expect([...plain.ids]).toEqual(c.ids)
      expect([...plain.assistantMask]).toEqual(c.assistant_mask)
      const bos = encodeConversation(mistral, template, messages, { addBos: true })
      expect([...bos.ids]).toEqual(c.ids_with_bos)
      expect([...bos.assistantMask]).toEqual([0, ...c.assistant_mask])
      const sft = encodeSft(mistral, template, { messages }, { assistantOnlyLoss: true })
      expect(sft).toMatchObject({ labels: Int32Array.from(c.labels) })
    }
  })
})
