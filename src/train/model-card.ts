import { stringify } from 'yaml'

export interface ModelCard {
  /** Heading, usually the name of the output folder. */
  name: string
  stage: 'sft' | 'dpo'
  /** Hub id or path of the model that training started from; undefined when trained from scratch. */
  baseModel?: string
  /** Hub ids or paths. */
  datasets: readonly string[]
  /** In the order to be shown, under the recipe's keys. */
  hyperparameters: Record<string, string | number | boolean | null>
  /** Final metrics of the evaluation (or of training where there was none), under TRL's names. */
  metrics: Record<string, number | string>
  /** Lines of the training log to show, oldest first; their common metrics become columns. */
  history?: readonly Record<string, number>[]
  /** How the run differs from the paper's recipe, one sentence each. */
  deviations: readonly string[]
  /** westwind's own version. */
  version: string
}

const stages = {
  sft: {
    tag: 'sft',
    what: 'distilled supervised fine-tuning (dSFT): the log-likelihood of a teacher’s dialogues is maximised',
  },
  dpo: {
    tag: 'dpo',
    what: 'distilled direct preference optimisation (dDPO, [arXiv 2310.16944](https://arxiv.org/abs/2310.16944)) on ranked pairs',
  },
} as const

/** README.md of a trained model: Hugging Face's YAML front matter, then what was done, with what, to what result. */
export function modelCard(card: ModelCard): string {
  const { tag, what } = stages[card.stage]
  const frontMatter = stringify({
    ...(card.baseModel === undefined ? {} : { base_model: card.baseModel }),
    ...(card.datasets.length === 0 ? {} : { datasets: card.datasets }),
    library_name: 'transformers',
    pipeline_tag: 'text-generation',
    tags: ['westwind', tag, 'generated_from_trainer'],
  })
  const origin =
    card.baseModel === undefined
      ? 'Trained from scratch'
      : `A fine-tuned version of ${inline(card.baseModel)}`
  const data = card.datasets.length === 0 ? '' : ` on ${card.datasets.map(inline).join(', ')}`
  const sections = [
    `---\n${frontMatter}---`,
    `# ${oneLine(card.name)}`,
    `${origin}${data}, by ${what}.`,
    `## Results\n\n${table(['metric', 'value'], Object.entries(card.metrics).map(pair))}`,
    `## Training hyperparameters\n\n${table(['key', 'value'], Object.entries(card.hyperparameters).map(pair))}`,
  ]
  if (card.history && card.history.length > 0)
    sections.push(`## Training log\n\n${historyTable(card.history)}`)
  sections.push(
    card.deviations.length === 0
      ? '## Deviations from the published recipe\n\nNone.'
      : `## Deviations from the published recipe\n\n${card.deviations.map((d) => `- ${oneLine(d)}`).join('\n')}`,
    `## Framework\n\nwestwind ${card.version}`,
  )
  return `${sections.join('\n\n')}\n`
}

function pair([name, value]: [string, string | number | boolean | null]): string[] {
  return [inline(name), typeof value === 'number' ? number(value) : String(value)]
}

function historyTable(history: readonly Record<string, number>[]): string {
  const names = Object.keys(history[0]!).filter((name) => history.every((row) => name in row))
  return table(
    names,
    history.map((row) => names.map((name) => number(row[name]!))),
  )
}

function table(headers: string[], rows: string[][]): string {
  const line = (cells: string[]) => `| ${cells.map(cell).join(' | ')} |`
  return [line(headers), `|${' --- |'.repeat(headers.length)}`, ...rows.map(line)].join('\n')
}

/** Six significant digits are enough to compare runs and short enough to read. */
function number(x: number): string {
  return Number.isInteger(x) ? String(x) : String(Number(x.toPrecision(6)))
}

function cell(text: string): string {
  return oneLine(text).replaceAll('|', '\\|')
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, ' ').trim()
}

function inline(text: string): string {
  return `\`${oneLine(text).replaceAll('`', "'")}\``
}
