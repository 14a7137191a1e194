import { join } from 'node:path'
import type { Command } from 'commander'
import type { Metric } from '../eval/results.js'
import type { ScoringOutcome } from '../eval/run-scoring.js'
import type { CliContext } from './context.js'
import { count, type ModelOptions, withDevice, withDType } from './options.js'

/** Options of every evaluation that scores with log-probs. */
export interface ScoringFlags extends ModelOptions {
  out?: string
  limit?: number
  json?: true
}

export function withScoring(command: Command): Command {
  command
    .option('--limit <n>', 'only the first so many', count(1))
    .option('--out <dir>', 'where results go; default: eval/TASK in the model’s folder')
    .option('--json', 'print results.json instead of a table')
  return withDType(withDevice(command))
}

/** Prints what an evaluation left in its files. */
export function report(
  { out, results, headline, parts }: ScoringOutcome,
  flags: ScoringFlags,
  { stdout, stderr }: CliContext,
): void {
  if (flags.json) stdout.write(`${JSON.stringify({ ...results, out })}\n`)
  else stdout.write(`${headline}\n${metricTable({ ...results.metrics, ...flat(parts) })}`)
  stderr.write(`-> ${join(out, 'results.json')}\n`)
}

/** Metrics of parts as `part/metric`, without their sizes. */
function flat(parts: Readonly<Record<string, Readonly<Record<string, Metric>>>>) {
  return Object.fromEntries(
    Object.entries(parts).flatMap(([part, metrics]) =>
      Object.entries(metrics)
        .filter(([name]) => name !== 'n')
        .map(([name, metric]) => [`${part}/${name}`, metric]),
    ),
  )
}

/** One metric a line, with its standard error. */
function metricTable(metrics: Readonly<Record<string, Metric>>): string {
  const width = Math.max(...Object.keys(metrics).map((name) => name.length)) + 2
  return Object.entries(metrics)
    .map(([name, metric]) => `${name.padEnd(width)}${valueText(metric)}\n`)
    .join('')
}

function valueText(metric: Metric): string {
  if (metric === null) return '-'
  if (typeof metric === 'number') return digits(metric)
  const { value, stderr } = metric
  return value === null ? '-' : `${digits(value)} ± ${digits(stderr)}`
}

function digits(x: number): string {
  return Math.abs(x) >= 1000 ? x.toPrecision(6) : x.toFixed(4)
}
