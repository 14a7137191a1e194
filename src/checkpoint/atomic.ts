import { randomBytes } from 'node:crypto'
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { WestwindError } from '../errors.js'
import { reason } from '../json.js'

// Work in progress lies beside its target as `.<name>.tmp-<pid>-<random>`, a version that is being
// replaced as `.<name>.old-<pid>-<random>`. What a dead process left is settled by the next one.
const asidePattern = /^\.(.+)\.(tmp|old)-(\d+)-([0-9a-f]{12})$/

/** Tokens of the work this process has under way: its pid may be that of a dead one (containers). */
const underWay = new Set<string>()

/** Longest time a replaced version stays aside while its process lives: two renames and a sync. */
const replaceMs = 60_000

/**
 * Makes or replaces a directory so that a crash at any moment leaves the old one or the new one,
 * complete: `write` fills a directory beside it, which is synced to the disk and renamed. After a
 * crash between the two renames of a replacement the old version lies aside; {@link settle} and
 * the next call bring it back.
 *
 * @throws what `write` throws, or ERR_CHECKPOINT where the disk refuses; the old one is kept then
 */
export async function atomicDirectory(
  final: string,
  write: (tmp: string) => Promise<void>,
): Promise<void> {
  const target = resolve(final)
  await aside(target, async (tmp, old) => {
    await mkdir(tmp)
    await write(tmp)
    await syncTree(tmp)
    if (await exists(target)) {
      await rename(target, old)
      try {
        await rename(tmp, target)
      } catch (cause) {
        await rename(old, target)
        throw cause
      }
    } else {
      await rename(tmp, target)
    }
    await sync(dirname(target))
    await rm(old, { recursive: true, force: true })
  })
}

/** Makes or replaces a file so that a crash at any moment leaves the old or the new content. */
export async function atomicFile(path: string, data: string | Uint8Array): Promise<void> {
  const target = resolve(path)
  await aside(target, async (tmp) => {
    const handle = await open(tmp, 'wx')
    try {
      await handle.writeFile(data)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(tmp, target)
    await sync(dirname(target))
  })
}

/** What {@link atomicFiles} does with the files that were written: names in `dir`. */
export interface FilePlan {
  removeFirst: string[]
  /** Renamed in this order. */
  add: string[]
  removeLast: string[]
}

/**
 * Adds or replaces files of a directory that holds other things too. `write` fills a directory
 * aside; only when all is on the disk are the files renamed, each atomically, in the planned order.
 */
export async function atomicFiles(
  dir: string,
  write: (tmp: string) => Promise<FilePlan>,
): Promise<void> {
  const root = resolve(dir)
  await aside(join(root, 'files'), async (tmp) => {
    await mkdir(tmp)
    const plan = await write(tmp)
    await syncTree(tmp)
    for (const name of plan.removeFirst) await rm(join(root, name), { force: true })
    for (const name of plan.add) await rename(join(tmp, name), join(root, name))
    await sync(root)
    for (const name of plan.removeLast) await rm(join(root, name), { force: true })
    await rm(tmp, { recursive: true })
  })
}

/** Deletes a directory so that a crash never leaves half of it under its name. */
export async function removeDirectory(path: string): Promise<void> {
  const target = resolve(path)
  await aside(target, async (tmp) => {
    await rename(target, tmp)
    await rm(tmp, { recursive: true, force: true })
  })
}

/**
 * Clears up in `parent` after processes that died: half-written work is deleted, and a version that
 * was being replaced returns under its name if the new one did not get there.
 *
 * @param only settle this name alone
 */
export async function settle(parent: string, only?: string): Promise<void> {
  for (const entry of await readdir(parent)) {
    const [, name, kind, pid, token] = asidePattern.exec(entry) ?? []
    if (name === undefined || token === undefined || (only !== undefined && name !== only)) continue
    const path = join(parent, entry)
    const abandoned = Number(pid) === process.pid ? !underWay.has(token) : !isAlive(Number(pid))
    if (kind === 'old' && !(await exists(join(parent, name)))) {
      if (abandoned || (await ageMs(path)) > replaceMs) await rename(path, join(parent, name))
    } else if (abandoned) {
      await rm(path, { recursive: true, force: true })
    }
  }
}

async function aside(
  target: string,
  work: (tmp: string, old: string) => Promise<void>,
): Promise<void> {
  const parent = dirname(target)
  const name = basename(target)
  const token = randomBytes(6).toString('hex')
  const tmp = join(parent, `.${name}.tmp-${process.pid}-${token}`)
  underWay.add(token)
  try {
    await mkdir(parent, { recursive: true })
    await settle(parent, name)
    await work(tmp, join(parent, `.${name}.old-${process.pid}-${token}`))
  } catch (cause) {
    await rm(tmp, { recursive: true, force: true }).catch(() => undefined) // the first error counts
    throw saveError(target, cause)
  } finally {
    underWay.delete(token)
  }
}

/** File system errors become ERR_CHECKPOINT, with a word on what to do; others pass. */
function saveError(target: string, cause: unknown): unknown {
  if (!(cause instanceof Error) || !('syscall' in cause) || !('code' in cause)) return cause
  const full = cause.code === 'ENOSPC' || cause.code === 'EDQUOT'
  const advice = full ? '; free space on the disk or lower save_total_limit' : ''
  return new WestwindError(
    'ERR_CHECKPOINT',
    `${target} could not be written: ${reason(cause)}${advice}`,
    { cause },
  )
}

async function syncTree(path: string): Promise<void> {
  for (const entry of await readdir(path, { withFileTypes: true })) {
    const inner = join(path, entry.name)
    if (entry.isDirectory()) await syncTree(inner)
    else if (entry.isFile()) await sync(inner)
  }
  await sync(path)
}

/** fsync of a file or of a directory (its names). */
async function sync(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Whether there is a file or directory of this name. */
export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}

async function ageMs(path: string): Promise<number> {
  return Date.now() - (await stat(path)).ctimeMs // a rename sets ctime
}

/** Whether a process of this number runs. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (cause) {
    return cause instanceof Error && 'code' in cause && cause.code === 'EPERM'
  }
}
