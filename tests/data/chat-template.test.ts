import { describe, expect, it } from 'vitest'
import {
  compileTemplate,
  encodeConversation,
  zephyrTemplate,
} from '../../src/data/chat-template.js'
import type { Message } from '../../src/data/conversation.js'
import { type Tokenizer, tokenizerFromFiles } from '../../src/data/tokenizer/tokenizer.js'
import { fixturePath, readText } from '../support/fixtures.js'

const tokenizerJson = JSON.parse(readText(fixturePath('golden/tiny_tokenizer/tokenizer.json')))

/** The tiny tokenizer, with more special tokens and any EOS. */
function tokenizerWith(specials: string[], eos: string | undefined): Tokenizer {
  const added = specials.map((content, i) => ({ id: 320 + i, content, special: true }))
  const json = { ...tokenizerJson, added_tokens: [...tokenizerJson.added_tokens, ...added] }
  return tokenizerFromFiles({
    'tokenizer.json': JSON.stringify(json),
    'tokenizer_config.json': JSON.stringify({ bos_token: '<s>', ...(eos && { eos_token: eos }) }),
  })
}

const chat: Message[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'Is it so?' },
  { role: 'assistant', content: 'Yes.' },
  { role: 'user', content: 'Yes.' }, // what the assistant said, said by the user: not scored
  { role: 'assistant', content: ' It is\n so. ' },
]

/** The texts of the runs of scored tokens. */
function scored(tokenizer: Tokenizer, source: string, messages = chat): string[] {
  const { ids, assistantMask } = encodeConversation(tokenizer, compileTemplate(source), messages)
  const runs: number[][] = []
  assistantMask.forEach((bit, t) => {
    if (bit === 0) return
    if (t === 0 || assistantMask[t - 1] === 0) runs.push([])
    runs.at(-1)?.push(ids[t]!)
  })
  return runs.map((run) => tokenizer.decode([1, ...run]).slice('<s>'.length))
}

const chatml = `{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`
const chatmlTokenizer = (eos: string | undefined) =>
  tokenizerWith(['<|im_start|>', '<|im_end|>', '<|endoftext|>'], eos)
const llama2 = `{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}`

describe('assistant masks without {% generation %}', () => {
  it('Zephyr: content and EOS, not the header and not the newline after EOS', () => {
    expect(scored(tokenizerWith([], '</s>'), zephyrTemplate)).toEqual([
      'Yes.</s>',
      ' It is\n so. </s>',
    ])
  })

  it('ChatML: the turn ends with <|im_end|>, whatever the EOS is', () => {
    const want = ['Yes.<|im_end|>', ' It is\n so. <|im_end|>']
    expect(scored(chatmlTokenizer('<|im_end|>'), chatml)).toEqual(want)
    expect(scored(chatmlTokenizer('<|endoftext|>'), chatml)).toEqual(want)
    expect(scored(chatmlTokenizer(undefined), chatml)).toEqual(want)
  })

  it('a template without an end of turn: the content alone, not the next header', () => {
    const bare = `{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}{% endfor %}`
    expect(scored(chatmlTokenizer('</s>'), bare)).toEqual(['Yes.', ' It is\n so. '])
  })

  it('Llama 2, which trims contents and puts a space before EOS', () => {
    const got = scored(tokenizerWith([], '</s>'), llama2)
    expect(got.map((text) => text.trim())).toEqual(['Yes. </s>', 'It is\n so. </s>'])
  })

  it('a template that cuts the thinking out of a turn', () => {
    const source = `{% for m in messages %}{% set text = m.content.split('</think>')[-1] %}{{ '<|im_start|>' + m.role + '\n' + text + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`
    const messages = [
      { role: 'user', content: 'Why?' },
      { role: 'assistant', content: '<think>hm</think>So.' },
    ]
    expect(scored(chatmlTokenizer('</s>'), source, messages)).toEqual(['So.<|im_end|>'])
  })

  it('refuses a template whose assistant text cannot be found, and says what to do', () => {
    const source = `{{ messages | length }}{% for m in messages %}{{ m.content | length }}{% endfor %}`
    expect(() => scored(tokenizerWith([], '</s>'), source)).toThrow(/Put \{% generation %\}/)
  })

  it('a turn that the template leaves out is not scored', () => {
    const source = `{% for m in messages %}{% if loop.last %}{{ m.content + eos_token }}{% endif %}{% endfor %}`
    const got = scored(tokenizerWith([], '</s>'), source)
    expect(got.map((text) => text.trim())).toEqual(['It is\n so. </s>'])
  })

  it('without assistant turns nothing is scored', () => {
    expect(scored(tokenizerWith([], '</s>'), zephyrTemplate, chat.slice(0, 2))).toEqual([])
  })

  it('contents made of the marks that are used inside do no harm', () => {
    const content = '\u{F5A01}x\u{F5A00}\u{F5A02}'
    const messages = [{ role: 'assistant', content }]
    expect(scored(tokenizerWith([], '</s>'), zephyrTemplate, messages)).toEqual([`${content}</s>`])
  })
})

describe('assistant masks with {% generation %}', () => {
  const tokenizer = tokenizerWith([], '</s>')

  it('are exactly what stands in the blocks', () => {
    const source = `{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{{ eos_token }}{% else %}{{ m.content }}{% endif %}{% endfor %}`
    const messages = chat.slice(1, 3)
    expect(scored(tokenizer, source, messages)).toEqual(['Yes.'])
  })

  it('white space around the tags goes as around any block tag', () => {
    const body = (open: string, close: string) =>
      compileTemplate(`a \n  ${open}\n  b\n  ${close}\n c`).render([])
    const asIf = (tag: string) =>
      body(tag.replace('X', 'generation'), tag.replace('X', 'endgeneration'))
    const asBlock = (tag: string) => body(tag.replace('X', 'if true'), tag.replace('X', 'endif'))
    for (const tag of ['{% X %}', '{%- X %}', '{% X -%}', '{%- X -%}']) {
      expect(asIf(tag), tag).toBe(asBlock(tag))
    }
  })

  it('a token across the border of a block counts as said', () => {
    const source = `{% for m in messages %}{{ 'an' }}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}`
    const { ids, assistantMask } = encodeConversation(tokenizer, compileTemplate(source), [
      { role: 'assistant', content: 'swer' },
    ])
    expect([...ids]).toEqual(tokenizer.encode('answer'))
    expect([...assistantMask]).toEqual([1])
  })
})

describe('rendering', () => {
  it('ends with the assistant header when asked', () => {
    const text = compileTemplate(zephyrTemplate).render(chat.slice(1, 2), {
      eosToken: '</s>',
      addGenerationPrompt: true,
    })
    expect(text).toBe('<|user|>\nIs it so?</s>\n<|assistant|>\n')
  })

  it('BOS from the template and addBos give one BOS', () => {
    const tokenizer = tokenizerWith([], '</s>')
    const template = compileTemplate(llama2)
    const once = encodeConversation(tokenizer, template, chat)
    const { ids } = encodeConversation(tokenizer, template, chat, { addBos: true })
    expect([...ids]).toEqual([...once.ids])
    expect([...ids].filter((id) => id === 1)).toHaveLength(1)
  })

  it('a syntax error and a refused conversation are named', () => {
    expect(() => compileTemplate('{% for x %}')).toThrow(
      expect.objectContaining({
        code: 'ERR_TOKENIZER',
        message: expect.stringMatching(/^chat template: /),
      }),
    )
    const strict = compileTemplate(`{{ raise_exception('roles must alternate') }}`)
    expect(() => strict.render(chat)).toThrow(
      expect.objectContaining({
        code: 'ERR_DATA',
        message:
          'chat template: roles must alternate (conversation of 5 turns: system, user, assistant, user, assistant)',
      }),
    )
  })
})
