import { WestwindError } from '../errors.js'
import {
  type ChatTemplate,
  encodeConversation,
  encodeRendered,
  templateTokens,
} from './chat-template.js'
import {
  type Dropped,
  type EncodeOptions,
  encodeContinuations,
  requireEncoder,
  requireTemplate,
  withEos,
  withSystem,
} from './encode-shared.js'
import type { SftSource } from './rows.js'
import type { Tokenizer } from './tokenizer/tokenizer.js'

/** One document: `labels[t]` is `ids[t]` where the token is scored, else -100. Labels are not shifted. */
export interface SftExample {
  ids: Int32Array
  labels: Int32Array
  truncated?: boolean
}

const kNotScored = -100

/**
 * Tokens and labels of one SFT row, as TRL 1.x prepares it: conversations through the chat template and without BOS,
 * text and string completions with the tokenizer's special tokens and with EOS at the end; the first `maxLength`
 * tokens are kept. Rows without any label after that are dropped.
 *
 * Errors: ERR_DATA where the loss asked for does not fit the kind of row; ERR_TOKENIZER without tokenizer or template.
 */
export function encodeSft(
  tokenizer: Tokenizer | undefined,
  template: ChatTemplate | undefined,
  row: SftSource,
  options: EncodeOptions = {},
): SftExample | Dropped {
  const { ids, scored } = encodeRow(tokenizer, template, row, options)
  if (ids.length === 0) return { dropped: 'no tokens' }
  const length = Math.min(ids.length, options.maxLength ?? ids.length)
  const kept = Int32Array.from(ids.slice(0, length))
  const labels = kept.map((id, t) => scored(t, id))
  if (labels.every((label) => label === kNotScored)) return { dropped: 'no label left' }
  return { ids: kept, labels, ...(length < ids.length && { truncated: true }) }
}

interface Encoded {
  ids: ArrayLike<number> & { slice(start: number, end: number): ArrayLike<number> }
  /** The label of position `t`. */
  scored: (t: number, id: number) => number
}

function encodeRow(
  tokenizer: Tokenizer | undefined,
  template: ChatTemplate | undefined,
  row: SftSource,
  options: EncodeOptions,
): Encoded {
  if ('input_ids' in row) {
    const { input_ids: ids, labels } = row
    if (labels === undefined) refuseMasks(options, 'rows of input_ids without labels')
    return { ids, scored: (t, id) => (labels === undefined ? id : (labels[t] ?? kNotScored)) }
  }
  const encoder = requireEncoder(tokenizer, template)
  if ('text' in row) {
    refuseMasks(options, 'rows of text')
    const text = withEos(encoder.tokenizer, row.text)
    const ids = encoder.tokenizer.encode(text, { addSpecialTokens: true })
    return { ids, scored: (_t, id) => id }
  }
  if ('messages' in row) {
    refuseCompletionMask(options, 'rows of messages')
    const chat = requireTemplate(encoder)
    const messages = withSystem(chat, row.messages, options)
    if (!options.assistantOnlyLoss) {
      const text = chat.render(messages, templateTokens(encoder.tokenizer))
      const ids = encodeRendered(encoder.tokenizer, text, options.addBos)
      return { ids, scored: (_t, id) => id }
    }
    const { ids, assistantMask } = encodeConversation(encoder.tokenizer, chat, messages, options)
    return { ids, scored: (t, id) => (assistantMask[t] === 1 ? id : kNotScored) }
  }
  const { prompt, completion } = row
  const { promptLength, full } = encodeContinuations(encoder, prompt, [completion], options)
  const ids = full[0] ?? []
  const begin = (options.completionOnlyLoss ?? true) ? promptLength : 0
  if (!options.assistantOnlyLoss) {
    return { ids, scored: (t, id) => (t >= begin ? id : kNotScored) }
  }
  if (typeof prompt === 'string' || typeof completion === 'string') {
    throw needsTurns('rows of string prompt and completion')
  }
  const chat = requireTemplate(encoder)
  const messages = withSystem(chat, [...prompt, ...completion], options)
  const { assistantMask } = encodeConversation(encoder.tokenizer, chat, messages, options)
  return { ids, scored: (t, id) => (t >= begin && assistantMask[t] === 1 ? id : kNotScored) }
}

function refuseMasks(options: EncodeOptions, rows: string): void {
  if (options.assistantOnlyLoss) throw needsTurns(rows)
  refuseCompletionMask(options, rows)
}

function needsTurns(rows: string): WestwindError {
  return new WestwindError(
    'ERR_DATA',
    `assistant_only_loss needs conversations (messages, or prompt and completion as messages), got ${rows}. Set it to false`,
  )
}

function refuseCompletionMask(options: EncodeOptions, rows: string): void {
  if (!options.completionOnlyLoss) return
  throw new WestwindError(
    'ERR_DATA',
    `completion_only_loss needs rows of prompt and completion, got ${rows}. Leave it out`,
  )
}
