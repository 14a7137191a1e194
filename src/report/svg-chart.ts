import { escapeHtml } from './escape-html.js'
import { formatNumber } from './format.js'

export interface ChartSeries {
  name: string
  /** `[x, y]`, x ascending. A y that is not finite interrupts the line. */
  points: readonly (readonly [number, number])[]
  /** Which colour and which dash it has; its place among the series unless given. */
  colour?: number
  dash?: number
}

export interface LineChart {
  title: string
  xLabel: string
  yLabel: string
  series: readonly ChartSeries[]
}

const width = 640
const height = 360 // with a legend of one row
const frame = { left: 72, right: 620, top: 66, bottom: 312 }

/**
 * Okabe and Ito's palette, told apart with every kind of colour vision; the last two are darker than theirs, so that
 * all have a contrast of 3 on white and on the dark page. Dashes tell lines apart in grey.
 */
const colours = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#C08400', '#2F8AC4']
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
  const { rows, items } = legend(chart.series)
  const plot = {
    ...frame,
    top: frame.top + 20 * (rows - 1),
    bottom: frame.bottom + 20 * (rows - 1),
  }
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
    (series, i) => `<path ${stroke(series, i)} d="${path(series, toX, toY)}"/>`,
  )
  const middle = (plot.top + plot.bottom) / 2
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height + 20 * (rows - 1)}" role="img" aria-label="${escapeHtml(describe(chart))}" font-family="system-ui, sans-serif" font-size="12">
<style>svg{color-scheme:light dark}text{fill:currentColor}.grid{stroke:currentColor;stroke-opacity:.15;fill:none}.axis{stroke:currentColor;stroke-opacity:.6;fill:none}.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}@media(prefers-color-scheme:dark){svg:root{color:#e6e6e6;background:#16181c}}</style>
<text x="${plot.left}" y="22" font-size="15" font-weight="600">${escapeHtml(chart.title)}</text>
${items}
${grid.join('\n')}
<path class="axis" d="M${plot.left} ${plot.top}V${plot.bottom}H${plot.right}"/>
${label((plot.left + plot.right) / 2, plot.bottom + 38, chart.xLabel, 'middle')}
<text x="14" y="${middle}" text-anchor="middle" transform="rotate(-90 14 ${middle})">${escapeHtml(chart.yLabel)}</text>
${lines.join('\n')}
</svg>`
}

/** The chart in words, for those who do not see it: where each line begins and ends. */
function describe({ title, series }: LineChart): string {
  const lines = series.map(({ name, points }) => {
    const seen = points.filter(([, y]) => Number.isFinite(y))
    const [first, last] = [seen[0], seen.at(-1)]
    if (!first || !last) return `${name}, no values`
    return `${name}, from ${formatNumber(first[1])} to ${formatNumber(last[1])}`
  })
  return [title, ...lines].join('; ')
}

/** Names of the lines, in as many rows as they need. */
function legend(series: readonly ChartSeries[]): { rows: number; items: string } {
  let x = frame.left
  let row = 0
  const items = series.map((one, i) => {
    const name = one.name.length > 60 ? `${one.name.slice(0, 59)}…` : one.name
    const room = 46 + 7 * name.length // about seven units a character at this size
    if (x > frame.left && x + room > width) {
      x = frame.left
      row++
    }
    const at = x
    const y = 43 + 20 * row
    x += room
    return `<path ${stroke(one, i)} d="M${at} ${y}h24"/>${label(at + 30, y + 4, name, 'start')}`
  })
  return { rows: row + 1, items: items.join('') }
}

function stroke({ colour, dash }: ChartSeries, i: number): string {
  return `class="line" stroke="${colours[(colour ?? i) % colours.length]}" stroke-dasharray="${dashes[(dash ?? i) % dashes.length]}"`
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
