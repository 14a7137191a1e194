import { type Command, Option } from 'commander'
import { benchModels } from '../bench/models.js'
import {
  type BenchTask,
  benchTasks,
  type Precision,
  precisions,
  type TrainBenchResult,
} from '../bench/train/options.js'
import { benchTrain } from '../bench/train/tasks.js'
import { type Device, openCpu, device as openDevice } from '../device/device.js'
import { machineOf } from '../device/machine.js'
import { WestwindError } from '../errors.js'
import type { CliContext } from './context.js'
import { count, withDevice } from './options.js'

interface Flags {
  task?: BenchTask
  device: string
  model: string
  precision: Precision
  steps: number
  warmup: number
  threads?: number
  seed: number
  seq: number
  microBatch: number
  docs: 'packed' | 'full'
  gradCkpt?: true
  pairs: number
  maxLength: number
  precomputeRef?: true
  data?: string
  batch: number
  prompt: number
  new: number
  batches?: string
  json?: true
}

/** `bench train`: whole steps, with the options and definitions of the PyTorch programs they are compared with. */
export function registerBenchTrain(bench: Command, { stdout, signal }: CliContext): void {
  const command = bench
    .command('train')
    .description('Time whole steps of a task on random weights: dSFT, dDPO, scoring, generation.')
    .addOption(new Option('--task <name>', 'one of them; default: all').choices(benchTasks))
    .addOption(
      new Option('--model <name>', 'shapes').choices(Object.keys(benchModels)).default('bench-S'),
    )
    .addOption(
      new Option('--precision <name>', 'bf16, the same with f32 master weights, or f32 throughout')
        .choices(precisions)
        .default('bf16'),
    )
    .option('--steps <n>', 'timed steps; medians count', count(1), 5)
    .option('--warmup <n>', 'steps before them', count(0), 2)
    .option('--threads <n>', 'of the CPU; default: all', count(1))
    .option('--seed <n>', 'of random tokens', count(0), 0)
    .option('--seq <n>', 'sft, score: tokens of a row', count(2), 2048)
    .option('--micro-batch <n>', 'sft, score: rows of a step', count(1), 1)
    .addOption(
      new Option('--docs <how>', 'sft, score: documents of a row')
        .choices(['packed', 'full'])
        .default('packed'),
    )
    .option('--grad-ckpt', 'sft, dpo: compute activations again in backward')
    .option('--pairs <n>', 'dpo: pairs of a step', count(1), 2)
    .option('--max-length <n>', 'dpo: tokens of prompt and completion', count(2), 1024)
    .option('--precompute-ref', "dpo: the reference's log-probs before the first step")
    .option('--data <file>', 'dpo: rows of prompt_ids, chosen_ids, rejected_ids')
    .option('--batch <n>', 'generate: prompts at once', count(1), 1)
    .option('--prompt <n>', 'generate: tokens of a prompt', count(1), 128)
    .option('--new <n>', 'generate: new tokens', count(2), 128)
    .option('--batches <file>', 'sft, score, dpo: the token batches of this safetensors file')
    .option('--json', 'one JSON object per task')
  withDevice(command).action(async (flags: Flags) => {
    if (flags.batches !== undefined && flags.task === undefined) {
      throw new WestwindError('ERR_INVALID_ARG', '--batches are those of one task: give --task too')
    }
    const device = deviceOf(flags)
    const machine = machineOf(device)
    if (!flags.json) stdout.write(`${machine.device}: ${machine.processor}, ${flags.model}\n`)
    for (const task of flags.task ? [flags.task] : benchTasks) {
      const { model: name, gradCkpt = false, precomputeRef = false } = flags
      const options = {
        ...flags,
        device,
        model: benchModels[name]!,
        gradCkpt,
        precomputeRef,
        signal,
      }
      const result = await benchTrain(task, options)
      const named = { impl: 'westwind', model: name, threads: device.units, ...result, ...machine }
      stdout.write(`${flags.json ? JSON.stringify(named) : sentence(result)}\n`)
    }
  })
}

function deviceOf({ device, threads }: Flags): Device {
  if (threads === undefined) return openDevice(device)
  const { name } = openDevice(device)
  if (name === 'cpu') return openCpu({ threads })
  throw new WestwindError('ERR_INVALID_ARG', `--threads is for the CPU; --device is ${name}`)
}

function sentence(result: TrainBenchResult): string {
  const of = (key: string, digits: number) => Number(result[key]).toFixed(digits)
  const parts = [
    `${String(result.task).padEnd(8)} ${result.precision}`,
    result.pairs_per_s !== undefined && `${of('pairs_per_s', 2)} pairs/s`,
    `${of('tokens_per_s', 0)} tokens/s`,
    `${of('s_per_step', 3)} s a step`,
    result.useful_tflops !== undefined && `${of('useful_tflops', 3)} TFLOP/s useful`,
    result.weight_GBps !== undefined && `weights read at ${of('weight_GBps', 1)} GB/s`,
    `peak RSS ${of('peak_rss_mb', 0)} MiB`,
  ]
  return parts.filter(Boolean).join(', ')
}
