import type { Tokenizer } from '../../data/tokenizer/tokenizer.js'
import { WestwindError } from '../../errors.js'
import { rstrip } from '../python-text.js'
import type { ScoreRequest } from '../score.js'

/** Tokens of a text, with what the tokenizer adds (BOS), but no second BOS where the text begins with one. */
export function encodeText(tokenizer: Tokenizer, text: string): number[] {
  const { bosToken } = tokenizer
  const begun = bosToken !== undefined && text.startsWith(bosToken)
  return tokenizer.encode(text, { addSpecialTokens: !begun })
}

/** The token that text without a context follows. */
export function prefixToken(tokenizer: Tokenizer): number {
  const id = tokenizer.bosId ?? tokenizer.eosId
  if (id !== undefined) return id
  throw new WestwindError('ERR_TOKENIZER', 'the tokenizer names neither a BOS nor an EOS token')
}

/**
 * Each continuation behind a context, as lm-evaluation-harness splits them: white space at the context's end goes to
 * the continuation, whose tokens are those of the whole text from the length of the context on. What is longer than
 * the model's context loses its beginning; the last token is never an input, so one more fits.
 *
 * @param where how errors call the document
 * @throws ERR_DATA where a continuation has no token of its own, or more than the model's context
 */
export function encodeContinuations(
  tokenizer: Tokenizer,
  context: string,
  continuations: readonly string[],
  maxLength: number,
  where: string,
): ScoreRequest[] {
  const bare = rstrip(context)
  const spaces = context.slice(bare.length)
  const before = context === '' ? [prefixToken(tokenizer)] : encodeText(tokenizer, bare)
  return continuations.map((continuation, i) => {
    const tokens =
      context === ''
        ? tokenizer.encode(continuation)
        : encodeText(tokenizer, context + continuation).slice(before.length)
    if (context === '' && tokens[0] === before[0]) tokens.shift()
    if (tokens.length === 0 || tokens.length > maxLength) {
      throw new WestwindError(
        'ERR_DATA',
        `${where}: choice ${i + 1} (${JSON.stringify(spaces + continuation)}) has ${tokens.length} tokens; ` +
          `from 1 to the model's context of ${maxLength} can be scored`,
      )
    }
    const ids = Int32Array.from([...before, ...tokens].slice(-(maxLength + 1)))
    const truncated = ids.length < before.length + tokens.length
    return { ids, scored: tokens.length, ...(truncated && { truncated }) }
  })
}
