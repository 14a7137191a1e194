import type { ChatTemplate } from './chat-template.js'
import type { Message } from './conversation.js'
import {
  type Dropped,
  type EncodeOptions,
  encodeContinuations,
  requireEncoder,
} from './encode-shared.js'
import type { PairSource } from './rows.js'
import type { Tokenizer } from './tokenizer/tokenizer.js'

/** One preference pair: the prompt, and two completions of which every token is scored. */
export interface PairExample {
  promptIds: Int32Array
  chosenIds: Int32Array
  rejectedIds: Int32Array
  truncated?: boolean
}

interface Ids {
  prompt: ArrayLike<number>
  chosen: ArrayLike<number>
  rejected: ArrayLike<number>
}

/**
 * Tokens of one preference row, as TRL 1.x prepares it: the prompt ends with the assistant's header, a completion is
 * all that the template writes after it (its newline after EOS too). Pairs whose prompt leaves no room in `maxLength`
 * are dropped, longer completions keep their beginning.
 *
 * Errors: ERR_TOKENIZER without the tokenizer or template that the row needs.
 */
export function encodePair(
  tokenizer: Tokenizer | undefined,
  template: ChatTemplate | undefined,
  row: PairSource,
  options: EncodeOptions = {},
): PairExample | Dropped {
  const whole = pairIds(tokenizer, template, row, options)
  if (whole.prompt.length === 0) return { dropped: 'empty prompt' }
  if (whole.chosen.length === 0 || whole.rejected.length === 0) {
    return { dropped: 'empty completion' }
  }
  const cut = truncatePair(whole, options)
  if (cut === undefined) return { dropped: 'prompt >= max_length' }
  const truncated =
    cut.prompt.length < whole.prompt.length ||
    cut.chosen.length < whole.chosen.length ||
    cut.rejected.length < whole.rejected.length
  return {
    promptIds: Int32Array.from(cut.prompt),
    chosenIds: Int32Array.from(cut.chosen),
    rejectedIds: Int32Array.from(cut.rejected),
    ...(truncated && { truncated }),
  }
}

function pairIds(
  tokenizer: Tokenizer | undefined,
  template: ChatTemplate | undefined,
  row: PairSource,
  options: EncodeOptions,
): Ids {
  if ('prompt_ids' in row) {
    return { prompt: row.prompt_ids, chosen: row.chosen_ids, rejected: row.rejected_ids }
  }
  const encoder = requireEncoder(tokenizer, template)
  const { prompt, chosen, rejected } = splitPrompt(row, options)
  const { promptLength, full } = encodeContinuations(encoder, prompt, [chosen, rejected], options)
  const [fullChosen = [], fullRejected = []] = full
  const { eosId } = encoder.tokenizer
  const last = options.secondEos && eosId !== undefined ? [eosId] : []
  return {
    prompt: fullChosen.slice(0, promptLength),
    chosen: [...fullChosen.slice(promptLength), ...last],
    rejected: [...fullRejected.slice(promptLength), ...last],
  }
}

type Parts<T> = { prompt: T; chosen: T; rejected: T }
type TextPair = Exclude<PairSource, { prompt_ids: unknown }>

/**
 * The prompt of a row. Without one of the same kind as the completions (strings or messages) it is their common
 * beginning; identical completions keep their last turn, or character. In 2023 (`scoreHeader`) it was all turns of
 * `chosen` but the last, and the completions were the last turns.
 */
export function splitPrompt(
  row: TextPair,
  options: Pick<EncodeOptions, 'scoreHeader'> = {},
): Parts<string> | Parts<Message[]> {
  const { prompt, chosen, rejected } = row
  if (typeof chosen === 'string' && typeof rejected === 'string') {
    if (typeof prompt === 'string') return { prompt, chosen, rejected }
    let n = commonBeginning(chosen, rejected, (a, b) => a === b)
    if (chosen[n] !== rejected[n] && chosen[n - 1] === ' ') n-- // the space begins the completions
    return { prompt: chosen.slice(0, n), chosen: chosen.slice(n), rejected: rejected.slice(n) }
  }
  const long = typeof chosen === 'string' ? [] : chosen
  const other = typeof rejected === 'string' ? [] : rejected
  if (Array.isArray(prompt)) return { prompt, chosen: long, rejected: other }
  if (options.scoreHeader) {
    return { prompt: long.slice(0, -1), chosen: long.slice(-1), rejected: other.slice(-1) }
  }
  const n = commonBeginning(long, other, (a, b) => a.role === b.role && a.content === b.content)
  return { prompt: long.slice(0, n), chosen: long.slice(n), rejected: other.slice(n) }
}

function commonBeginning<T>(
  a: ArrayLike<T>,
  b: ArrayLike<T>,
  same: (a: T, b: T) => boolean,
): number {
  const n = Math.min(a.length, b.length)
  for (let i = 0; i < n; i++) if (!same(a[i]!, b[i]!)) return i
  return Math.max(0, n - 1)
}

/** Undefined: the pair is to be dropped. */
function truncatePair(ids: Ids, options: EncodeOptions): Ids | undefined {
  const maxLength = options.maxLength ?? Number.POSITIVE_INFINITY
  const { prompt, chosen, rejected } = ids
  const slice = (x: ArrayLike<number>, from: number, to?: number) => Array.from(x).slice(from, to)
  const maxPromptLength = options.maxPromptLength ?? undefined
  if (maxPromptLength === undefined) {
    const room = maxLength - prompt.length
    if (room <= 0) return undefined
    return { prompt, chosen: slice(chosen, 0, room), rejected: slice(rejected, 0, room) }
  }
  const longest = Math.max(chosen.length, rejected.length)
  if (prompt.length + longest <= maxLength) return ids
  const shorter =
    prompt.length > maxPromptLength ? slice(prompt, prompt.length - maxPromptLength) : prompt
  if (shorter.length + longest <= maxLength) return { prompt: shorter, chosen, rejected }
  const room = Math.max(0, maxLength - maxPromptLength)
  if (room === 0) return undefined
  return { prompt: shorter, chosen: slice(chosen, 0, room), rejected: slice(rejected, 0, room) }
}
