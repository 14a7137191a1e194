import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { stringify } from 'yaml'
import { fixturePath } from '../support/fixtures.js'
import { uniform } from '../support/random.js'

const cli = fileURLToPath(new URL('../../bin/westwind.js', import.meta.url))
const kills = Number(process.env.WESTWIND_KILLS ?? 6)
const steps = 12 * kills

it(`${kills} kill -9 at random moments: every resume ends with the weights of a run never stopped`, async () => {
  const root = await mkdtemp(join(tmpdir(), 'westwind-kill-'))
  const recipe = join(root, 'sft.yaml')
  const keys = {
    model_name_or_path: fixturePath('golden/models/h64d32_win16_tied/f32'),
    tokenizer_name_or_path: fixturePath('golden/tiny_tokenizer'),
    dataset_name: fixturePath('golden/trl_sft/packing_bfd.dataset.jsonl'),
    bf16: true,
    max_length: 128,
    per_device_train_batch_size: 2,
    max_steps: steps,
    learning_rate: 2e-3,
    logging_steps: 3,
    save_strategy: 'steps',
    save_steps: 1,
    save_total_limit: 2,
    report_to: 'tensorboard',
  }
  await writeFile(recipe, stringify(keys))
  const env = { ...process.env, WESTWIND_CACHE: join(root, 'cache') }
  const run = (output: string, killAfterMs?: number) =>
    new Promise<number | null>((resolve, reject) => {
      const args = [cli, 'sft', recipe, `--output_dir=${output}`, '--resume']
      const child = spawn(process.execPath, args, { env, stdio: 'ignore' })
      const timer =
        killAfterMs === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), killAfterMs)
      child.once('error', reject)
      child.once('exit', (code) => {
        clearTimeout(timer)
        resolve(code)
      })
    })

  const whole = join(root, 'whole')
  const begin = performance.now()
  expect(await run(whole)).toBe(0)
  const wholeMs = performance.now() - begin

  // What a run takes before its first step: the shortest one, of nothing but a resume at the end.
  const again = performance.now()
  expect(await run(whole)).toBe(0)
  const startMs = performance.now() - again

  const killed = join(root, 'killed')
  const next = uniform(7)
  let hits = 0
  for (let i = 0; i < kills; i++) {
    const moment = startMs * (0.5 + 0.5 * next()) + (next() * 2 * (wholeMs - startMs)) / kills
    if ((await run(killed, moment)) === null) hits += 1
  }
  expect(await run(killed)).toBe(0)
  expect(hits).toBeGreaterThanOrEqual(kills / 2)

  const sha = async (path: string) =>
    createHash('sha256')
      .update(await readFile(path))
      .digest('hex')
  for (const file of ['model.safetensors', `checkpoint-${steps}/optimizer.safetensors`]) {
    expect(await sha(join(killed, file))).toBe(await sha(join(whole, file)))
  }
  const logged = async (output: string) => {
    const text = await readFile(join(output, 'metrics.jsonl'), 'utf8')
    return text
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { step: number; loss: number }).step)
  }
  expect(await logged(killed)).toEqual(await logged(whole))
  const left = (await readdir(killed)).filter(
    (name) => name.startsWith('.') || name.includes('tmp'),
  )
  expect(left).toEqual([])
  await rm(root, { recursive: true, force: true })
}, 600_000)
