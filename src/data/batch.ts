import { WestwindError } from '../errors.js'
import type { PairExample } from './encode-pair.js'
import type { SftExample } from './encode-sft.js'

/**
 * One packed row of `T` tokens without padding, cut into `S` segments: everything the model needs to know of a batch.
 * A token sees its own segment causally and, where the segment has a prefix, the whole of that earlier segment.
 */
export interface SegmentBatch {
  /** `[T]` token ids */
  ids: Int32Array
  /** `[T]` for RoPE and the sliding window; a segment with a prefix goes on where the prefix ends */
  positions: Int32Array
  /** `[S+1]` first token of each segment, then `T`; no segment is empty */
  segStart: Int32Array
  /** `[S]` index of the prefix segment, -1 for none */
  segPrefix: Int32Array
  /** `[N]` token whose hidden state predicts; ascending within a sequence, not distinct between sequences */
  scoredRows: Int32Array
  /** `[N]` token predicted there */
  targets: Int32Array
  /** `[N]` sequence that the prediction belongs to, ascending */
  sequence: Int32Array
  /** number of sequences, those without a scored token included */
  sequences: number
  /** TRL's `num_tokens`: for pairs both sequences, prompts counted twice */
  inputTokens: number
}

/**
 * One micro-batch of SFT: the documents of all rows, each a segment and a sequence of its own. What a document's first
 * label says does not count, for nothing predicts it.
 *
 * @param rows packed rows ({@link packBfd}, {@link packWrapped}), or rows of one document each
 */
export function sftBatch(rows: readonly (readonly SftExample[])[]): SegmentBatch {
  const builder = new BatchBuilder()
  for (const { ids, labels } of rows.flat()) {
    if (ids.length === 0 || labels.length !== ids.length) {
      throw new WestwindError(
        'ERR_INVALID_ARG',
        `sftBatch: a document needs at least one token and a label for each, got ${ids.length} ids and ` +
          `${labels.length} labels`,
      )
    }
    const start = builder.segment(ids, { position: 0, prefix: -1 })
    for (let t = 1; t < ids.length; t++) {
      const label = labels[t]!
      if (label !== -100) builder.score(start + t - 1, label)
    }
    builder.endSequence()
    builder.inputTokens += ids.length
  }
  return builder.finish()
}

/**
 * One micro-batch of DPO with `B` pairs: sequences `0 … B-1` are the chosen completions, `B … 2B-1` the rejected ones;
 * every completion token is scored. With `prefixSharing` a pair is three segments (prompt, chosen, rejected) and the
 * prompt is computed once: its last token is scored twice. Without, it is two whole documents. Both give the same
 * numbers. A completion without a prompt starts unpredicted, as in TRL.
 */
export function pairBatch(
  pairs: readonly PairExample[],
  options: { prefixSharing: boolean },
): SegmentBatch {
  const builder = new BatchBuilder()
  const place = options.prefixSharing ? placeShared : placePlain
  const placed = pairs.map((pair) => place(builder, pair))
  for (const kind of ['chosen', 'rejected'] as const) {
    for (const [i, { promptIds, chosenIds, rejectedIds }] of pairs.entries()) {
      const completion = kind === 'chosen' ? chosenIds : rejectedIds
      const { promptEnd, start } = placed[i]![kind]
      if (promptIds.length > 0 && completion.length > 0) builder.score(promptEnd, completion[0]!)
      for (let t = 1; t < completion.length; t++) builder.score(start + t - 1, completion[t]!)
      builder.endSequence()
      builder.inputTokens += promptIds.length + completion.length
    }
  }
  return builder.finish()
}

/** Where a completion lies: the last token of its prompt and its own first token. */
interface Placed {
  promptEnd: number
  start: number
}

function placeShared(
  builder: BatchBuilder,
  pair: PairExample,
): { chosen: Placed; rejected: Placed } {
  const { promptIds, chosenIds, rejectedIds } = pair
  const prefix = promptIds.length > 0 ? builder.segments : -1
  const promptEnd = builder.segment(promptIds, { position: 0, prefix: -1 }) + promptIds.length - 1
  const at = { position: promptIds.length, prefix }
  return {
    chosen: { promptEnd, start: builder.segment(chosenIds, at) },
    rejected: { promptEnd, start: builder.segment(rejectedIds, at) },
  }
}

function placePlain(
  builder: BatchBuilder,
  pair: PairExample,
): { chosen: Placed; rejected: Placed } {
  const { promptIds, chosenIds, rejectedIds } = pair
  const place = (completion: Int32Array) => {
    const document = new Int32Array(promptIds.length + completion.length)
    document.set(promptIds)
    document.set(completion, promptIds.length)
    const start = builder.segment(document, { position: 0, prefix: -1 }) + promptIds.length
    return { promptEnd: start - 1, start }
  }
  return { chosen: place(chosenIds), rejected: place(rejectedIds) }
}

class BatchBuilder {
  inputTokens = 0
  private length = 0
  private sequences = 0
  private readonly pieces: { ids: Int32Array; position: number; prefix: number }[] = []
  private readonly scoredRows: number[] = []
  private readonly targets: number[] = []
  private readonly sequence: number[] = []

  get segments(): number {
    return this.pieces.length
  }

  /** Appends a segment, none if it is empty; returns its first token. */
  segment(ids: Int32Array, at: { position: number; prefix: number }): number {
    const start = this.length
    if (ids.length > 0) this.pieces.push({ ids, ...at })
    this.length += ids.length
    return start
  }

  score(row: number, target: number): void {
    this.scoredRows.push(row)
    this.targets.push(target)
    this.sequence.push(this.sequences)
  }

  endSequence(): void {
    this.sequences++
  }

  finish(): SegmentBatch {
    const ids = new Int32Array(this.length)
    const positions = new Int32Array(this.length)
    const segStart = new Int32Array(this.pieces.length + 1)
    let end = 0
    for (const [s, piece] of this.pieces.entries()) {
      ids.set(piece.ids, end)
      for (let t = 0; t < piece.ids.length; t++) positions[end + t] = piece.position + t
      end += piece.ids.length
      segStart[s + 1] = end
    }
    return {
      ids,
      positions,
      segStart,
      segPrefix: Int32Array.from(this.pieces, ({ prefix }) => prefix),
      scoredRows: Int32Array.from(this.scoredRows),
      targets: Int32Array.from(this.targets),
      sequence: Int32Array.from(this.sequence),
      sequences: this.sequences,
      inputTokens: this.inputTokens,
    }
  }
}

/** Tokens that {@link pairBatch} packs for a pair. */
export function pairTokens(pair: PairExample, options: { prefixSharing: boolean }): number {
  const prompts = options.prefixSharing ? 1 : 2
  return prompts * pair.promptIds.length + pair.chosenIds.length + pair.rejectedIds.length
}

/**
 * Cuts examples, in order, into micro-batches of `perDevice` and each of these into groups of at most `tokenBudget`
 * tokens that are computed at once. Losses are normalised over the micro-batch (or the step), gradients add up over
 * its groups, so the budget changes memory and speed, never the result. An example above the budget is a group alone.
 *
 * @param lengths tokens of each example as packed
 * @returns `[micro-batch][group][example]`, indices into `lengths`
 */
export function microBatches(
  lengths: ArrayLike<number>,
  options: { perDevice: number; tokenBudget?: number | undefined },
): number[][][] {
  const { perDevice, tokenBudget = Number.POSITIVE_INFINITY } = options
  if (!Number.isSafeInteger(perDevice) || perDevice < 1 || !(tokenBudget > 0)) {
    throw new WestwindError(
      'ERR_INVALID_ARG',
      `microBatches: perDevice and tokenBudget must be positive, got ${perDevice} and ${tokenBudget}`,
    )
  }
  const batches: number[][][] = []
  for (let start = 0; start < lengths.length; start += perDevice) {
    const groups: number[][] = []
    let tokens = Number.POSITIVE_INFINITY // of the last group; the first example opens one
    for (let i = start; i < Math.min(start + perDevice, lengths.length); i++) {
      const length = lengths[i]!
      if (tokens + length > tokenBudget || groups.length === 0) {
        groups.push([])
        tokens = 0
      }
      groups.at(-1)!.push(i)
      tokens += length
    }
    batches.push(groups)
  }
  return batches
}
