import { isRecord } from '../json.js'
import type { RunReport, RunSummary } from './compare.js'
import type { Curve } from './curves.js'
import { formatNumber } from './format.js'
import { htmlReport, type ReportCell, type ReportSection, type ReportTable } from './html-report.js'
import { type SettingRow, words } from './settings.js'
import type { ChartSeries, LineChart } from './svg-chart.js'

/** `report.html`: what a {@link RunReport} has, and nothing else, to be read. */
export function reportPage(report: RunReport): string {
  const { runs, problems } = report
  const names = runs.map(({ name }) => name)
  return htmlReport({
    title: names.length === 1 ? `Run ${names[0]}` : `${names.length} runs side by side`,
    summary: runs.map(sentence).join(' '),
    highlights: [],
    sections: [
      { title: 'Problems', notes: problems },
      { title: 'Curves', charts: report.curves.map((curve) => chart(curve, names)) },
      { title: 'Final metrics', tables: metricsTable(report, names) },
      { title: 'Evaluation', tables: evaluationTables(report, names) },
      sampleSection(report, names),
      {
        title: 'Recipe',
        tables: settingTables(report.recipe, names, {
          differ: 'Settings that differ',
          same: names.length === 1 ? 'Settings' : 'Settings that are the same wherever known',
        }),
      },
      { title: 'Data and origin', tables: [originTable(runs), ...manifestTables(runs)] },
      { title: 'Machine and versions', tables: sessionTable(runs) },
    ],
    footer: `westwind ${report.westwind}, ${report.date}. The same numbers, unrounded, are in the JSON file beside this page.`,
  })
}

const stageNames: Record<string, string> = { sft: 'dSFT', dpo: 'dDPO', other: 'training' }

/** What a run is and how far it came. */
function sentence({ name, stage, state, step, max_steps, parent }: RunSummary): string {
  const what = stage === null ? '' : ` of ${stageNames[stage]}`
  const from = parent === null ? '' : `, from ${parent}`
  const of = max_steps === null ? '' : ` of ${formatNumber(max_steps)}`
  if (state === 'model') return `${name}: a model, without a run of training.`
  const steps = step === null ? '' : `, ${formatNumber(step)}${of} steps`
  const run = state === 'finished' ? 'a finished run' : 'an unfinished run'
  return `${name}: ${run}${what}${from}${steps}.`
}

/** Each run has a colour, its evaluation the same one, dashed. */
function chart({ stage, metric, lines }: Curve, names: readonly string[]): LineChart {
  const series = lines.flatMap(({ run, train, eval: evaluation }): ChartSeries[] => {
    const colour = names.indexOf(run)
    const dash = 2 * Math.floor(colour / 6)
    return [
      { name: run, points: train, colour, dash },
      { name: `${run}, eval`, points: evaluation, colour, dash: dash + 1 },
    ].filter(({ points }) => points.length > 0)
  })
  return { title: `${stageNames[stage]}: ${metric}`, xLabel: 'step', yLabel: metric, series }
}

function metricsTable({ metrics, runs }: RunReport, names: readonly string[]): ReportTable[] {
  if (metrics.length === 0) return []
  const unfinished = runs.filter(({ state }) => state === 'unfinished')
  const caption =
    unfinished.length === 0
      ? 'What each run ended with'
      : `What each run ended with; of ${unfinished.map(({ name }) => name).join(', ')}, not finished, the last value that was logged`
  const rows = metrics.map(({ name, values }) => [name, ...values])
  return [{ caption, headers: ['metric', ...names], rows }]
}

/** A table per task; groups, where there are any, behind a click. */
function evaluationTables(
  { evaluations, settings }: RunReport,
  names: readonly string[],
): ReportTable[] {
  const tasks = [...new Set(evaluations.map(({ task }) => task))]
  return tasks.flatMap((task) => {
    const rows = evaluations.filter((row) => row.task === task)
    const whole = rows.filter(({ group }) => group === null)
    const groups = rows.filter(({ group }) => group !== null)
    const table = (caption: string, of: typeof rows, folded: boolean): ReportTable => ({
      caption,
      headers: [task, ...names],
      rows: of.map(({ group, metric, values }) => [
        group === null ? metric : `${group}: ${metric}`,
        ...values.map(scoreCell),
      ]),
      folded,
    })
    return [
      ...(whole.length > 0 ? [table(`${task} (± standard error)`, whole, false)] : []),
      ...(groups.length > 0 ? [table(`${task}, its parts`, groups, true)] : []),
      ...settingTables(settings.find((of) => of.task === task)?.rows ?? [], names, {
        differ: `${task}: settings that differ`,
        same: `${task}: settings`,
      }),
    ]
  })
}

function scoreCell(score: { value: number | null; stderr: number | null } | null): ReportCell {
  if (score === null || score.value === null) return null
  const { value, stderr } = score
  return stderr === null ? value : { value, note: `± ${formatNumber(stderr)}` }
}

function sampleSection({ samples }: RunReport, names: readonly string[]): ReportSection {
  return {
    title: 'Sample answers',
    samples: samples.map(({ task, id, prompt, answers }) => ({
      prompt,
      answers: answers.flatMap((answer, i) => {
        if (answer === null) return []
        const { text, score } = answer
        const note = `${task} ${id.slice(0, 40)}${score === null ? '' : `, score ${score}`}`
        return [{ label: names[i]!, text, note }]
      }),
    })),
  }
}

/** What differs, marked; then, behind a click where there is something to compare, what does not. */
function settingTables(
  rows: readonly SettingRow[],
  names: readonly string[],
  captions: { differ: string; same: string },
): ReportTable[] {
  const table = (caption: string, differs: boolean): ReportTable[] => {
    const some = rows.filter((row) => row.differs === differs)
    if (some.length === 0) return []
    const cells = (values: (string | null)[]) =>
      values.map((value) => (value === null ? null : differs ? { value, differs } : value))
    return [
      {
        caption,
        headers: ['setting', ...names],
        rows: some.map(({ key, values }) => [key, ...cells(values)]),
        folded: !differs && names.length > 1,
      },
    ]
  }
  return [...table(captions.differ, true), ...table(captions.same, false)]
}

function originTable(runs: readonly RunSummary[]): ReportTable {
  const rows: [string, (run: RunSummary) => ReportCell][] = [
    ['folder', ({ path }) => path],
    [
      'started from',
      ({ parent, base_model }) => (parent ? `${parent} (${base_model})` : base_model),
    ],
    ['architecture', ({ architecture }) => architecture],
    ['parameters', ({ model }) => model?.parameters ?? null],
    ['type of the weights', ({ model }) => model?.dtype ?? null],
    ['data sets', ({ data }) => data.map(({ name }) => name).join(', ') || null],
    ['rows', ({ training_data }) => training_data?.rows ?? null],
    ['examples', ({ training_data }) => training_data?.examples ?? null],
    ['tokens', ({ training_data }) => training_data?.tokens ?? null],
    ['truncated', ({ training_data }) => training_data?.truncated ?? null],
    ['dropped', ({ training_data }) => dropped(training_data?.dropped)],
    ['hash of the tokenised data', ({ training_data }) => training_data?.hash ?? null],
    ['checkpoints at step', ({ checkpoints }) => checkpoints.join(', ') || null],
  ]
  return {
    caption: 'Where each model comes from',
    headers: ['', ...runs.map(({ name }) => name)],
    rows: rows.map(([label, of]) => [label, ...runs.map(of)]),
  }
}

function dropped(reasons: Record<string, number> | undefined): string | null {
  const list = Object.entries(reasons ?? {}).map(([why, n]) => `${formatNumber(n)} ${why}`)
  return list.join(', ') || null
}

/** Every value of an object and of those in it, with the names that lead to it. */
function leaves(of: Record<string, unknown>, before: string): string[][] {
  return Object.entries(of).flatMap(([key, value]) => {
    return isRecord(value) ? leaves(value, `${before}${key}: `) : [[before + key, words(value)]]
  })
}

/** What `westwind feedback` says of the data it made. */
function manifestTables(runs: readonly RunSummary[]): ReportTable[] {
  return runs.flatMap(({ name, data }) =>
    data.flatMap(({ name: set, manifest, manifest_sha256 }) => {
      if (manifest === null) return []
      const rows = leaves(manifest, '')
      return [
        {
          caption: `${name}: manifest of ${set}, as it is now`,
          headers: ['', 'manifest.json'],
          rows: [...rows, ['SHA-256 of the manifest', manifest_sha256]],
        },
      ]
    }),
  )
}

function sessionTable(runs: readonly RunSummary[]): ReportTable[] {
  const rows = runs.flatMap(({ name, sessions }) =>
    sessions.map(({ step, date, device, processor, driver, westwind, node }) => [
      name,
      step,
      `${date} UTC`,
      [device, processor, driver].filter(Boolean).join(', '),
      westwind,
      node,
    ]),
  )
  if (rows.length === 0) return []
  const headers = ['run', 'from step', 'started', 'machine', 'westwind', 'Node.js']
  return [{ caption: 'Each start of a run; a resumed one has several', headers, rows }]
}
