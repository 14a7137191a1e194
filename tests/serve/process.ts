import { type ChildProcess, spawn } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const program = join(dirname(fileURLToPath(import.meta.url)), '../../bin/westwind.js')

export interface ServerProcess {
  child: ChildProcess
  url: string
  /** What it logged so far. */
  log: () => string
  /** Exit code, once it has ended. */
  ended: Promise<number | null>
}

/** Runs `westwind serve` as a process of its own, until it says that it is ready. */
export function startServer(
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<ServerProcess> {
  const child = spawn(process.execPath, [program, 'serve', ...args, '--port', '0'], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let log = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log += text
  })
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  return new Promise((resolve, reject) => {
    let out = ''
    child.on('error', reject)
    child.on('exit', (code) => reject(new Error(`the server ended with ${code}: ${log}`)))
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text
      const url = /^listening on (http:\S+)\n$/.exec(out)?.[1]
      if (url) resolve({ child, url, log: () => log, ended })
    })
  })
}
