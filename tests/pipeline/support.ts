import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { type ZephyrOptions, type ZephyrResult, zephyr } from '../../src/pipeline/zephyr.js'
import { fixturePath } from '../support/fixtures.js'

const cli = fileURLToPath(new URL('../../bin/westwind.js', import.meta.url))

export type Keys = Record<string, unknown>

/** A folder for the runs of one test file, with a cache of its own. */
export async function workFolder(): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'westwind-zephyr-'))
  process.env.WESTWIND_CACHE = join(root, 'cache')
  return root
}

const shared: Keys = {
  dtype: 'float32',
  per_device_train_batch_size: 2,
  max_steps: 4,
  logging_steps: 2,
  save_steps: 1,
  save_total_limit: 1,
  report_to: 'none',
}

/** A pipeline of a tiny model, in a folder of its own with copies of its data. */
export class Pipeline {
  readonly folder: string
  readonly file: string
  /** Top-level keys beside the sections. */
  keys: Keys = {}
  sft: Keys | undefined
  /** Sections behind the training ones. */
  more: Keys = {}
  dpo: Keys | undefined

  private constructor(root: string, name: string) {
    this.folder = join(root, name)
    this.file = join(this.folder, 'pipeline.yaml')
    this.sft = {
      ...shared,
      model_name_or_path: fixturePath('golden/models/h64d32_win16_tied/f32'),
      tokenizer_name_or_path: fixturePath('golden/tiny_tokenizer'),
      dataset_name: join(this.folder, 'data/sft'),
      max_length: 128,
      packing: true,
      learning_rate: 2e-3,
    }
    this.dpo = {
      ...shared,
      dataset_name: join(this.folder, 'data/dpo'),
      max_length: 128,
      learning_rate: 5e-4,
    }
  }

  static async create(root: string, name: string): Promise<Pipeline> {
    const made = new Pipeline(root, name)
    for (const [kind, file] of [
      ['sft', 'golden/trl_sft/packing_bfd.dataset.jsonl'],
      ['dpo', 'golden/trl_dpo/sigmoid_beta0.1.dataset.jsonl'],
    ] as const) {
      const lines = (await readFile(fixturePath(file), 'utf8')).trim().split('\n').slice(0, 24)
      await mkdir(join(made.folder, 'data', kind), { recursive: true })
      await writeFile(made.data(kind), `${lines.join('\n')}\n`)
    }
    return made
  }

  data(kind: 'sft' | 'dpo'): string {
    return join(this.folder, 'data', kind, 'train.jsonl')
  }

  out(...parts: string[]): string {
    return join(this.folder, 'out', ...parts)
  }

  /** A moment: something of this name is there. */
  has(path: string): () => boolean {
    return () => existsSync(this.out(path))
  }

  async write(): Promise<void> {
    const { sft, dpo, keys } = this
    const sections = { ...(sft && { sft }), ...(dpo && { dpo }), ...this.more }
    await writeFile(this.file, stringify({ output_dir: this.out(), ...keys, ...sections }))
  }

  /** Runs it; `said` is what people would read. */
  async run(
    options: Partial<ZephyrOptions> = {},
  ): Promise<ZephyrResult & { said: string; outcomes: Record<string, string> }> {
    await this.write()
    let said = ''
    const stream = {
      write: (text: string) => {
        said += text
        return true
      },
      on: () => undefined,
    }
    const result = await zephyr({ pipeline: this.file, device: 'cpu', stream, ...options })
    const outcomes = Object.fromEntries(result.stages.map(({ stage, outcome }) => [stage, outcome]))
    return { ...result, said, outcomes }
  }
}

/** Runs a pipeline as a process, and ends it with the signal as soon as `moment` has come. */
export function runAsProcess(
  { file }: Pipeline,
  moment?: () => boolean,
  signal: NodeJS.Signals = 'SIGKILL',
): Promise<{ code: number | null; stderr: string }> {
  const child = spawn(process.execPath, [cli, 'zephyr', file, '--device', 'cpu'])
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const timer = setInterval(() => {
    if (!moment?.()) return
    child.kill(signal)
    clearInterval(timer)
  }, 2)
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => {
      clearInterval(timer)
      resolve({ code, stderr })
    })
  })
}

export async function sha(file: string): Promise<string> {
  return createHash('sha256')
    .update(await readFile(file))
    .digest('hex')
}
