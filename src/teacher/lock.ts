import { readFileSync } from 'node:fs'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { isAlive } from '../checkpoint/atomic.js'
import { WestwindError } from '../errors.js'

/** Files this process holds: its own lock file does not tell two users in one process apart. */
const held = new Set<string>()

/**
 * Makes this process the only user of a file until the returned function is called. A process says so by
 * `.<name>.lock-<pid>` beside it, first, and looks for others then, so that of two at once at most one
 * goes on. The lock of a process that was killed counts no more: no such process runs, or one that began
 * later under the same number.
 *
 * @throws ERR_JOURNAL naming the process that has it
 */
export async function lock(file: string): Promise<() => Promise<void>> {
  const target = resolve(file)
  if (held.has(target)) throw inUse(file, 'this process')
  held.add(target)
  const prefix = `.${basename(target)}.lock-`
  const own = join(dirname(target), `${prefix}${process.pid}`)
  const release = async () => {
    await rm(own, { force: true })
    held.delete(target)
  }
  try {
    await writeFile(own, `${beginOf(process.pid) ?? ''}`)
    for (const name of await readdir(dirname(target))) {
      const pid = name.startsWith(prefix) ? Number(name.slice(prefix.length)) : process.pid
      if (pid === process.pid) continue
      const other = join(dirname(target), name)
      const begin = await readFile(other, 'utf8').catch(() => undefined)
      if (begin === undefined) continue // it has just let go
      if (isAlive(pid) && (begin === '' || beginOf(pid) === begin)) {
        throw inUse(file, `process ${pid}; if that is no westwind, delete ${other}`)
      }
      await rm(other, { force: true })
    }
  } catch (cause) {
    await release()
    throw cause
  }
  return release
}

/** When a process began, in the system's ticks; undefined where /proc does not say. */
function beginOf(pid: number): string | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return fields.slice(fields.lastIndexOf(')') + 2).split(' ')[19] // the 22nd; names may hold spaces
  } catch {
    return undefined
  }
}

function inUse(file: string, by: string): WestwindError {
  return new WestwindError('ERR_JOURNAL', `${file} is in use by ${by}`)
}
