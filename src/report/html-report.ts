import { escapeHtml } from './escape-html.js'
import { formatNumber } from './format.js'
import { htmlStyle } from './html-style.js'
import { type LineChart, lineChart } from './svg-chart.js'

/** A value of a table; null where there is none. */
export type ReportCell =
  | string
  | number
  | null
  | {
      value: string | number
      /** Set behind the value, smaller: a standard error, a unit. */
      note?: string
      /** Marked, in colour and in words, as different from others in its row. */
      differs?: boolean
    }

export interface ReportTable {
  caption: string
  headers: readonly string[]
  /** The first cell of a row is its header. Numbers are aligned to the right and rounded to be read. */
  rows: readonly (readonly ReportCell[])[]
  /** Shown when its caption is chosen. */
  folded?: boolean
}

/** One prompt and what several models answered, side by side. */
export interface ReportSample {
  prompt: string
  answers: readonly {
    /** Which model. */
    label: string
    text: string
    /** For example the teacher's score. */
    note?: string
    best?: boolean
  }[]
}

/** What stands under one heading, in this order. */
export interface ReportSection {
  title: string
  /** Sentences, one paragraph each. */
  notes?: readonly string[]
  charts?: readonly LineChart[]
  tables?: readonly ReportTable[]
  samples?: readonly ReportSample[]
}

export interface HtmlReport {
  title: string
  /** One or two sentences: what was done and with what outcome. */
  summary: string
  /** The few numbers that matter, shown large. */
  highlights: readonly { label: string; value: string }[]
  sections: readonly ReportSection[]
  /** How it was made: version, device, date, command. */
  footer: string
}

/** Rows of a chart's table of values; a longer one has every so many points, and says so. */
const valueRows = 24

/** A report as one HTML file that needs nothing else: no script, no network, light and dark. All text is escaped. */
export function htmlReport(report: HtmlReport): string {
  const highlights = report.highlights
    .map(
      ({ label, value }) => `<div><dt>${escapeHtml(label)}</dt><dd>${escapeHtml(value)}</dd></div>`,
    )
    .join('\n')
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(report.title)}</title>
<style>${htmlStyle}</style>
</head>
<body>
<main>
<h1>${escapeHtml(report.title)}</h1>
<p class="summary">${escapeHtml(report.summary)}</p>
${report.highlights.length === 0 ? '' : `<dl class="highlights">\n${highlights}\n</dl>`}
${report.sections.map(section).join('\n')}
<footer>${escapeHtml(report.footer)}</footer>
</main>
</body>
</html>
`
}

/** Nothing where there is nothing under the heading. */
function section({ title, notes, charts, tables, samples }: ReportSection): string {
  const parts = [
    ...(notes ?? []).map((note) => `<p>${escapeHtml(note)}</p>`),
    ...(charts?.length ? [`<div class="charts">\n${charts.map(figure).join('\n')}\n</div>`] : []),
    ...(tables ?? []).map(table),
    ...(samples ?? []).map(sample),
  ]
  if (parts.length === 0) return ''
  return `<section>\n<h2>${escapeHtml(title)}</h2>\n${parts.join('\n')}\n</section>`
}

/** A chart and, for whom a picture is no help, its values. */
function figure(chart: LineChart): string {
  const values = chart.series.map(({ points }) => new Map(points))
  const all = [...new Set(values.flatMap((of) => [...of.keys()]))].sort((a, b) => a - b)
  const every = Math.ceil(all.length / valueRows)
  const shown = all.filter((_, i) => i % every === 0 || i === all.length - 1)
  const part = every > 1 ? `, ${shown.length} of ${all.length} points` : ''
  const rows = shown.map((x) => [x, ...values.map((of) => of.get(x) ?? null)])
  const headers = [chart.xLabel, ...chart.series.map(({ name }) => name)]
  const caption = `Values of ${chart.title}${part}`
  return `<figure>${lineChart(chart)}${table({ caption, headers, rows, folded: true })}</figure>`
}

function table({ caption, headers, rows, folded }: ReportTable): string {
  const head = headers.map((header, i) => {
    const numeric = rows.length > 0 && rows.every((row) => typeof cellValue(row[i]) !== 'string')
    return `<th scope="col"${numeric ? ' class="number"' : ''}>${escapeHtml(header)}</th>`
  })
  const body = rows.map((row) => `<tr>${row.map(cell).join('')}</tr>`).join('\n')
  const content = `<div class="scroll"><table>
<caption${folded ? ' class="hidden"' : ''}>${escapeHtml(caption)}</caption>
<thead><tr>${head.join('')}</tr></thead>
<tbody>
${body}
</tbody>
</table></div>`
  if (!folded) return content
  return `<details><summary>${escapeHtml(caption)}</summary>\n${content}\n</details>`
}

function cellValue(cell: ReportCell | undefined): string | number | null {
  return typeof cell === 'object' && cell !== null ? cell.value : (cell ?? null)
}

function cell(cell: ReportCell, column: number): string {
  const value = cellValue(cell)
  const { note, differs } = typeof cell === 'object' && cell !== null ? cell : {}
  const classes = [
    ...(typeof value === 'string' ? [] : ['number']),
    ...(differs ? ['differs'] : []),
  ]
  const attributes = classes.length > 0 ? ` class="${classes.join(' ')}"` : ''
  const mark = differs ? ' <span class="hidden">(differs)</span>' : ''
  const remark = note === undefined ? '' : ` <span class="note">${escapeHtml(note)}</span>`
  const content = `${shown(value)}${remark}${mark}`
  return column === 0
    ? `<th scope="row"${attributes}>${content}</th>`
    : `<td${attributes}>${content}</td>`
}

/** Numbers are rounded for people; `<data>` has them whole. */
function shown(value: string | number | null): string {
  if (value === null) return '<span aria-label="none">–</span>'
  if (typeof value === 'string') return escapeHtml(value)
  return `<data value="${value}">${escapeHtml(formatNumber(value))}</data>`
}

function sample({ prompt, answers }: ReportSample): string {
  const columns = answers.map(({ label, text, note, best }) => {
    const remark = note === undefined ? '' : ` <span class="note">${escapeHtml(note)}</span>`
    const mark = best ? ' <span class="best">✓ preferred</span>' : ''
    return `<div class="answer${best ? ' preferred' : ''}"><h3>${escapeHtml(label)}${remark}${mark}</h3><pre>${escapeHtml(text)}</pre></div>`
  })
  return `<article><pre class="prompt">${escapeHtml(prompt)}</pre><div class="answers">${columns.join('')}</div></article>`
}
