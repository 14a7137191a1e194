// What the benchmarks share: a run of another program, a talk with one, the machine in words, the result file.
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, loadavg } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
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

/** Starts a program that answers lines of JSON: `ask` sends one and waits for the answer. */
export function talk(command, args, env = {}) {
  const child = spawn(command, args, {
    ...{ cwd: root, stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, ...env } },
  })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    async ask(request) {
      child.stdin.write(`${JSON.stringify(request)}\n`)
      const { value, done } = await lines.next()
      if (done) throw new Error(`${command} ${args[0]} ended; its error is above`)
      return JSON.parse(value)
    },
    end: () => child.stdin.end(),
  }
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

/** The processor and its threads. */
export function machine() {
  return `${cpus()[0].model.trim()}, ${threads} threads`
}

/** The commit that is measured. */
export function commit() {
  return run('git', ['rev-parse', '--short', 'HEAD']).trim()
}

/**
 * Writes `<date>-<cpu>-<name>.md`, and to the terminal.
 *
 * @param write makes the page of `date`, `machine` and `versions`
 * @param python undefined where westwind stands alone
 * @param peer the Python module that westwind stands beside
 */
export function report(name, python, write, peer = { module: 'torch', title: 'PyTorch' }) {
  const date = new Date().toISOString().slice(0, 10)
  const ask = `import ${peer.module} as m; print(m.__version__)`
  const beside = python ? `, ${peer.title} ${run(python, ['-c', ask]).trim()}` : ''
  const load = `Only the ratios mean anything; load average at the end ${loadavg()[0].toFixed(1)}.`
  const versions = `${load} westwind ${commit()}${beside}, Node ${process.version}.`
  const page = write({ date, machine: machine(), versions })
  const slug = cpus()[0]
    .model.trim()
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
  mkdirSync(join(root, 'benchmarks/results'), { recursive: true })
  writeFileSync(join(root, `benchmarks/results/${date}-${slug}-${name}.md`), page)
  console.log(page)
}
