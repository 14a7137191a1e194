import type { Prepared } from './dataset.js'
import type { PairExample } from './encode-pair.js'
import type { SftExample } from './encode-sft.js'
import type { DataStatistics } from './statistics.js'
import type { Tokenizer } from './tokenizer/tokenizer.js'

export interface InspectOptions {
  /** Examples to show, from the first. */
  count: number
  /** ANSI colours: scored tokens green, the others grey. Without, scored text stands in ⟦ ⟧. */
  color: boolean
  /** Undefined for ids without one: no text is shown. */
  tokenizer?: Tokenizer | undefined
}

/** What a data set looks like to the loss: the first examples as text, ids and mask, then counts over all of it. */
export function inspectData(
  prepared: Prepared<SftExample> | Prepared<PairExample>,
  options: InspectOptions,
): string {
  const count = Math.min(options.count, prepared.examples.length)
  const blocks = Array.from({ length: count }, (_, i) => {
    const example = prepared.examples.at(i)!
    return `${heading(prepared.rowOf[i]!, example, i)}\n${show(example, options)}`
  })
  return [...blocks, formatStatistics(prepared.statistics)].join('\n\n')
}

function heading(row: number, { truncated }: SftExample | PairExample, i: number): string {
  return `── example ${i + 1} (row ${row + 1}${truncated ? ', truncated' : ''})`
}

function show(example: SftExample | PairExample, options: InspectOptions): string {
  if ('ids' in example) {
    const { ids, labels } = example
    // the label of the first token never counts
    const scored = Array.from(labels, (label, t) => t > 0 && label !== -100)
    return showTokens('', ids, scored, [], options)
  }
  const { promptIds, chosenIds, rejectedIds } = example
  const part = (name: string, ids: Int32Array, scored: boolean, before: Int32Array) =>
    showTokens(`${name}: `, ids, Array(ids.length).fill(scored), before, options)
  return [
    part('prompt', promptIds, false, new Int32Array()),
    part('chosen', chosenIds, true, promptIds),
    part('rejected', rejectedIds, true, promptIds),
  ].join('\n')
}

/** A run of tokens that are all scored or all not. */
interface Run {
  start: number
  end: number
  scored: boolean
}

function showTokens(
  label: string,
  ids: Int32Array,
  scored: readonly boolean[],
  before: ArrayLike<number>,
  { color, tokenizer }: InspectOptions,
): string {
  const count = scored.filter(Boolean).length
  const runs = runsOf(scored)
  const join = (separator: string, piece: (run: Run) => string) =>
    runs.map((run) => paint(piece(run), run.scored, color)).join(separator)
  const lines = [`${label}${ids.length} tokens, ${count} scored`]
  if (tokenizer) {
    const text = textOfRuns(tokenizer, Array.from(before), ids, runs)
    const marked = runs.map((run, i) => {
      const piece = visible(text[i]!)
      return paint(!color && run.scored ? `⟦${piece}⟧` : piece, run.scored, color)
    })
    lines.push(marked.join(''))
  }
  lines.push(`ids  ${join(' ', ({ start, end }) => ids.subarray(start, end).join(' '))}`)
  lines.push(`mask ${join('', (run) => (run.scored ? '1' : '0').repeat(run.end - run.start))}`)
  return lines.join('\n')
}

function runsOf(scored: readonly boolean[]): Run[] {
  const runs: Run[] = []
  for (const [t, value] of scored.entries()) {
    const last = runs.at(-1)
    if (last?.scored === value) last.end = t + 1
    else runs.push({ start: t, end: t + 1, scored: value })
  }
  return runs
}

/** The text each run adds to what stands before it: alone, a run would lose its leading space. */
function textOfRuns(
  tokenizer: Tokenizer,
  before: readonly number[],
  ids: Int32Array,
  runs: readonly Run[],
): string[] {
  let text = tokenizer.decode(before)
  return runs.map(({ start, end }) => {
    const longer = tokenizer.decode([...before, ...ids.subarray(0, end)])
    // a run may end inside a character
    const piece = longer.startsWith(text)
      ? longer.slice(text.length)
      : tokenizer.decode(ids.subarray(start, end))
    text = longer
    return piece
  })
}

function paint(text: string, scored: boolean, color: boolean): string {
  if (!color) return text
  const code = scored ? 32 : 90
  return `\u001b[${code}m${text}\u001b[0m`
}

/** Control characters as symbols: data must not steer the terminal. Line feed and tab stay. */
function visible(text: string): string {
  return Array.from(text, (character) => {
    const code = character.charCodeAt(0)
    if (code === 9 || code === 10) return character
    if (code < 32) return String.fromCharCode(0x2400 + code)
    return code >= 0x7f && code < 0xa0 ? '\u2421' : character
  }).join('')
}

/** Statistics as lines of text. */
export function formatStatistics(statistics: DataStatistics): string {
  const { rows, examples, tokens, scoredTokens, dropped, truncated, eosInLoss } = statistics
  const number = (value: number) => value.toLocaleString('en-US')
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`
  const lines = [
    `rows         ${number(rows)}, kept ${number(examples)}`,
    ...Object.entries(dropped).map(([why, count]) => `  dropped    ${number(count)}: ${why}`),
    `truncated    ${number(truncated)} (${percent(truncated / examples)})`,
    `tokens       ${number(tokens)}, scored ${number(scoredTokens)} (${percent(scoredTokens / tokens)})`,
  ]
  if (eosInLoss !== undefined) {
    const never = eosInLoss === 0 ? ': the model will not learn to stop' : ''
    lines.push(`EOS in loss  ${percent(eosInLoss)}${never}`)
  }
  lines.push('length          mean     min     p50     p90     p99     max')
  for (const [part, { mean, min, p50, p90, p99, max }] of Object.entries(statistics.lengths)) {
    const cells = [mean.toFixed(1), ...[min, p50, p90, p99, max].map(String)]
    lines.push(`  ${part.padEnd(10)}${cells.map((cell) => cell.padStart(8)).join('')}`)
  }
  return lines.join('\n')
}
