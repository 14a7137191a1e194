// What the comparisons with PyTorch share: a run of another program, the machine in words, the result file.
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, loadavg } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = join(dirname(fileURLToPath(import.meta.url)), '..')
export const threads = cpus().length

/** What the command prints. Its stderr is shown only when it fails. */
export function run(command, args, { input = '', env = {} } = {}) {
  return execFileSync(command, args, {
    ...{ cwd: root, encoding: 'utf8', input, env: { ...process.env, ...env } },
    ...{ stdio: 'pipe', maxBuffer: 2 ** 26 },
  })
}

/** The JSON objects, one a line, among what a program prints. */
export function jsonLines(text) {
  const lines = text.split('\n').filter((line) => line.startsWith('{'))
  return lines.map((line) => JSON.parse(line))
}

/** The objects that `westwind bench` prints. */
export function bench(what, ...args) {
  return jsonLines(run(process.execPath, ['bin/westwind.js', 'bench', what, '--json', ...args]))
}

/**
 * Writes `<date>-<cpu>-<name>.md`, and to the terminal.
 *
 * @param write makes the page of `date`, `machine` and `versions`
 */
export function report(name, python, write) {
  const cpu = cpus()[0].model.trim()
  const date = new Date().toISOString().slice(0, 10)
  const git = run('git', ['rev-parse', '--short', 'HEAD']).trim()
  const torch = run(python, ['-c', 'import torch; print(torch.__version__)']).trim()
  const load = `Only the ratios mean anything; load average at the end ${loadavg()[0].toFixed(1)}.`
  const page = write({
    date,
    machine: `${cpu}, ${threads} threads`,
    versions: `${load} westwind ${git}, PyTorch ${torch}, Node ${process.version}.`,
  })
  const slug = cpu.toLowerCase().replace(/[^a-z0-9]+/g, '-')
  mkdirSync(join(root, 'benchmarks/results'), { recursive: true })
  writeFileSync(join(root, `benchmarks/results/${date}-${slug}-${name}.md`), page)
  console.log(page)
}
