import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type * as FsPromises from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import {
  atomicDirectory,
  atomicFile,
  atomicFiles,
  removeDirectory,
  settle,
} from '../../src/checkpoint/atomic.js'
import { temporaryDirectory } from './tiny-model.js'

// A process that is killed does nothing more: from call number `after` on every change of the file
// system fails, and so does all clean-up.
const crash = vi.hoisted(() => ({ after: Number.POSITIVE_INFINITY, calls: 0 }))
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof FsPromises>()
  const counted = <A extends unknown[], R>(name: string, act: (...args: A) => Promise<R>) => {
    return async (...args: A): Promise<R> => {
      if (crash.calls++ >= crash.after) throw new Error(`crashed before ${name}`)
      return act(...args)
    }
  }
  return {
    ...real,
    mkdir: counted('mkdir', real.mkdir),
    open: counted('open', real.open),
    rename: counted('rename', real.rename),
    rm: counted('rm', real.rm),
    writeFile: counted('writeFile', real.writeFile),
  }
})
const { writeFile } = await import('node:fs/promises')

const root = temporaryDirectory()
const deadPid = spawnSync('true').pid
const ownPid = process.pid
let parent = ''
let count = 0

beforeEach(() => {
  parent = join(root, String(count++))
  mkdirSync(parent)
})
afterEach(() => {
  crash.after = Number.POSITIVE_INFINITY
  Object.defineProperty(process, 'pid', { value: ownPid })
})

/** Runs `work` as a process that is killed before its n-th change; true when it got to its end. */
async function killedBefore(n: number, work: () => Promise<void>): Promise<boolean> {
  Object.defineProperty(process, 'pid', { value: deadPid })
  crash.calls = 0
  crash.after = n
  try {
    await work()
    return true
  } catch (error) {
    expect(String(error)).toContain('crashed')
    return false
  } finally {
    crash.after = Number.POSITIVE_INFINITY
    Object.defineProperty(process, 'pid', { value: ownPid })
  }
}

const writeVersion = (version: string) => async (tmp: string) => {
  await writeFile(join(tmp, 'a'), version)
  mkdirSync(join(tmp, 'inner'))
  await writeFile(join(tmp, 'inner', 'b'), version)
}

/** The version in a directory, checking that all of its files are of that version. */
function versionOf(dir: string): string | undefined {
  if (!existsSync(dir)) return undefined
  const version = readFileSync(join(dir, 'a'), 'utf8')
  expect(readFileSync(join(dir, 'inner', 'b'), 'utf8')).toBe(version)
  return version
}

describe('atomicDirectory', () => {
  it('makes a directory, then replaces it, and leaves nothing beside it', async () => {
    const target = join(parent, 'sub', 'model')
    await atomicDirectory(target, writeVersion('1'))
    expect(versionOf(target)).toBe('1')
    await atomicDirectory(target, writeVersion('2'))
    expect(versionOf(target)).toBe('2')
    expect(readdirSync(join(parent, 'sub'))).toEqual(['model'])
  })

  it('passes on what write throws, keeps the old version and cleans up', async () => {
    const target = join(parent, 'model')
    await atomicDirectory(target, writeVersion('1'))
    const failing = atomicDirectory(target, async (tmp) => {
      await writeVersion('2')(tmp)
      throw new RangeError('no more')
    })
    await expect(failing).rejects.toThrow(RangeError)
    expect(versionOf(target)).toBe('1')
    expect(readdirSync(parent)).toEqual(['model'])
  })

  it('turns a failure of the file system into ERR_CHECKPOINT that names the target', async () => {
    writeFileSync(join(parent, 'file'), '')
    const target = join(parent, 'file', 'model')
    await expect(atomicDirectory(target, writeVersion('1'))).rejects.toMatchObject({
      code: 'ERR_CHECKPOINT',
      message: expect.stringContaining(target),
    })
  })

  it.each([
    ['making', undefined],
    ['replacing', 'old'],
  ])('killed at any moment while %s, leaves one complete version', async (_, before) => {
    const target = join(parent, 'model')
    let replaced = 0
    for (let n = 0; ; n++) {
      rmSync(parent, { recursive: true })
      mkdirSync(parent)
      if (before) await atomicDirectory(target, writeVersion(before))
      const finished = await killedBefore(n, () => atomicDirectory(target, writeVersion('new')))
      await settle(parent)
      const found = versionOf(target)
      expect([before, 'new']).toContain(found)
      expect(readdirSync(parent)).toEqual(found ? ['model'] : [])
      if (found === 'new') replaced++
      if (!finished) continue
      expect(found).toBe('new')
      expect(n).toBeGreaterThan(8) // the kills covered every step
      expect(replaced).toBeGreaterThan(1)
      return
    }
  })

  it('goes on after a kill without settle: the next save finds its way', async () => {
    const target = join(parent, 'model')
    for (let n = 0; ; n++) {
      await atomicDirectory(target, writeVersion('old'))
      const finished = await killedBefore(n, () => atomicDirectory(target, writeVersion('new')))
      await atomicDirectory(target, writeVersion('next'))
      expect(versionOf(target)).toBe('next')
      expect(readdirSync(parent)).toEqual(['model'])
      if (finished) return
    }
  })
})

describe('settle', () => {
  it('leaves the work of living processes, and names that only look alike', async () => {
    const names = [
      `.model.tmp-${process.ppid}-0123456789ab`, // another, living
      '.model.tmp-x-0123456789ab',
      `.model.tmp-${deadPid}`,
      `model.tmp-${deadPid}-0123456789ab`,
    ]
    for (const name of names) mkdirSync(join(parent, name))
    mkdirSync(join(parent, `.model.tmp-${deadPid}-0123456789ab`))
    mkdirSync(join(parent, `.model.tmp-${process.pid}-0123456789ab`)) // an earlier process, same pid
    await settle(parent)
    expect(readdirSync(parent).sort()).toEqual(names.sort())
  })

  it('does not disturb a save that is under way', async () => {
    const target = join(parent, 'model')
    await atomicDirectory(target, async (tmp) => {
      await settle(parent)
      await atomicFile(join(parent, 'model.json'), '{}')
      await writeVersion('1')(tmp)
    })
    expect(versionOf(target)).toBe('1')
  })
})

describe('atomicFile', () => {
  it('killed at any moment, leaves the old or the new content', async () => {
    const target = join(parent, 'state.json')
    for (let n = 0; ; n++) {
      await atomicFile(target, 'old')
      const finished = await killedBefore(n, () => atomicFile(target, 'new'))
      expect(['old', 'new']).toContain(readFileSync(target, 'utf8'))
      await settle(parent)
      expect(readdirSync(parent)).toEqual(['state.json'])
      if (finished) return expect(readFileSync(target, 'utf8')).toBe('new')
    }
  })
})

describe('atomicFiles', () => {
  it('changes nothing before all is written, and keeps other files', async () => {
    writeFileSync(join(parent, 'a'), 'old')
    writeFileSync(join(parent, 'stale'), '')
    writeFileSync(join(parent, 'other'), '')
    await atomicFiles(parent, async (tmp) => {
      await writeFile(join(tmp, 'a'), 'new')
      expect(readFileSync(join(parent, 'a'), 'utf8')).toBe('old')
      return { removeFirst: [], add: ['a'], removeLast: ['stale'] }
    })
    expect(readFileSync(join(parent, 'a'), 'utf8')).toBe('new')
    expect(readdirSync(parent).sort()).toEqual(['a', 'other'])
  })
})

describe('removeDirectory', () => {
  it('killed at any moment, leaves all of it or nothing under its name', async () => {
    const target = join(parent, 'model')
    for (let n = 0; ; n++) {
      await atomicDirectory(target, writeVersion('1'))
      const finished = await killedBefore(n, () => removeDirectory(target))
      versionOf(target)
      await settle(parent)
      expect(versionOf(target) ? readdirSync(parent) : ['model']).toEqual(['model'])
      if (finished) return expect(readdirSync(parent)).toEqual([])
    }
  })
})
