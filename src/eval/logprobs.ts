import { abortSignal, type Check, fields, integer, optional, plainCopy } from '../arguments.js'
import { pairBatch, pairTokens, type SegmentBatch, sftBatch } from '../data/batch.js'
import {
  type ChatTemplate,
  checkTemplate,
  compileTemplate,
  zephyrTemplate,
} from '../data/chat-template.js'
import {
  encodePair,
  encodeSft,
  type PairExample,
  pairSource,
  type SftExample,
  sftSource,
} from '../data/encode.js'
import { checkRows, type Row } from '../data/read-rows.js'
import { WestwindError } from '../errors.js'
import { isRecord } from '../json.js'
import { batchLogps, toDevice } from '../model/batch.js'
import { checkModel, type Model } from '../model/model.js'
import { isolated, scope } from '../tensor/scope.js'

export interface LogprobsOptions {
  /** Instead of the tokenizer's, or of Zephyr's where it has none. */
  template?: ChatTemplate
  /** Tokens computed at once; 4096 by default. A longer row is computed alone; results do not depend on it. */
  batchTokens?: number
  signal?: AbortSignal
}

const checkOptions: Check<LogprobsOptions> = fields<LogprobsOptions>({
  template: optional(checkTemplate),
  batchTokens: optional(integer(1)),
  signal: optional(abortSignal),
})

/** Log-probabilities of one text, in nats. */
export interface SequenceLogps {
  /** One per predicted token. */
  logps: number[]
  sum: number
  /** How many were predicted. */
  tokens: number
}

/** What a row gives: one text, or the two completions of a preference row. */
export type RowLogps = (SequenceLogps | { chosen: SequenceLogps; rejected: SequenceLogps }) & {
  /** Cut to the model's context. */
  truncated?: true
  /** Why nothing of it was scored. */
  dropped?: string
}

/**
 * Log-probabilities that the model gives to the rows of a data set, of any schema that training reads: of
 * `messages` and `text` every token but the first, of `prompt` + `completion` and of `chosen` and `rejected`
 * the completions' tokens, of `input_ids` those whose label is not -100. Yields one result per row, in order.
 *
 * @throws ERR_DATA naming the row that is malformed; ERR_TOKENIZER; ERR_ABORTED
 */
export async function* logprobs(
  model: Model,
  rows: Iterable<Row>,
  options: LogprobsOptions = {},
): AsyncGenerator<RowLogps, void> {
  checkModel(model, 'logprobs: model')
  checkRows(rows, 'logprobs: rows')
  checkOptions(options, 'logprobs: options')
  const { batchTokens = 4096, signal } = options
  let group: Encoded[] = []
  let tokens = 0
  for (const encoded of encodeAll(model, rows, options.template)) {
    if (group.length > 0 && (tokens + encoded.tokens > batchTokens || mixed(group, encoded))) {
      yield* await score(model, group, signal)
      group = []
      tokens = 0
    }
    group.push(encoded)
    tokens += encoded.tokens
  }
  if (group.length > 0) yield* await score(model, group, signal)
}

/** A row as tokens; without an example it was dropped. */
interface Encoded {
  pair: boolean
  example?: SftExample | PairExample
  dropped?: string
  tokens: number
}

function* encodeAll(
  model: Model,
  rows: Iterable<Row>,
  given: ChatTemplate | undefined,
): Generator<Encoded> {
  const { tokenizer, config } = model
  const template = given ?? compileTemplate(tokenizer?.chatTemplate ?? zephyrTemplate)
  const encoding = { maxLength: config.maxPositionEmbeddings }
  let number = 0
  for (const given of rows) {
    const where = `row ${++number}`
    const row = plainCopy(given, where, 'ERR_DATA')
    const pair = isRecord(row) && isPair(row)
    const example = pair
      ? encodePair(tokenizer, template, pairSource(row, where), encoding)
      : encodeSft(tokenizer, template, sftSource(row, where), encoding)
    if ('dropped' in example) {
      yield { pair, dropped: example.dropped, tokens: 0 }
    } else {
      checkIds(example, config.vocabSize, where)
      const tokens =
        'ids' in example ? example.ids.length : pairTokens(example, { prefixSharing: true })
      yield { pair, example, tokens }
    }
  }
}

function isPair(row: Row): boolean {
  return ['chosen', 'rejected', 'chosen_ids', 'prompt_ids'].some(
    (name) => row[name] !== undefined && row[name] !== null,
  )
}

function checkIds(example: SftExample | PairExample, vocabSize: number, where: string): void {
  for (const ids of Object.values(example)) {
    if (!(ids instanceof Int32Array)) continue
    const bad = ids.find((id) => id >= vocabSize)
    if (bad === undefined) continue
    throw new WestwindError(
      'ERR_DATA',
      `${where}: token id ${bad} is not in the model's vocabulary of ${vocabSize}`,
    )
  }
}

function mixed(group: readonly Encoded[], next: Encoded): boolean {
  return group[0]!.pair !== next.pair
}

async function score(
  model: Model,
  group: readonly Encoded[],
  signal: AbortSignal | undefined,
): Promise<RowLogps[]> {
  if (signal?.aborted) throw new WestwindError('ERR_ABORTED', 'scoring was stopped')
  const examples = group.flatMap(({ example }) => example ?? [])
  const documents = examples.flatMap((example) => ('ids' in example ? [example] : []))
  const pairs = examples.flatMap((example) => ('ids' in example ? [] : [example]))
  const sequences =
    pairs.length > 0
      ? await sequenceLogps(model, pairBatch(pairs, { prefixSharing: true }))
      : documents.length > 0
        ? await sequenceLogps(model, sftBatch(documents.map((document) => [document])))
        : []
  let next = 0
  return group.map(({ pair, example, dropped }): RowLogps => {
    const nothing = { logps: [], sum: 0, tokens: 0 }
    if (!example) {
      return { ...(pair ? { chosen: nothing, rejected: nothing } : nothing), dropped: dropped! }
    }
    const at = next++
    const cut = example.truncated ? { truncated: true as const } : {}
    const first = sequences[at]!
    if (!pair) return { ...first, ...cut }
    return { chosen: first, rejected: sequences[pairs.length + at]!, ...cut }
  })
}

/** The log-probs of a batch, by sequence. */
function sequenceLogps(model: Model, batch: SegmentBatch): Promise<SequenceLogps[]> {
  return isolated(async () => {
    using _ = scope()
    const result = Array.from({ length: batch.sequences }, (): SequenceLogps => {
      return { logps: [], sum: 0, tokens: 0 }
    })
    if (batch.targets.length === 0) return result
    const logps = await batchLogps(model, toDevice(batch, model.device)).logps.read()
    for (const [n, value] of logps.entries()) {
      const sequence = result[batch.sequence[n]!]!
      sequence.logps.push(value)
      sequence.sum += value
      sequence.tokens++
    }
    return result
  })
}
