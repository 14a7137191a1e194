import { escapeHtml } from './escape-html.js'

export interface ChartSeries {
  name: string
  /** `[x, y]`, x ascending. A y that is not finite interrupts the line. */
  points: readonly (readonly [number, number])[]
}

export interface LineChart {
  title: string
  xLabel: string
  yLabel: string
  series: readonly ChartSeries[]
}

const width = 640
const height = 360
const plot = { left: 64, right: 620, top: 66, bottom: 312 }

/** Okabe and Ito's palette: told apart with every kind of colour vision; dashes tell them apart in grey. */
const colours = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9']
const dashes = ['', '7 4', '2 3', '9 3 2 3']

/**
 * A line chart as one self-contained `<svg>`: title, axes with round ticks, legend. Text and axes take the colour of
 * the text around it (`currentColor`), so that it suits a light and a dark page; alone it follows the reader's
 * colour scheme.
 */
export function lineChart(chart: LineChart): string {
  const points = chart.series
    .flatMap((s) => s.points)
    .filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y))
  const xs = ticks(points.map(([x]) => x))
  const ys = ticks(points.map(([, y]) => y))
  const toX = (x: number) =>
    plot.left + ((plot.right - plot.left) * (x - xs.low)) / (xs.high - xs.low)
  const toY = (y: number) =>
    plot.bottom - ((plot.bottom - plot.top) * (y - ys.low)) / (ys.high - ys.low)

  const grid = [
    ...ys.values.map((y) => {
      const at = px(toY(y))
      return `<path class="grid" d="M${plot.left} ${at}H${plot.right}"/>${label(plot.left - 8, Number(at) + 4, ys.text(y), 'end')}`
    }),
    ...xs.values.map((x) => label(Number(px(toX(x))), plot.bottom + 18, xs.text(x), 'middle')),
  ]
  const lines = chart.series.map(
    (series, i) =>
      `<path class="line" stroke="${colours[i % colours.length]}" stroke-dasharray="${dashes[i % dashes.length]}" d="${path(series, toX, toY)}"/>`,
  )
  const middle = (plot.top + plot.bottom) / 2
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeHtml(chart.title)}" font-family="system-ui, sans-serif" font-size="12">
<style>svg{color-scheme:light dark}text{fill:currentColor}.grid{stroke:currentColor;stroke-opacity:.15;fill:none}.axis{stroke:currentColor;stroke-opacity:.6;fill:none}.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}@media(prefers-color-scheme:dark){svg:root{color:#e6e6e6;background:#16181c}}</style>
<text x="${plot.left}" y="22" font-size="15" font-weight="600">${escapeHtml(chart.title)}</text>
${legend(chart.series)}
${grid.join('\n')}
<path class="axis" d="M${plot.left} ${plot.top}V${plot.bottom}H${plot.right}"/>
${label((plot.left + plot.right) / 2, plot.bottom + 38, chart.xLabel, 'middle')}
<text x="16" y="${middle}" text-anchor="middle" transform="rotate(-90 16 ${middle})">${escapeHtml(chart.yLabel)}</text>
${lines.join('\n')}
</svg>`
}

function legend(series: readonly ChartSeries[]): string {
  let x = plot.left
  return series
    .map(({ name }, i) => {
      const at = x
      x += 46 + 7 * name.length // about seven units a character at this size
      return `<path class="line" stroke="${colours[i % colours.length]}" stroke-dasharray="${dashes[i % dashes.length]}" d="M${at} 43h24"/>${label(at + 30, 47, name, 'start')}`
    })
    .join('')
}

function label(x: number, y: number, text: string, anchor: 'start' | 'middle' | 'end'): string {
  return `<text x="${x}" y="${y}" text-anchor="${anchor}">${escapeHtml(text)}</text>`
}

function path(series: ChartSeries, toX: (x: number) => number, toY: (y: number) => number): string {
  let d = ''
  let broken = true
  for (const [x, y] of series.points) {
    if (!Number.isFinite(x) || !Number.isFinite(y)) {
      broken = true
      continue
    }
    d += `${broken ? 'M' : 'L'}${px(toX(x))} ${px(toY(y))}`
    broken = false
  }
  return d
}

function px(x: number): string {
  return x.toFixed(1)
}

interface Ticks {
  low: number
  high: number
  values: number[]
  text: (value: number) => string
}

/** Four to eight round tick values (1, 2 or 5 times a power of ten) that enclose the data. */
function ticks(data: readonly number[]): Ticks {
  let min = data.length > 0 ? data.reduce((a, b) => Math.min(a, b)) : 0
  let max = data.length > 0 ? data.reduce((a, b) => Math.max(a, b)) : 1
  if (min === max) {
    const room = Math.abs(min) * 0.5 || 1 // a constant gets a scale around it
    min -= room
    max += room
  }
  const power = 10 ** Math.floor(Math.log10((max - min) / 5))
  const step = power * ([1, 2, 5, 10].find((m) => (max - min) / (m * power) <= 6) ?? 10)
  const first = Math.floor(min / step)
  const last = Math.ceil(max / step)
  const values = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step)
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9))
  const text = (value: number) => {
    if (Math.abs(value) < 1e5 && digits <= 5) return value.toFixed(digits)
    return value === 0 ? '0' : value.toExponential(1)
  }
  return { low: first * step, high: last * step, values, text }
}
