import { Argument, Option } from 'commander'
import { benchCases } from '../bench/cases.js'
import { type BenchResult, measure } from '../bench/harness.js'
import { benchModels } from '../bench/models.js'
import { benchSft, readBatches } from '../bench/sft.js'
import { device as openDevice } from '../device/device.js'
import type { ModelDType } from '../model/model.js'
import { isolated, scope } from '../tensor/scope.js'
import { peakFlops } from '../train/peak.js'
import type { Register } from './context.js'
import { count, withDevice } from './options.js'

interface Flags {
  device: string
  dtype: ModelDType
  model: string
  tokens: number
  repetitions: number
  batches?: string
  json?: true
  csv?: true
}

const what = [...Object.keys(benchCases), 'sft']

export const registerBench: Register = (program, { stdout, signal }) => {
  const command = program
    .command('bench')
    .description(
      'Time ops and whole steps on this machine. Results are checked before they are timed.',
    )
    .addArgument(new Argument('[what]', 'one of them; default: all').choices(what))
    .addOption(new Option('--dtype <type>').choices(['f32', 'bf16']).default('bf16'))
    .addOption(
      new Option('--model <name>', 'shapes').choices(Object.keys(benchModels)).default('bench-S'),
    )
    .option('--tokens <n>', 'tokens of a row', count(1), 2048)
    .option('--repetitions <n>', 'timed runs; the median counts', count(1), 5)
    .option('--batches <file>', 'sft: the token batches of this safetensors file')
    .option('--json', 'one JSON object per line')
    .option('--csv', 'comma-separated values')
  withDevice(command).action(async (only: string | undefined, flags: Flags) => {
    const device = openDevice(flags.device)
    const { dtype, repetitions, tokens } = flags
    const model = benchModels[flags.model]!
    const peak = await peakFlops(device, dtype)
    const printed = printer(flags, (line) => stdout.write(`${line}\n`))
    for (const [name, make] of Object.entries(benchCases)) {
      if (only !== undefined && only !== name) continue
      await isolated(async () => {
        using _ = scope()
        const options = { device, dtype, repetitions, peakFlops: peak, signal }
        printed(await measure(make(model, tokens, device, dtype), options))
      })
    }
    if (only !== undefined && only !== 'sft') return
    const batches = flags.batches === undefined ? undefined : await readBatches(flags.batches)
    const result = await benchSft(model, {
      ...{ device, dtype, steps: repetitions, warmup: 1, signal },
      ...(batches && { batches }),
    })
    const named = { kernel: 'sft step', model: flags.model, dtype, ...result }
    if (flags.json) stdout.write(`${JSON.stringify(named)}\n`)
    else {
      const { s_per_step, tokens_per_s, useful_tflops, peak_rss_mb } = result
      const share = ((useful_tflops * 1e14) / peak).toFixed(0)
      stdout.write(
        `sft step ${flags.model} ${dtype}: ${s_per_step.toFixed(2)} s, ${tokens_per_s.toFixed(0)} tokens/s, ` +
          `${(useful_tflops * 1000).toFixed(1)} GFLOP/s (${share}% of the GEMM peak), peak RSS ${peak_rss_mb.toFixed(0)} MiB\n`,
      )
    }
  })
}

const columns = [
  'kernel',
  'mode',
  'shape',
  'dtype',
  'error',
  'ms',
  'ms20',
  'ms80',
  'gflops',
  'ofPeak',
] as const

function printer(flags: Flags, line: (text: string) => void): (rows: BenchResult[]) => void {
  let header = !flags.json
  return (rows) => {
    if (header && flags.csv) line(columns.join(','))
    else if (header)
      line(
        row([
          'kernel',
          'mode',
          'shape',
          'dtype',
          'error',
          'ms',
          '20 %',
          '80 %',
          'GFLOP/s',
          'of peak',
        ]),
      )
    header = false
    for (const result of rows) {
      if (flags.json) line(JSON.stringify(result))
      else if (flags.csv) line(columns.map((name) => result[name]).join(','))
      else {
        const { kernel, mode, shape, dtype, error, ms, ms20, ms80, gflops, ofPeak } = result
        const numbers = [ms, ms20, ms80].map((x) => x.toFixed(2))
        const speed = [gflops.toFixed(1), `${(100 * ofPeak).toFixed(0)}%`]
        line(row([kernel, mode, shape, dtype, error.toExponential(1), ...numbers, ...speed]))
      }
    }
  }
}

const widths = [13, 17, 26, 6, 9, 10, 10, 10, 9, 9]

function row(cells: readonly string[]): string {
  return cells
    .map((cell, i) => (i < 4 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
    .join(' ')
}
