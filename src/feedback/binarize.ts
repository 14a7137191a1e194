import { stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import {
  abortSignal,
  atLeast,
  type Check,
  fields,
  integer,
  list,
  oneOf,
  optional,
  path,
} from '../arguments.js'
import { hashFile } from '../checkpoint/hash-file.js'
import { readRows } from '../data/read-rows.js'
import { loadTokenizer } from '../data/tokenizer/tokenizer.js'
import { WestwindError } from '../errors.js'
import { readJsonObject } from '../json.js'
import { version } from '../version.js'
import { decontaminator } from './decontaminate.js'
import { type EvalSet, readEvalSet } from './eval-sets.js'
import { holdOut } from './hold-out.js'
import { inTurns } from './in-turns.js'
import { manifestName, writePairs } from './pair-files.js'
import {
  type LengthStatistics,
  lengthStatistics,
  type OtherRule,
  otherRules,
} from './pair-statistics.js'
import { dropReasons, type Filters, type Pickings, pick } from './pick.js'
import { mean, type RatedTuple, ratedTuple } from './ratings.js'
import {
  type ChosenRule,
  chosenRules,
  type RejectedRule,
  type Rule,
  rejectedRules,
} from './rules.js'

export interface BinarizeOptions {
  /** Rated answers: `.parquet`, `.jsonl`, `.json`, the last two also as `.gz`. */
  input: string
  /** The folder to write to. */
  out: string
  /** `overall` by default. */
  chosen?: ChosenRule | undefined
  /** `random` by default. */
  rejected?: RejectedRule | undefined
  /** Of the random rule and of what is held out; 42 by default. */
  seed?: number | undefined
  /** Pairs of equally good answers; dropped by default under `lowest`, where all answers are equal, else kept. */
  ties?: 'keep' | 'drop' | undefined
  /** Least score of chosen less score of rejected. */
  minMargin?: number | undefined
  /** Least distance of the highest and the lowest score of a tuple. */
  minSpread?: number | undefined
  /** Largest spread of the teacher's own ratings of an answer, where a file has it. */
  maxDisagreement?: number | undefined
  /** Files of evaluation sets whose prompts must not be trained on. */
  decontaminate?: readonly string[] | undefined
  /** Words in a row that count as overlap; 13 by default. */
  ngram?: number | undefined
  /** Pairs to hold out at most, prompts whole; 0 by default. */
  testSize?: number | undefined
  /** Folder of a tokenizer, to count lengths in tokens too. */
  tokenizer?: string | undefined
  signal?: AbortSignal | undefined
}

const checkOptions: Check<BinarizeOptions> = fields<BinarizeOptions>({
  input: path,
  out: path,
  chosen: optional(oneOf(...chosenRules)),
  rejected: optional(oneOf(...rejectedRules)),
  seed: optional(integer(0)),
  ties: optional(oneOf('keep', 'drop')),
  minMargin: optional(atLeast(0)),
  minSpread: optional(atLeast(0)),
  maxDisagreement: optional(atLeast(0)),
  decontaminate: optional(list(path)),
  ngram: optional(integer(1)),
  testSize: optional(integer(0)),
  tokenizer: optional(path),
  signal: optional(abortSignal),
})

/** A file that was read. */
export interface SourceFile {
  file: string
  sha256: string
  rows: number
}

/** What an evaluation set had in common with the prompts. */
export interface SetOverlap extends SourceFile {
  /** Tuples that overlap it. */
  hits: number
  /** Of the first rows of the set that are hit: row of the input, row of the set, words they share. */
  examples: { row: number; setRow: number; words: string }[]
}

/** What became of the tuples; `manifest.json` has the same, and the hashes of the files written. */
export interface BinarizeReport {
  westwind: string
  source: SourceFile
  /** The manifest beside the input, as it is: how the answers and ratings were made. */
  sourceManifest: Record<string, unknown> | undefined
  /** Answers by model. */
  models: Record<string, number>
  /** Answers by judge, where the input names one. */
  judges: Record<string, number>
  rule: Rule & Filters & { testSize: number }
  /** Pairs and all that were dropped, by reason. */
  tuples: number
  pairs: number
  train: number
  test: number
  dropped: Record<string, number>
  /** Pairs kept whose scores are equal. */
  ties: number
  lengths: LengthStatistics[]
  decontamination: { ngram: number; sets: SetOverlap[] } | undefined
  otherRules: OtherRule[]
  warnings: string[]
}

const kExamples = 3

/**
 * Makes preference pairs of rated answers, in the columns of ultrafeedback_binarized: Parquet and
 * JSON Lines in the splits `train_prefs` and `test_prefs`, which `dpo` reads. The same input and
 * options give the same bytes.
 *
 * @throws ERR_DATA naming file and row of what is malformed, or why no pair is left
 */
export async function binarize(options: BinarizeOptions): Promise<BinarizeReport> {
  checkOptions(options, 'binarize: options')
  const { input, out, signal, chosen = 'overall', rejected = 'random', seed = 42 } = options
  const rule: Rule = { chosen, rejected, seed }
  const filters: Filters = {
    ties: options.ties ?? (rejected === 'lowest' ? 'drop' : 'keep'),
    minMargin: options.minMargin ?? 0,
    minSpread: options.minSpread ?? 0,
    maxDisagreement: options.maxDisagreement,
  }
  if (resolve(out) === dirname(resolve(input))) {
    throw new WestwindError('ERR_INVALID_ARG', `out must be another folder than that of ${input}`)
  }
  const tokenizer =
    options.tokenizer === undefined ? undefined : await loadTokenizer(options.tokenizer)
  const sets: EvalSet[] = []
  for (const file of options.decontaminate ?? []) sets.push(await readEvalSet(file, signal))

  const rows = await readRows(input, { signal })
  const tuples: RatedTuple[] = []
  for await (const some of inTurns(rows, signal)) {
    for (const row of some) tuples.push(ratedTuple(row, input, tuples.length + 1))
  }
  const ngram = options.ngram ?? 13
  const search = sets.length > 0 ? decontaminator(sets, ngram) : undefined
  const pickings = await pick(tuples, rule, filters, search, signal)
  if (pickings.pairs.length === 0) throw noPairs(input, tuples, rule, pickings)
  const testSize = options.testSize ?? 0
  const splits = holdOut(pickings.pairs, testSize, seed)

  const lengths = await lengthStatistics(pickings.pairs, tokenizer, signal)
  const answers = tuples.flatMap((tuple) => tuple.answers)
  const report: BinarizeReport = {
    westwind: version,
    source: { file: input, sha256: await hashFile(input), rows: rows.length },
    sourceManifest: await manifestBeside(input),
    models: count(answers.map(({ model }) => model)),
    judges: count(answers.flatMap(({ judge }) => judge ?? [])),
    rule: { ...rule, ...filters, testSize },
    tuples: tuples.length,
    pairs: pickings.pairs.length,
    train: splits.train_prefs.length,
    test: splits.test_prefs.length,
    dropped: count(pickings.removed.map(({ reason }) => reason)),
    ties: pickings.pairs.filter(({ choice }) => choice.tie).length,
    lengths,
    decontamination: search && { ngram, sets: await setOverlaps(sets, pickings) },
    otherRules: await otherRules(pickings.pairs, rule, signal),
    warnings: warnings(tuples, lengths),
  }
  await writePairs(out, splits, pickings.removed, report, signal)
  return report
}

async function setOverlaps(sets: readonly EvalSet[], pickings: Pickings): Promise<SetOverlap[]> {
  const hits = pickings.removed.flatMap(({ row, overlaps = [] }) =>
    overlaps.map(({ set, row: setRow, words }) => ({ set, example: { row, setRow, words } })),
  )
  const overlaps: SetOverlap[] = []
  for (const { file, rows } of sets) {
    const own = hits.filter(({ set }) => set === file)
    const examples: SetOverlap['examples'] = []
    for (const { example } of own) {
      const known = examples.some(({ setRow }) => setRow === example.setRow)
      if (!known && examples.length < kExamples) examples.push(example)
    }
    overlaps.push({ file, sha256: await hashFile(file), rows, hits: own.length, examples })
  }
  return overlaps
}

async function manifestBeside(input: string): Promise<Record<string, unknown> | undefined> {
  const file = join(dirname(input), manifestName)
  const there = await stat(file).catch(() => undefined)
  return there ? readJsonObject(file, 'ERR_DATA') : undefined
}

/** How often each name comes, by name. */
function count(names: readonly string[]): Record<string, number> {
  const counts = new Map<string, number>()
  for (const name of [...names].sort()) counts.set(name, (counts.get(name) ?? 0) + 1)
  return Object.fromEntries(counts)
}

function noPairs(
  input: string,
  tuples: readonly RatedTuple[],
  rule: Rule,
  { removed }: Pickings,
): WestwindError {
  const reasons = Object.entries(count(removed.map(({ reason }) => dropReasons[reason])))
  const unrated = tuples.every(({ answers }) => answers.every(({ aspects }) => aspects.size === 0))
  const advice =
    rule.chosen === 'mean_aspects' && unrated
      ? '. No answer has ratings of aspects: choose by overall'
      : ''
  const why = reasons.map(([reason, times]) => `${times}: ${reason}`).join('; ') || 'no rows'
  return new WestwindError('ERR_DATA', `${input}: no pair is left: ${why}${advice}`)
}

function warnings(tuples: readonly RatedTuple[], lengths: readonly LengthStatistics[]): string[] {
  const longer = lengths.filter(({ chosenLonger }) => chosenLonger > 0.5)
  const found = longer.map(
    ({ unit, chosenLonger }) =>
      `chosen has more ${unit} in ${(100 * chosenLonger).toFixed(1)} % of the pairs: training will teach length, too`,
  )
  const answers = tuples.flatMap((tuple) => tuple.answers)
  const impossible = answers.filter(({ overall, aspects }) => {
    const ratings = [...aspects.values()].map(({ rating }) => rating)
    return overall === 10 && ratings.length > 0 && mean(ratings) <= 2
  })
  if (impossible.length > 0) {
    found.push(
      `${impossible.length} answers have an overall_score of 10 while their aspects average 2 or less: early releases of UltraFeedback hold scores of 1 multiplied by 10`,
    )
  }
  return found
}
