import { createHash } from 'node:crypto'
import {
  abortSignal,
  type Check,
  callable,
  fields,
  integer,
  optional,
  plainCopy,
} from '../arguments.js'
import { pause } from '../data/abort.js'
import {
  type ChatTemplate,
  checkTemplate,
  compileTemplate,
  templateTokens,
  zephyrTemplate,
} from '../data/chat-template.js'
import { checkRows, type Row } from '../data/read-rows.js'
import { sftSource } from '../data/rows.js'
import type { Tokenizer } from '../data/tokenizer/tokenizer.js'
import { refuse, WestwindError } from '../errors.js'
import { checkModel, type Model } from '../model/model.js'
import { encodeText, prefixToken } from './choice/encode.js'
import { countWords } from './python-text.js'
import { type ScoreRequest, score } from './score.js'

export interface PerplexityOptions {
  /**
   * Tokens that each window after the first predicts, from 1 to the model's context; the context by default, as in
   * lm-evaluation-harness. With fewer each token is predicted from more context, at more cost.
   */
  stride?: number
  /** For rows of messages; by default the tokenizer's, or Zephyr's where it has none. */
  template?: ChatTemplate
  limit?: number
  onProgress?: (done: number, total: number) => void
  signal?: AbortSignal
}

/** One text and how likely the model finds it. */
export interface PerplexitySample {
  id: string
  text_sha256: string
  /** Summed log-prob of the tokens, the tokenizer's BOS included, in nats. */
  logprob: number
  /** The same without BOS. */
  text_logprob: number
  /** Without BOS. */
  tokens: number
  words: number
  /** In UTF-8. */
  bytes: number
}

export interface PerplexityResult {
  metrics: Record<
    'word_perplexity' | 'byte_perplexity' | 'bits_per_byte' | 'token_perplexity',
    number
  >
  samples: PerplexitySample[]
}

const checkOptions: Check<PerplexityOptions> = fields<PerplexityOptions>({
  stride: optional(integer(1)),
  template: optional(checkTemplate),
  limit: optional(integer(1)),
  onProgress: optional(callable()),
  signal: optional(abortSignal),
})

/**
 * Perplexity of texts (`text`, or `messages` through the chat template), each cut into windows of the model's context
 * so that every token is predicted once, as lm-evaluation-harness's `loglikelihood_rolling` does it:
 *
 *   word_perplexity = exp(-L / words)   byte_perplexity = exp(-L / bytes)   bits_per_byte = -L / bytes / ln 2
 *
 * with L the log-prob of all tokens, which there begins with that of BOS after BOS. token_perplexity leaves it out.
 *
 * @throws ERR_DATA naming the row that is malformed; ERR_TOKENIZER; ERR_INVALID_ARG; ERR_ABORTED
 */
export async function evaluatePerplexity(
  model: Model,
  rows: Iterable<Row>,
  options: PerplexityOptions = {},
): Promise<PerplexityResult> {
  checkModel(model, 'evaluatePerplexity: model')
  checkRows(rows, 'evaluatePerplexity: rows')
  checkOptions(options, 'evaluatePerplexity: options')
  const { tokenizer, config } = model
  if (!tokenizer) throw new WestwindError('ERR_TOKENIZER', 'perplexity: the model has no tokenizer')
  const context = config.maxPositionEmbeddings
  const { stride = context, limit = Number.POSITIVE_INFINITY, onProgress, signal } = options
  if (stride > context) refuse('stride', `at most the model's context of ${context}`, stride)

  const template = options.template ?? compileTemplate(tokenizer.chatTemplate ?? zephyrTemplate)
  const samples: PerplexitySample[] = []
  const requests: (ScoreRequest & { sample: PerplexitySample; bos: boolean })[] = []
  for (const given of rows) {
    if (samples.length >= limit) break
    await pause(signal)
    const where = `row ${samples.length + 1}`
    const row = plainCopy(given, where, 'ERR_DATA')
    const text = textOf(row, where, tokenizer, template)
    const ids = encodeText(tokenizer, text)
    const begins = ids.length > 0 && ids[0] === tokenizer.bosId
    const sample: PerplexitySample = {
      id:
        typeof row.id === 'string' || typeof row.id === 'number'
          ? `${row.id}`
          : `${samples.length}`,
      text_sha256: createHash('sha256').update(text).digest('hex'),
      logprob: 0,
      text_logprob: 0,
      tokens: ids.length - (begins ? 1 : 0),
      words: countWords(text),
      bytes: Buffer.byteLength(text),
    }
    samples.push(sample)
    for (const [i, window] of windows(ids, prefixToken(tokenizer), context, stride).entries()) {
      requests.push({ ...window, sample, bos: begins && i === 0 })
    }
  }
  if (requests.length === 0) throw new WestwindError('ERR_DATA', 'perplexity: there is no text')
  const scores = await score(model, requests, { signal, onProgress })
  for (const [i, { sum, logprobs }] of scores.entries()) {
    const { sample, bos } = requests[i]!
    sample.logprob += sum
    sample.text_logprob += bos ? sum - logprobs[0]! : sum
  }
  return { metrics: perplexities(samples), samples }
}

/** The text of a row, whole. */
function textOf(row: Row, where: string, tokenizer: Tokenizer, template: ChatTemplate): string {
  const source = sftSource(row, where)
  if ('text' in source) return source.text
  if ('messages' in source) return template.render(source.messages, templateTokens(tokenizer))
  throw new WestwindError('ERR_DATA', `${where}: perplexity is measured on text or messages`)
}

/**
 * Windows in which each token is predicted once: the first `length` tokens after `prefix`, then `stride` at a time
 * from as much of what is before them as fits in `length` inputs.
 */
export function windows(
  tokens: readonly number[],
  prefix: number,
  length: number,
  stride: number,
): ScoreRequest[] {
  const all = [prefix, ...tokens]
  const requests: ScoreRequest[] = []
  for (let done = 0; done < tokens.length; ) {
    const scored = Math.min(done === 0 ? length : stride, tokens.length - done)
    const end = done + scored + 1 // in `all`; the last token is no input
    requests.push({ ids: Int32Array.from(all.slice(Math.max(0, end - length - 1), end)), scored })
    done += scored
  }
  return requests
}

function perplexities(samples: readonly PerplexitySample[]): PerplexityResult['metrics'] {
  const sum = (f: (sample: PerplexitySample) => number) => samples.reduce((s, x) => s + f(x), 0)
  const logprob = sum((sample) => sample.logprob)
  const bytes = sum((sample) => sample.bytes)
  return {
    word_perplexity: Math.exp(-logprob / sum(({ words }) => words)),
    byte_perplexity: Math.exp(-logprob / bytes),
    bits_per_byte: -logprob / bytes / Math.LN2,
    token_perplexity: Math.exp(-sum((sample) => sample.text_logprob) / sum(({ tokens }) => tokens)),
  }
}
