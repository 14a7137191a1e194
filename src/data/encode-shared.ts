import { WestwindError } from '../errors.js'
import { type ChatTemplate, encodeRendered, templateTokens } from './chat-template.js'
import type { Message } from './conversation.js'
import type { Tokenizer } from './tokenizer/tokenizer.js'

/** How rows become token ids. Every option left out gives what TRL 1.x does. */
export interface EncodeOptions {
  /** Longest example in tokens; what is longer keeps its beginning. Left out or null: no limit. */
  maxLength?: number | null
  /** SFT: only what the assistant says is scored, stop token included. */
  assistantOnlyLoss?: boolean
  /** SFT rows of prompt + completion: only the completion is scored. Default true. */
  completionOnlyLoss?: boolean
  /** 2023: conversations are tokenised with the tokenizer's special tokens, so BOS comes first. */
  addBos?: boolean
  /** 2023: the assistant header (`<|assistant|>\n`) is the beginning of the completion instead of the prompt's end. */
  scoreHeader?: boolean
  /** 2023, pairs: if a pair is too long, its prompt is cut to its last so many tokens; nothing is dropped. */
  maxPromptLength?: number | null
  /** 2023: a conversation without a system turn gets an empty one if the template knows system turns. */
  insertEmptySystem?: boolean
  /** 2023, pairs: one more EOS after what the template wrote. */
  secondEos?: boolean
}

/** A row that is not trained on, and why. */
export interface Dropped {
  dropped:
    | 'no tokens'
    | 'no label left'
    | 'prompt >= max_length'
    | 'empty prompt'
    | 'empty completion'
}

/** What every text row needs; pre-tokenised rows need neither. */
export interface Encoder {
  tokenizer: Tokenizer
  template: ChatTemplate | undefined
}

/** The tokenizer and template, or an error that says which row kind misses which. */
export function requireEncoder(
  tokenizer: Tokenizer | undefined,
  template: ChatTemplate | undefined,
): Encoder {
  if (tokenizer !== undefined) return { tokenizer, template }
  throw new WestwindError(
    'ERR_TOKENIZER',
    'rows of text need a tokenizer, and the model has none. Give tokenizer_name_or_path, or rows of input_ids',
  )
}

export function requireTemplate(encoder: Encoder): ChatTemplate {
  if (encoder.template !== undefined) return encoder.template
  throw new WestwindError(
    'ERR_TOKENIZER',
    'rows of messages need a chat template; give chat_template',
  )
}

/** The conversation with an empty system turn in front, where `insertEmptySystem` asks for one. */
export function withSystem(
  template: ChatTemplate,
  messages: readonly Message[],
  options: EncodeOptions,
): readonly Message[] {
  if (!options.insertEmptySystem || messages[0]?.role === 'system') return messages
  if (!/system|<\|im_start\|>/.test(template.source)) return messages
  return [{ role: 'system', content: '' }, ...messages]
}

/**
 * Tokens of a prompt and of the prompt with each of its completions. The prompt's tokens are those at the beginning of
 * every one of these sequences: where the tokenizer joins the prompt's end to the completion, that token belongs to
 * the completion.
 */
export function encodeContinuations(
  encoder: Encoder,
  prompt: string | readonly Message[],
  completions: readonly (string | readonly Message[])[],
  options: EncodeOptions,
): { promptLength: number; full: number[][] } {
  const ids = continuationIds(encoder, prompt, completions, options)
  let promptLength = ids.prompt.length
  for (const full of ids.full) promptLength = Math.min(promptLength, commonLength(ids.prompt, full))
  return { promptLength, full: ids.full }
}

function continuationIds(
  encoder: Encoder,
  prompt: string | readonly Message[],
  completions: readonly (string | readonly Message[])[],
  options: EncodeOptions,
): { prompt: number[]; full: number[][] } {
  const { tokenizer } = encoder
  if (typeof prompt === 'string') {
    const encode = (text: string) => tokenizer.encode(text, { addSpecialTokens: true })
    return {
      prompt: encode(prompt),
      full: completions.map((completion) =>
        encode(prompt + withEos(tokenizer, textOf(completion))),
      ),
    }
  }
  const template = requireTemplate(encoder)
  const turns = withSystem(template, prompt, options)
  const render = (messages: readonly Message[], addGenerationPrompt: boolean) => {
    const text = template.render(messages, { ...templateTokens(tokenizer), addGenerationPrompt })
    return encodeRendered(tokenizer, text, options.addBos)
  }
  return {
    prompt: turns.length === 0 ? [] : render(turns, !options.scoreHeader),
    full: completions.map((completion) => render([...turns, ...messagesOf(completion)], false)),
  }
}

/** The text with EOS at its end, unless it is there or the tokenizer has none. */
export function withEos(tokenizer: Tokenizer, text: string): string {
  const { eosToken = '' } = tokenizer
  return text.endsWith(eosToken) ? text : text + eosToken
}

function textOf(completion: string | readonly Message[]): string {
  if (typeof completion === 'string') return completion
  throw mixed()
}

function messagesOf(completion: string | readonly Message[]): readonly Message[] {
  if (typeof completion !== 'string') return completion
  throw mixed()
}

function mixed(): WestwindError {
  return new WestwindError(
    'ERR_DATA',
    'prompt and completions must all be strings or all be messages, got both kinds in one row',
  )
}

function commonLength(a: readonly number[], b: readonly number[]): number {
  let n = 0
  while (n < a.length && n < b.length && a[n] === b[n]) n++
  return n
}
