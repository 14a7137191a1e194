import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '../..')
const program = join(root, 'bin/westwind.js')

/** Whether the command line is built; the tests of it need `npm run build`, which `npm test` does. */
export const cliBuilt = existsSync(join(root, 'dist/cli/main.js'))

export interface CliResult {
  code: number | null
  stdout: string
  stderr: string
}

/** Runs `westwind` as a process of its own; `signal` is sent to it with its first output. */
export function westwind(
  args: readonly string[],
  options: {
    input?: string
    env?: Record<string, string>
    signal?: NodeJS.Signals
  } = {},
): Promise<CliResult> {
  const env = { ...process.env, ...options.env }
  const child = spawn(process.execPath, [program, ...args], { env })
  const result: CliResult = { code: null, stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    if (result.stdout === '' && options.signal) child.kill(options.signal)
    result.stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    result.stderr += text
  })
  child.stdin.on('error', () => undefined) // a program that ends early does not read it
  child.stdin.end(options.input ?? '')
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve({ ...result, code }))
  })
}
