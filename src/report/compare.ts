import { basename, resolve, sep } from 'node:path'
import { version } from '../version.js'
import { type Curve, curves } from './curves.js'
import { type DataLineage, dataLineage, parentOf } from './lineage.js'
import { type Answer, type Evaluation, isSamePlace } from './read-evaluations.js'
import type { RunFolder } from './read-run.js'
import { type SettingRow, settingRows, union } from './settings.js'

/** What `report.json` has. Lists named `values`, `points` and `answers` are in the order of `runs`. */
export interface RunReport {
  westwind: string
  date: string
  runs: RunSummary[]
  curves: Curve[]
  metrics: { name: string; values: (number | null)[] }[]
  evaluations: EvaluationRow[]
  samples: SampleRow[]
  /** How the runs of a task were evaluated: one row per setting. */
  settings: { task: string; rows: SettingRow[] }[]
  recipe: SettingRow[]
  /** What could not be read, or does not fit together. */
  problems: string[]
}

export interface RunSummary
  extends Omit<RunFolder, 'history' | 'metrics' | 'recipe' | 'record' | 'datasets' | 'problems'> {
  /** Short and different from that of every other run. */
  name: string
  /** Name of the run that it started from, where that is one of these. */
  parent: string | null
  data: DataLineage[]
  /** Of `run.json`; null for a run that has none. */
  model: NonNullable<RunFolder['record']>['model'] | null
  training_data: NonNullable<RunFolder['record']>['data'] | null
  sessions: NonNullable<RunFolder['record']>['sessions']
}

export interface EvaluationRow {
  task: string
  group: string | null
  metric: string
  values: ({ value: number | null; stderr: number | null } | null)[]
}

export interface SampleRow {
  task: string
  id: string
  prompt: string
  answers: ({ text: string; score: number | null } | null)[]
}

/** Sets runs and their evaluations side by side; an evaluation that belongs to no run gets a column of its own. */
export async function compare(
  folders: readonly RunFolder[],
  evaluations: readonly Evaluation[],
  problems: string[],
): Promise<RunReport> {
  const ofRun = folders.map((): Evaluation[] => [])
  const strangers = new Map<string, Evaluation[]>()
  for (const evaluation of evaluations) {
    const at = await ownerOf(evaluation, folders)
    if (at >= 0) ofRun[at]!.push(evaluation)
    else strangers.set(evaluation.model, [...(strangers.get(evaluation.model) ?? []), evaluation])
  }
  const all = [
    ...folders,
    ...[...strangers].map(([model, [first]]) => modelOnly(first?.model_path ?? model)),
  ]
  const names = uniqueNames(all.map(({ path }) => path))
  const perRun = [...ofRun, ...strangers.values()].map((list, i) =>
    newestOfEachTask(list, names[i]!, problems),
  )
  const runs = await Promise.all(all.map((run, i) => summary(run, i, all, names)))
  const settings = evaluationSettings(perRun)
  return {
    westwind: version,
    date: new Date().toISOString(),
    runs,
    curves: curves(all, names),
    metrics: union(all.map(({ metrics }) => Object.keys(metrics))).map((name) => ({
      name,
      values: all.map(({ metrics }) => metrics[name] ?? null),
    })),
    evaluations: evaluationRows(perRun),
    samples: samples(perRun),
    settings,
    recipe: settingRows(
      all.map(({ recipe: { output_dir: _out, run_name: _name, ...recipe } }) => recipe),
      null,
    ),
    problems: [
      ...problems,
      ...settings.flatMap(differences),
      ...all.flatMap((run) => run.problems),
    ],
  }
}

/** The run that was evaluated: by its folder, else by its name. */
async function ownerOf(evaluation: Evaluation, runs: readonly RunFolder[]): Promise<number> {
  const { file, model, model_path } = evaluation
  for (const [i, { path }] of runs.entries()) {
    if (resolve(file).startsWith(resolve(path, 'eval') + sep)) return i
    if (model_path !== null && (await isSamePlace(model_path, path))) return i
  }
  if (model_path !== null) return -1
  const named = runs.flatMap(({ path }, i) => (basename(resolve(path)) === model ? [i] : []))
  return named.length === 1 ? named[0]! : -1
}

function modelOnly(path: string): RunFolder {
  return {
    path,
    stage: null,
    state: 'model',
    step: null,
    max_steps: null,
    checkpoints: [],
    history: [],
    metrics: {},
    record: null,
    recipe: {},
    datasets: [],
    base_model: null,
    architecture: null,
    problems: [],
  }
}

/** The last part of each path, and as many parts before it as make all of them different. */
function uniqueNames(paths: readonly string[]): string[] {
  const parts = paths.map((path) => resolve(path).split(sep).filter(Boolean))
  for (let length = 1; length <= 8; length++) {
    const names = parts.map((of) => of.slice(-length).join('/'))
    if (new Set(names).size === names.length) return names
  }
  return paths.map((path, i) => `${path} (${i + 1})`)
}

function newestOfEachTask(
  list: readonly Evaluation[],
  run: string,
  problems: string[],
): Evaluation[] {
  const sorted = [...list].sort((a, b) => ((a.date ?? '') < (b.date ?? '') ? 1 : -1))
  return union([sorted.map(({ task }) => task)]).map((task) => {
    const [newest, ...older] = sorted.filter((one) => one.task === task)
    for (const { file } of older) {
      problems.push(`${file}: ${run} has a newer result of ${task}, ${newest!.file}; passed over`)
    }
    return newest!
  })
}

async function summary(
  run: RunFolder,
  i: number,
  all: readonly RunFolder[],
  names: readonly string[],
): Promise<RunSummary> {
  const { history: _h, metrics: _m, recipe: _r, datasets: _d, problems: _p, record, ...rest } = run
  return {
    ...rest,
    name: names[i]!,
    parent: names[await parentOf(run, all)] ?? null,
    data: await dataLineage(run),
    model: record?.model ?? null,
    training_data: record?.data ?? null,
    sessions: record?.sessions ?? [],
  }
}

function evaluationRows(perRun: readonly Evaluation[][]): EvaluationRow[] {
  const rows = new Map<string, EvaluationRow>()
  for (const [i, list] of perRun.entries()) {
    for (const { task, scores } of list) {
      for (const { group, metric, value, stderr } of scores) {
        const key = JSON.stringify([task, group, metric])
        const row = rows.get(key) ?? { task, group, metric, values: perRun.map(() => null) }
        row.values[i] = { value, stderr }
        rows.set(key, row)
      }
    }
  }
  const tasks = union(perRun.map((list) => list.map(({ task }) => task)))
  return tasks.flatMap((task) => [...rows.values()].filter((row) => row.task === task))
}

function evaluationSettings(perRun: readonly Evaluation[][]): RunReport['settings'] {
  return union(perRun.map((list) => list.map(({ task }) => task))).map((task) => {
    const ofTask = perRun.map((list) => list.find((one) => one.task === task)?.settings)
    return { task, rows: settingRows(ofTask, 'none') }
  })
}

/** A line for a task whose results were not made with the same settings: its scores may not compare. */
function differences({ task, rows }: RunReport['settings'][number]): string[] {
  const values = rows.flatMap(({ key, values, differs }) =>
    differs ? [`${key} is ${values.filter((value) => value !== null).join(', ')}`] : [],
  )
  if (values.length === 0) return []
  return [`${task}: not all runs were evaluated with the same settings: ${values.join('; ')}`]
}

/** Sample answers per task, and characters of a text, that are shown. */
const sampleCount = 8
const sampleLength = 4000

/** The items that most models answered; the same item is one with the same id and the same prompt. */
function samples(perRun: readonly Evaluation[][]): SampleRow[] {
  return union(perRun.map((list) => list.map(({ task }) => task))).flatMap((task) => {
    const answers = perRun.map((list) => {
      const own = list.find((one) => one.task === task)?.answers ?? []
      return new Map(own.map((answer) => [itemKey(answer), answer] as const))
    })
    const items = new Map<string, Answer>()
    for (const of of answers)
      for (const [id, answer] of of) if (!items.has(id)) items.set(id, answer)
    const having = (id: string) => answers.filter((of) => of.has(id)).length
    const most = [...items.keys()].reduce((a, id) => Math.max(a, having(id)), 0)
    return spread([...items.values()].filter((item) => having(itemKey(item)) === most)).map(
      (item) => ({
        task,
        id: item.id,
        prompt: cut(item.prompt),
        answers: answers.map((of) => {
          const answer = of.get(itemKey(item))
          return answer ? { text: cut(answer.text), score: answer.score } : null
        }),
      }),
    )
  })
}

function itemKey({ id, prompt }: Answer): string {
  return JSON.stringify([id, prompt])
}

/** A few from the whole list: items of one kind often stand together. */
function spread<T>(list: readonly T[]): T[] {
  const step = Math.max(1, list.length / sampleCount)
  return Array.from(
    { length: Math.min(sampleCount, list.length) },
    (_, i) => list[Math.floor(i * step)]!,
  )
}

function cut(text: string): string {
  const left = text.length - sampleLength
  return left > 0 ? `${text.slice(0, sampleLength)}… (${left} more characters)` : text
}
