import { escapeHtml } from './escape-html.js'
import { type LineChart, lineChart } from './svg-chart.js'

export interface ReportTable {
  caption: string
  headers: readonly string[]
  /** Numbers are aligned to the right and shown with at most four decimals. */
  rows: readonly (readonly (string | number)[])[]
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

export interface HtmlReport {
  title: string
  /** One or two sentences: what was done and with what outcome. */
  summary: string
  /** The few numbers that matter, shown large. */
  highlights: readonly { label: string; value: string }[]
  charts: readonly LineChart[]
  tables: readonly ReportTable[]
  samples: readonly ReportSample[]
  /** How it was made: version, device, date, command. */
  footer: string
}

/** A report as one HTML file that needs nothing else: no script, no network, light and dark. All text is escaped. */
export function htmlReport(report: HtmlReport): string {
  const highlights = report.highlights
    .map(
      ({ label, value }) => `<div><dt>${escapeHtml(label)}</dt><dd>${escapeHtml(value)}</dd></div>`,
    )
    .join('\n')
  const charts = report.charts.map((chart) => `<figure>${lineChart(chart)}</figure>`).join('\n')
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(report.title)}</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>${escapeHtml(report.title)}</h1>
<p class="summary">${escapeHtml(report.summary)}</p>
<dl class="highlights">
${highlights}
</dl>
${section('Curves', `<div class="charts">\n${charts}\n</div>`, report.charts.length)}
${section('Numbers', report.tables.map(table).join('\n'), report.tables.length)}
${section('Samples', report.samples.map(sample).join('\n'), report.samples.length)}
<footer>${escapeHtml(report.footer)}</footer>
</main>
</body>
</html>
`
}

function section(title: string, content: string, items: number): string {
  return items === 0 ? '' : `<section>\n<h2>${title}</h2>\n${content}\n</section>`
}

function table({ caption, headers, rows }: ReportTable): string {
  const head = headers
    .map((header, i) => {
      const numeric = rows.length > 0 && rows.every((row) => typeof row[i] === 'number')
      return `<th scope="col"${numeric ? ' class="number"' : ''}>${escapeHtml(header)}</th>`
    })
    .join('')
  const body = rows.map((row) => `<tr>${row.map(cell).join('')}</tr>`).join('\n')
  return `<div class="scroll"><table>
<caption>${escapeHtml(caption)}</caption>
<thead><tr>${head}</tr></thead>
<tbody>
${body}
</tbody>
</table></div>`
}

function cell(value: string | number): string {
  if (typeof value === 'string') return `<td>${escapeHtml(value)}</td>`
  const text = Number.isInteger(value)
    ? value.toLocaleString('en-US')
    : String(Number(value.toFixed(4)))
  return `<td class="number">${escapeHtml(text)}</td>`
}

function sample({ prompt, answers }: ReportSample): string {
  const columns = answers.map(({ label, text, note, best }) => {
    const remark = note === undefined ? '' : ` <span class="note">${escapeHtml(note)}</span>`
    const mark = best ? ' <span class="best">✓ preferred</span>' : ''
    return `<div class="answer${best ? ' preferred' : ''}"><h3>${escapeHtml(label)}${remark}${mark}</h3><pre>${escapeHtml(text)}</pre></div>`
  })
  return `<article><pre class="prompt">${escapeHtml(prompt)}</pre><div class="answers">${columns.join('')}</div></article>`
}

const style = `
:root{--text:#1c1e21;--back:#fff;--soft:#f3f4f6;--line:#d5d8dd;--dim:#565d67;--accent:#006b4f}
@media(prefers-color-scheme:dark){:root{--text:#e6e6e6;--back:#16181c;--soft:#22252b;--line:#3a3f47;--dim:#a5acb6;--accent:#4fd1a5}}
*{box-sizing:border-box}
body{margin:0;color:var(--text);background:var(--back);font:16px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:32px 20px 48px}
h1{margin:0 0 8px;font-size:28px}h2{margin:36px 0 12px;font-size:20px}h3{margin:0 0 6px;font-size:14px}
.summary{max-width:70ch;margin:0;color:var(--dim)}
.highlights{display:flex;flex-wrap:wrap;gap:12px;margin:24px 0 0}
.highlights div{flex:1 1 150px;padding:12px 16px;background:var(--soft);border-radius:8px}
dt{font-size:13px;color:var(--dim)}dd{margin:2px 0 0;font-size:24px;font-weight:600;font-variant-numeric:tabular-nums}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:16px}
figure{margin:0;padding:8px;border:1px solid var(--line);border-radius:8px}svg{display:block;width:100%;height:auto}
.scroll{overflow-x:auto;margin-bottom:20px}table{border-collapse:collapse;min-width:320px}
caption{text-align:left;padding-bottom:6px;color:var(--dim)}
th,td{padding:5px 14px 5px 0;text-align:left;border-bottom:1px solid var(--line)}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}
article{margin-bottom:20px;border:1px solid var(--line);border-radius:8px;overflow:hidden}
pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.45 ui-monospace,monospace}
.prompt{padding:10px 14px;background:var(--soft)}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr))}
.answer{padding:12px 14px;border-top:3px solid transparent}.preferred{border-top-color:var(--accent)}
.note{font-weight:400;color:var(--dim)}.best{color:var(--accent)}
footer{margin-top:40px;color:var(--dim);font-size:13px}
`.trim()
