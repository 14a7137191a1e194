import { describe, expect, it } from 'vitest'
import { htmlReport } from '../../src/report/html-report.js'
import { lineChart } from '../../src/report/svg-chart.js'

const chart = {
  title: 'Loss <1>',
  xLabel: 'step',
  yLabel: 'nats & bits',
  series: [
    {
      name: 'train',
      points: [
        [0, 1],
        [5, Number.NaN],
        [10, 0.5],
      ] as [number, number][],
    },
  ],
}

describe('lineChart', () => {
  it('puts the ends of the data on the ends of the axes', () => {
    const svg = lineChart(chart)
    expect(svg).toContain('M72.0 66.0M620.0 312.0') // (0, 1) top left, (10, 0.5) bottom right, broken at NaN
  })

  it('gives a long legend rows of its own, and the chart their height', () => {
    const series = Array.from({ length: 6 }, (_, i) => ({
      ...chart.series[0]!,
      name: `run ${i} train`,
    }))
    const svg = lineChart({ ...chart, series })
    expect(svg).toContain('viewBox="0 0 640 380"')
    expect(svg).toContain('y="67" text-anchor="start">run 5 train<')
    expect(svg).toContain('M72.0 86.0M620.0 332.0')
  })

  it('labels small values with exponents, and zero as 0', () => {
    const svg = lineChart({
      ...chart,
      series: [
        {
          name: 'lr',
          points: [
            [0, 5e-7],
            [10, 0],
          ],
        },
      ],
    })
    expect(svg).toContain('>5.0e-7<')
    expect(svg).not.toContain('0.0e')
  })

  it('escapes every label', () => {
    const svg = lineChart(chart)
    expect(svg).toContain('Loss &lt;1&gt;')
    expect(svg).toContain('nats &amp; bits')
    expect(svg).not.toContain('<1>')
  })

  it.each([
    ['nothing', []],
    ['one point', [[3, 0]]],
    [
      'a constant',
      [
        [0, 7],
        [1, 7],
      ],
    ],
    [
      'tiny values',
      [
        [0, 1e-9],
        [1, 3e-9],
      ],
    ],
    [
      'huge values',
      [
        [0, -1e12],
        [1, 1e12],
      ],
    ],
  ] as [string, [number, number][]][])('draws %s without NaN', (_, points) => {
    const svg = lineChart({ ...chart, series: [{ name: 'a', points }] })
    expect(svg).not.toMatch(/NaN|Infinity|undefined/)
  })
})

describe('htmlReport', () => {
  const hostile = '<script>alert("x")</script> & \'q\''
  const page = htmlReport({
    title: hostile,
    summary: hostile,
    highlights: [{ label: hostile, value: hostile }],
    sections: [
      {
        title: hostile,
        notes: [hostile],
        charts: [{ ...chart, title: hostile, series: [{ name: hostile, points: [[1, 2]] }] }],
        tables: [
          {
            caption: hostile,
            headers: [hostile, hostile],
            rows: [[hostile, { value: hostile, note: hostile, differs: true }]],
          },
        ],
        samples: [
          {
            prompt: hostile,
            answers: [{ label: hostile, text: hostile, note: hostile, best: true }],
          },
        ],
      },
    ],
    footer: hostile,
  })

  it('lets no text become markup', () => {
    expect(page).not.toContain('<script')
    expect(page).toContain('&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; &#39;q&#39;')
  })

  it('needs nothing from elsewhere', () => {
    expect(page.replaceAll('http://www.w3.org/2000/svg', '')).not.toMatch(/https?:|src=|href=/)
  })

  const empty = { title: 'a', summary: '', highlights: [], sections: [], footer: '' }

  it('leaves out sections without content', () => {
    const page = htmlReport({ ...empty, sections: [{ title: 'Curves', charts: [] }] })
    expect(page).not.toContain('<h2>')
  })

  it('rounds numbers for people and keeps them whole for programs', () => {
    const rows = [['a', 0.123456, 5e-7, 1234567, null]] as const
    const tables = [{ caption: 'c', headers: ['', 'x', 'y', 'z', 'n'], rows }]
    const page = htmlReport({ ...empty, sections: [{ title: 's', tables }] })
    expect(page).toContain(
      '<th scope="row">a</th><td class="number"><data value="0.123456">0.1235<',
    )
    expect(page).toContain('<data value="5e-7">5e-7</data>')
    expect(page).toContain('<data value="1234567">1,234,567</data>')
    expect(page).toContain('<span aria-label="none">–</span>')
  })

  it('gives the values of a chart as a table, and of a long one some, with their number', () => {
    const points = Array.from({ length: 100 }, (_, i) => [i + 1, i / 7] as const)
    const charts = [{ ...chart, title: 'Loss', series: [{ name: 'train', points }] }]
    const page = htmlReport({ ...empty, sections: [{ title: 's', charts }] })
    expect(page).toContain('<summary>Values of Loss, 21 of 100 points</summary>')
    expect(page).toContain(
      `<data value="100">100</data></th><td class="number"><data value="${99 / 7}">`,
    )
    expect(page).toContain('aria-label="Loss; train, from 0 to 14.1429"')
  })
})
