import { Argument, type Command, InvalidArgumentError, Option } from 'commander'
import { benchCases } from '../bench/cases.js'
import { cublasLtMissing } from '../bench/cublaslt.js'
import { type BenchResult, measure } from '../bench/harness.js'
import { benchModels } from '../bench/models.js'
import { csvHeader, csvLines, machineLine, tableHeader, tableLine } from '../bench/report.js'
import { device as openDevice } from '../device/device.js'
import { type Machine, machineOf } from '../device/machine.js'
import { knownPeaks } from '../device/peaks.js'
import type { ModelDType } from '../model/model.js'
import { isolated, scope } from '../tensor/scope.js'
import { peakFlops } from '../train/peak.js'
import { registerBenchTrain } from './bench-train.js'
import type { Register } from './context.js'
import { count, withDevice } from './options.js'

interface Flags {
  device: string
  dtype: ModelDType
  model?: string
  tokens?: number[]
  repetitions?: number
  json?: true
  csv?: true
}

/** What a laptop times in seconds, and what a GPU is bought for. */
const defaults = {
  cpu: { model: 'bench-S', tokens: [2048], repetitions: 5 },
  gpu: { model: 'mistral-7b', tokens: [4096, 8192], repetitions: 20 },
}

const what = Object.keys(benchCases)

export const registerBench: Register = (program, context) => {
  const { stdout, stderr, signal } = context
  const line = (text: string) => void stdout.write(`${text}\n`)
  const remark = (text: string) => void stderr.write(`${text}\n`)
  const command = withDevice(benchCommand(program)).enablePositionalOptions()
  command.action(async (only: string | undefined, flags: Flags) => {
    const device = openDevice(flags.device)
    const { dtype } = flags
    const on = defaults[device.name === 'cpu' ? 'cpu' : 'gpu']
    const { repetitions = on.repetitions, tokens = on.tokens, model = on.model } = flags
    const machine = machineOf(device)
    const peaks = { flops: await peakFlops(device, dtype), memory: knownPeaks(device).memory }
    const print = printer(flags, model, machine, line)
    const missing = device.name === 'cpu' ? '' : await cublasLtMissing(device)
    if (missing && (only ?? 'gemm') === 'gemm')
      remark(`gemm without cuBLASLt beside it: ${missing}`)
    for (const [name, make] of Object.entries(benchCases)) {
      if (only !== undefined && only !== name) continue
      for (const T of name === 'adamw' ? tokens.slice(0, 1) : tokens) {
        await isolated(async () => {
          using _ = scope()
          const options = { device, dtype, repetitions, peaks, signal, remark }
          const cublasLt = missing === undefined
          const cases = make(benchModels[model]!, T, device, dtype, { cublasLt })
          print(await measure(cases, options))
        })
      }
    }
  })
  registerBenchTrain(command, context)
}

function benchCommand(program: Command): Command {
  const { cpu, gpu } = defaults
  return program
    .command('bench')
    .description(
      'Time ops on this machine, or whole steps (bench train). Results are checked before they are timed.',
    )
    .addArgument(new Argument('[what]', 'one of them; default: all').choices(what))
    .addOption(new Option('--dtype <type>').choices(['f32', 'bf16']).default('bf16'))
    .addOption(
      new Option('--model <name>', `shapes; default: ${cpu.model}, on a GPU ${gpu.model}`).choices(
        Object.keys(benchModels),
      ),
    )
    .option(
      '--tokens <n,...>',
      `tokens of a row, one or more numbers; default: ${cpu.tokens}, on a GPU ${gpu.tokens}`,
      counts,
    )
    .option(
      '--repetitions <n>',
      `timed runs; the median counts; default: ${cpu.repetitions}, on a GPU ${gpu.repetitions}`,
      count(1),
    )
    .option('--json', 'one JSON object per line')
    .addOption(new Option('--csv', "comma-separated values in Liger's columns").conflicts('json'))
}

function counts(text: string): number[] {
  const list = text.split(',').map(count(1))
  if (new Set(list).size === list.length) return list
  throw new InvalidArgumentError('Expected different numbers.')
}

function printer(
  { json, csv, dtype }: Flags,
  model: string,
  machine: Machine,
  line: (text: string) => void,
): (results: readonly BenchResult[]) => void {
  let header = json ? [] : csv ? [csvHeader] : [machineLine(machine, dtype), tableHeader]
  return (results) => {
    header.forEach(line)
    header = []
    for (const result of results) {
      if (json) line(JSON.stringify({ ...result, model, ...machine }))
      else if (csv) csvLines(result, model, machine).forEach(line)
      else line(tableLine(result))
    }
  }
}
