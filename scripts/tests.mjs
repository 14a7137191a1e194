// What the scripts share that run tests on an addon of their own: its build, and a run of vitest with its counts.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from './simulator.mjs'

const node = (script, args, env = {}) =>
  spawnSync(process.execPath, [join(root, script), ...args], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  }).status

/** Builds the addon with these CMake definitions into a folder of the project; its path, or undefined where that failed. */
export function buildAddon(folder, ...definitions) {
  const how = ['--log-level', 'warn', '--parallel', String(availableParallelism())]
  const defines = definitions.map((definition) => `--CD${definition}`)
  const args = ['build', '--out', folder, ...how, ...defines]
  return node('node_modules/cmake-js/bin/cmake-js', args) === 0
    ? join(root, folder, 'Release/westwind.node')
    : undefined
}

/** Runs vitest. Undefined where it ended without a report; `good` where it ended well. */
export function runTests(args, env, reporter = 'default') {
  const folder = mkdtempSync(join(tmpdir(), 'westwind-tests-'))
  const file = join(folder, 'report.json')
  const reporters = [`--reporter=${reporter}`, '--reporter=json', `--outputFile=${file}`]
  const status = node('node_modules/vitest/vitest.mjs', ['run', ...args, ...reporters], env)
  const report = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined
  rmSync(folder, { recursive: true })
  return (
    report && {
      good: status === 0,
      passed: report.numPassedTests,
      failed: report.numFailedTests,
      skipped: report.numPendingTests + report.numTodoTests,
    }
  )
}
