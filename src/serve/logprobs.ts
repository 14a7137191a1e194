import { WestwindError } from '../errors.js'
import type { TokenLogprob } from '../model/engine.js'
import type { TokenTexts } from './token-texts.js'

/** A token of an answer and where its text begins, in UTF-16 units. */
export interface PlacedToken {
  id: number
  offset: number
  /** Absent for the first token of a prompt, and where none was asked for. */
  logprob?: TokenLogprob | undefined
}

/** `logprobs` of `/v1/completions`: four lists with one entry per token. */
export interface CompletionLogprobs {
  tokens: string[]
  token_logprobs: (number | null)[]
  top_logprobs: (Record<string, number> | null)[]
  text_offset: number[]
}

export function completionLogprobs(
  texts: TokenTexts,
  tokens: readonly PlacedToken[],
): CompletionLogprobs {
  return {
    tokens: tokens.map(({ id }) => texts.of(id).text),
    token_logprobs: tokens.map(({ logprob }) => (logprob ? written(logprob.logprob) : null)),
    top_logprobs: tokens.map(({ logprob }) => (logprob ? topByText(texts, logprob) : null)),
    text_offset: tokens.map(({ offset }) => offset),
  }
}

/** The likeliest tokens and the token itself. Of two with the same text the likelier one stays. */
function topByText(texts: TokenTexts, { id, logprob, top }: TokenLogprob): Record<string, number> {
  const best = new Map<string, number>()
  for (const one of [...top, { id, logprob }]) {
    const { text } = texts.of(one.id)
    const known = best.get(text)
    if (known === undefined || one.logprob > known) best.set(text, one.logprob)
  }
  return Object.fromEntries([...best].map(([text, value]) => [text, written(value)]))
}

interface ChatToken {
  token: string
  logprob: number
  bytes: number[] | null
}

/** An entry of `logprobs.content` of `/v1/chat/completions`. */
export interface ChatLogprob extends ChatToken {
  top_logprobs: ChatToken[]
}

export function chatLogprobs(texts: TokenTexts, tokens: readonly PlacedToken[]): ChatLogprob[] {
  const shown = (id: number, logprob: number): ChatToken => {
    const { text, bytes } = texts.of(id)
    return { token: text, logprob: written(logprob), bytes }
  }
  return tokens.flatMap(({ id, logprob }) => {
    if (!logprob) return []
    const top = logprob.top.map((one) => shown(one.id, one.logprob))
    return [{ ...shown(id, logprob.logprob), top_logprobs: top }]
  })
}

/** JSON has no infinities: the lowest f32 says as much. NaN would be a broken model. */
function written(logprob: number): number {
  if (Number.isNaN(logprob)) {
    throw new WestwindError('ERR_NON_FINITE', 'the model gives log-probs that are no numbers')
  }
  return Math.max(logprob, -3.4028234663852886e38)
}
