import type { Machine } from '../device/machine.js'
import type { BenchResult } from './harness.js'

/** Columns of Liger-Kernel's benchmark files, whose tools then read ours. */
const csvColumns = [
  ...['kernel_name', 'kernel_provider', 'kernel_operation_mode', 'metric_name', 'metric_unit'],
  ...['x_name', 'x_label', 'x_value', 'y_value_50', 'y_value_20', 'y_value_80'],
  ...['extra_benchmark_config_str', 'gpu_name', 'timestamp', 'version'],
]

export const csvHeader = csvColumns.join(',')

/** Lines of a result: its time, and the rates and the share of the roofline where they mean something. */
export function csvLines(result: BenchResult, model: string, machine: Machine): string[] {
  const { kernel, provider, mode, shape, x, dtype, error, ms, ms20, ms80, ofPeak } = result
  const { driver, processor, date, westwind } = machine
  const config = JSON.stringify({ model, dtype, shape, error, ...(driver && { driver }) })
  // The longest time gives the lowest rate.
  const rate = (value: number) => [value, (value * ms) / ms80, (value * ms) / ms20]
  const metrics: [name: string, unit: string, y: number[]][] = [['speed', 'ms', [ms, ms20, ms80]]]
  if (result.gflops > 0) metrics.push(['throughput', 'TFLOP/s', rate(result.gflops / 1000)])
  metrics.push(['bandwidth', 'GB/s', rate(result.gbs)])
  if (ofPeak !== null) metrics.push(['roofline', '%', rate(100 * ofPeak)])
  return metrics.map(([name, unit, y]) =>
    [
      ...[kernel, provider, mode, name, unit, x.name, x.label, x.value, ...y],
      ...[config, processor, date.replace('T', ' '), westwind],
    ]
      .map((cell) => quoted(String(cell)))
      .join(','),
  )
}

/** RFC 4180. */
function quoted(cell: string): string {
  return /[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell
}

/** The line over a table. */
export function machineLine(machine: Machine, dtype: string): string {
  const { device, processor, driver, westwind, date } = machine
  const parts = [`${device}: ${processor}`, driver && `driver ${driver}`, dtype]
  return [...parts, `westwind ${westwind}`, `${date} UTC`].filter(Boolean).join(', ')
}

const widths = [13, 9, 17, 28, 9, 10, 10, 10, 9, 9, 8]

export const tableHeader = row([
  ...['kernel', 'by', 'mode', 'shape', 'error', 'ms', '20 %', '80 %'],
  ...['TFLOP/s', 'GB/s', 'of peak'],
])

export function tableLine(result: BenchResult): string {
  const { kernel, provider, mode, shape, error, ms, ms20, ms80, gflops, gbs, ofPeak } = result
  return row([
    ...[kernel, provider, mode, shape, error.toExponential(1)],
    ...[ms, ms20, ms80].map((x) => x.toFixed(ms < 1 ? 4 : 2)),
    gflops > 0 ? (gflops / 1000).toFixed(gflops < 10_000 ? 4 : 1) : '-',
    gbs.toFixed(1),
    ofPeak === null ? '-' : `${(100 * ofPeak).toFixed(0)}%`,
  ])
}

function row(cells: readonly string[]): string {
  return cells
    .map((cell, i) => (i < 4 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
    .join(' ')
}
