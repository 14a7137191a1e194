import type { BinarizeReport } from './binarize.js'
import { dropReasons } from './pick.js'

const integer = (value: number) => value.toLocaleString('en-US')
const percent = (share: number) => `${(100 * share).toFixed(1)} %`

/** A report as lines of text. */
export function formatReport(report: BinarizeReport): string {
  const { rule, tuples, pairs, train, test, ties, dropped } = report
  const reasons = Object.entries(dropReasons).flatMap(([reason, words]) => {
    const times = dropped[reason]
    return times === undefined ? [] : `  ${integer(times)} ${reason}: ${words}`
  })
  return [
    `rule     chosen ${rule.chosen}, rejected ${rule.rejected}, seed ${rule.seed}`,
    `tuples   ${integer(tuples)}`,
    `pairs    ${integer(pairs)}: train ${integer(train)}, test ${integer(test)}; equally good ${integer(ties)}`,
    `dropped  ${integer(tuples - pairs)}`,
    ...reasons,
    ...lengthLines(report),
    ...overlapLines(report),
    ...otherRuleLines(report),
  ].join('\n')
}

function lengthLines({ lengths }: BinarizeReport): string[] {
  return lengths.map(({ unit, chosen, rejected, chosenLonger }) => {
    const numbers = [chosen.mean, rejected.mean, chosen.median, rejected.median]
    const [mean, otherMean, median, otherMedian] = numbers.map((n) => integer(Math.round(n)))
    return `${unit}: chosen mean ${mean}, median ${median}; rejected mean ${otherMean}, median ${otherMedian}; chosen longer in ${percent(chosenLonger)}`
  })
}

function overlapLines({ decontamination }: BinarizeReport): string[] {
  if (!decontamination) return []
  const { ngram, sets } = decontamination
  return [
    `overlap with evaluation sets, ${ngram} words in a row:`,
    ...sets.flatMap(({ file, hits, examples }) => [
      `  ${integer(hits).padStart(6)}  ${file}`,
      ...examples.map(({ row, setRow, words }) => {
        return `          row ${row} has its row ${setRow}: ${words}`
      }),
    ]),
  ]
}

function otherRuleLines({ otherRules, pairs }: BinarizeReport): string[] {
  return [
    'another rule would change    chosen   rejected  pair',
    ...otherRules.map((other) => {
      const name = `  ${other.chosen}, ${other.rejected}`.padEnd(29)
      const needs = other.chosen === 'overall' ? 'overall scores' : 'ratings of aspects'
      if (other.pairs === 0) return `${name}needs ${needs}`
      const shares = [other.chosenDiffers, other.rejectedDiffers, other.pairDiffers]
      const cells = shares.map((share, i) => percent(share).padEnd([9, 10, 0][i]!)).join('')
      return other.pairs === pairs
        ? `${name}${cells}`
        : `${name}${cells}  of ${integer(other.pairs)}`
    }),
  ]
}

/** `6 prompts, 5 rated, 1 quarantined, 0 pending` */
export function formatCounts(counts: object): string {
  return Object.entries(counts)
    .map(([name, value]) => `${value} ${name}`)
    .join(', ')
}
