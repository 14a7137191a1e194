import { Template } from '@huggingface/jinja'
import { type Check, callable, fields, flag, list, optional, text } from '../arguments.js'
import { WestwindError } from '../errors.js'
import type { Message } from './conversation.js'
import { checkTokenizer, type TextSpan, type Tokenizer } from './tokenizer/tokenizer.js'

/**
 * The template of zephyr-7b-beta, used where neither the recipe nor the tokenizer has one: every turn is
 * `<|role|>\n` + content + EOS + `\n`, and the generation prompt is `<|assistant|>\n`.
 */
export const zephyrTemplate = `{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}`

export interface RenderOptions {
  /** Ends the text with the header of an assistant turn. */
  addGenerationPrompt?: boolean
  bosToken?: string
  eosToken?: string
}

/** A compiled chat template. */
export interface ChatTemplate {
  readonly source: string
  /** The conversation as text. Errors: ERR_DATA if the template refuses it or fails on it. */
  render(messages: readonly Message[], options?: RenderOptions): string
  /**
   * The conversation as text, with the ranges that the assistant said: the `{% generation %}` blocks if the template
   * has them (`exact`), else the contents of the assistant's turns, without what the template puts around them.
   */
  renderSpans(
    messages: readonly Message[],
    options?: RenderOptions,
  ): { text: string; spans: TextSpan[]; exact: boolean }
}

const checkRenderOptions: Check<RenderOptions> = fields<RenderOptions>({
  addGenerationPrompt: optional(flag),
  bosToken: optional(text),
  eosToken: optional(text),
})
export const checkMessages: Check<readonly Message[]> = list(
  fields<Message>({ role: text, content: text }),
)
export const checkTemplate: Check<ChatTemplate> = fields<ChatTemplate>({
  source: text,
  render: callable(),
  renderSpans: callable(),
})

/** Compiles Jinja as transformers does: trim_blocks, lstrip_blocks, `{% generation %}`. Errors: ERR_TOKENIZER. */
export function compileTemplate(source: string): ChatTemplate {
  text(source, 'compileTemplate: source')
  const { source: marked, blocks } = markGeneration(source)
  let template: Template
  try {
    template = new Template(marked)
  } catch (cause) {
    throw new WestwindError('ERR_TOKENIZER', `chat template: ${reason(cause)}`, { cause })
  }

  function run(messages: readonly Message[], options: RenderOptions, open = '', close = '') {
    try {
      return template.render({
        messages,
        add_generation_prompt: options.addGenerationPrompt ?? false,
        bos_token: options.bosToken ?? '',
        eos_token: options.eosToken ?? '',
        tools: null,
        documents: null,
        [kOpen]: open,
        [kClose]: close,
      })
    } catch (cause) {
      const roles = messages.map(({ role }) => role).join(', ')
      throw new WestwindError(
        'ERR_DATA',
        `chat template: ${reason(cause)} (conversation of ${messages.length} turns: ${roles})`,
        { cause },
      )
    }
  }

  return {
    source,
    render(messages, options = {}) {
      checkMessages(messages, 'render: messages')
      checkRenderOptions(options, 'render: options')
      return run(messages, options)
    },
    renderSpans(messages, options = {}) {
      checkMessages(messages, 'renderSpans: messages')
      checkRenderOptions(options, 'renderSpans: options')
      const text = run(messages, options)
      const [open, close] = sentinels(messages, text)
      if (blocks) {
        const spans = cutSentinels(run(messages, options, open, close), open, close, text)
        if (spans !== undefined) return { text, spans, exact: true }
      }
      const spans =
        contentSpans((marked) => run(marked, options), messages, open, close, text) ??
        prefixSpans(
          (turns, prompt) => run(turns, { ...options, addGenerationPrompt: prompt }),
          messages,
          text,
        )
      if (spans !== undefined) return { text, spans, exact: false }
      throw new WestwindError(
        'ERR_TOKENIZER',
        'chat template: cannot tell which part of its text the assistant said. Put {% generation %} … {% endgeneration %} around it in the template',
      )
    },
  }
}

const kOpen = '__westwind_open'
const kClose = '__westwind_close'

/**
 * Replaces the tags of `{% generation %}` blocks by a print of a variable (empty, or a sentinel). The print stands
 * inside an `if`, so that the white space around the tag is treated as around any block tag.
 */
function markGeneration(source: string): { source: string; blocks: boolean } {
  let blocks = false
  const marked = source.replace(
    /\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}/g,
    (_tag, left: string, end: string | undefined, right: string) => {
      blocks = true
      return `{%${left} if true %}{{ ${end === undefined ? kOpen : kClose} }}{% endif ${right}%}`
    },
  )
  return { source: marked, blocks }
}

/** Two strings of private-use characters that nothing in the conversation contains. */
function sentinels(messages: readonly Message[], text: string): [string, string] {
  const used = (mark: string) =>
    text.includes(mark) || messages.some(({ content }) => content.includes(mark))
  for (let tail = ''; ; tail += '\u{F5A02}') {
    const open = `\u{F5A00}${tail}`
    const close = `\u{F5A01}${tail}`
    if (!used(open) && !used(close)) return [open, close]
  }
}

/** The ranges between sentinels; undefined unless they pair up and the text without them is `plain`. */
function cutSentinels(
  rendered: string,
  open: string,
  close: string,
  plain: string,
): TextSpan[] | undefined {
  const spans: TextSpan[] = []
  let text = ''
  let rest = 0
  for (;;) {
    const from = rendered.indexOf(open, rest)
    if (from < 0) break
    const to = rendered.indexOf(close, from)
    if (to < 0) return undefined
    text += rendered.slice(rest, from)
    const start = text.length
    text += rendered.slice(from + open.length, to)
    spans.push({ start, end: text.length })
    rest = to + close.length
  }
  text += rendered.slice(rest)
  return text === plain ? spans : undefined
}

/** Renders with the assistant's contents marked: whole, or without outer white space for templates that trim. */
function contentSpans(
  render: (messages: Message[]) => string,
  messages: readonly Message[],
  open: string,
  close: string,
  plain: string,
): TextSpan[] | undefined {
  for (const trimmed of [false, true]) {
    const mark = (content: string) => {
      const body = trimmed ? content.trim() : content
      const at = content.indexOf(body)
      return content.slice(0, at) + open + body + close + content.slice(at + body.length)
    }
    const marked = messages.map((message) =>
      isAssistant(message) ? { ...message, content: mark(message.content) } : message,
    )
    try {
      const spans = cutSentinels(render(marked), open, close, plain)
      if (spans !== undefined) return spans
    } catch (error) {
      if (!(error instanceof WestwindError)) throw error // a template that chokes on the marks: next way
    }
  }
  return undefined
}

/** Renders the conversation turn by turn: what an assistant turn adds after the generation prompt is its span. */
function prefixSpans(
  render: (messages: readonly Message[], addGenerationPrompt: boolean) => string,
  messages: readonly Message[],
  plain: string,
): TextSpan[] | undefined {
  const spans: TextSpan[] = []
  for (const [i, message] of messages.entries()) {
    if (!isAssistant(message)) continue
    const header = render(messages.slice(0, i), true)
    const upTo = render(messages.slice(0, i + 1), false)
    if (!upTo.startsWith(header) || !plain.startsWith(upTo)) return undefined
    // Without outer white space and what follows the content: the stop token is looked for from there.
    const body = message.content.trim()
    const at = body === '' ? header.length : upTo.indexOf(body, header.length)
    spans.push({ start: header.length, end: at < 0 ? upTo.trimEnd().length : at + body.length })
  }
  return spans
}

function isAssistant({ role }: Message): boolean {
  return role === 'assistant'
}

function reason(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause)
}

export interface EncodeConversationOptions {
  /** Tokenises the text with the tokenizer's special tokens (TRL in 2023); never a second BOS. */
  addBos?: boolean
}

const checkEncodeOptions: Check<EncodeConversationOptions> = fields<EncodeConversationOptions>({
  addBos: optional(flag),
})

/**
 * Tokens of a conversation and, for each, whether the assistant said it (1) or not (0): content and the stop token
 * after it, not the header before, nor what the template writes after the stop token. With `{% generation %}` in the
 * template exactly what stands in these blocks. A token that covers both kinds of characters counts as said.
 */
export function encodeConversation(
  tokenizer: Tokenizer,
  template: ChatTemplate,
  messages: readonly Message[],
  options: EncodeConversationOptions = {},
): { ids: Int32Array; assistantMask: Uint8Array } {
  checkTokenizer(tokenizer, 'encodeConversation: tokenizer')
  checkTemplate(template, 'encodeConversation: template')
  checkMessages(messages, 'encodeConversation: messages')
  checkEncodeOptions(options, 'encodeConversation: options')
  const { text, spans, exact } = template.renderSpans(messages, templateTokens(tokenizer))
  const scored = exact ? spans : spans.map((span) => withStop(tokenizer, template, text, span))
  const { ids, mask } = tokenizer.encodeMasked(text, scored, {
    addSpecialTokens: wantsSpecialTokens(tokenizer, text, options.addBos),
  })
  return { ids, assistantMask: mask }
}

/** Tokens of a rendered text; with `addBos` the tokenizer's special tokens, but never a second BOS. */
export function encodeRendered(tokenizer: Tokenizer, text: string, addBos?: boolean): number[] {
  return tokenizer.encode(text, { addSpecialTokens: wantsSpecialTokens(tokenizer, text, addBos) })
}

/** `bos_token` and `eos_token` for a template. */
export function templateTokens(tokenizer: Tokenizer): { bosToken?: string; eosToken?: string } {
  const { bosToken, eosToken } = tokenizer
  return {
    ...(bosToken !== undefined && { bosToken }),
    ...(eosToken !== undefined && { eosToken }),
  }
}

function wantsSpecialTokens(tokenizer: Tokenizer, text: string, addBos = false): boolean {
  return addBos && !(tokenizer.bosToken !== undefined && text.startsWith(tokenizer.bosToken))
}

/** Extends a span over the stop token that follows it, if one does. */
function withStop(
  tokenizer: Tokenizer,
  template: ChatTemplate,
  text: string,
  span: TextSpan,
): TextSpan {
  const stop = stopText(tokenizer, template)
  return text.startsWith(stop, span.end) ? { start: span.start, end: span.end + stop.length } : span
}

const stopTexts = new WeakMap<ChatTemplate, WeakMap<Tokenizer, string>>()

/**
 * What a template writes after an assistant's last content that the model must learn to say: EOS (with the white space
 * before it, as in Llama 2's), else a special token right there, such as `<|im_end|>`. Empty if neither.
 */
function stopText(tokenizer: Tokenizer, template: ChatTemplate): string {
  const perTokenizer = stopTexts.get(template) ?? new WeakMap<Tokenizer, string>()
  stopTexts.set(template, perTokenizer)
  const known = perTokenizer.get(tokenizer)
  if (known !== undefined) return known
  const stop = probeStop(tokenizer, template)
  perTokenizer.set(tokenizer, stop)
  return stop
}

function probeStop(tokenizer: Tokenizer, template: ChatTemplate): string {
  const { eosToken = '' } = tokenizer
  const probe = [
    { role: 'user', content: 'question' },
    { role: 'assistant', content: 'answer' },
  ]
  let tail: string
  try {
    const { text, spans } = template.renderSpans(probe, templateTokens(tokenizer))
    tail = text.slice(spans.at(-1)?.end ?? text.length)
  } catch (error) {
    if (!(error instanceof WestwindError)) throw error
    return eosToken // a template that wants another kind of conversation
  }
  const space = tail.slice(0, tail.length - tail.trimStart().length)
  if (eosToken !== '' && tail.startsWith(eosToken, space.length)) return space + eosToken
  return tokenizer.specialTokenAt(tail, 0) ?? ''
}
