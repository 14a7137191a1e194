import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { bounded } from '../../src/teacher/bounded.js'
import { Journal, keyOf } from '../../src/teacher/journal.js'

let dir: string
let file: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'westwind-journal-'))
  file = join(dir, 'journal.jsonl')
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

describe('a journal', () => {
  it('gives back what was appended, the last entry of a key, also when opened again', async () => {
    const journal = await Journal.open(file)
    const entries = Array.from({ length: 200 }, (_, i) => ({ key: `k${i}`, text: `§ ${i}\n` }))
    await Promise.all(entries.map((entry) => journal.append(entry)))
    await journal.append({ key: 'k7', text: 'newer' })
    expect(await journal.get('k150')).toEqual(entries[150])
    await journal.close()
    const seen: string[] = []
    const again = await Journal.open(file, ({ key }) => seen.push(key))
    expect(seen).toHaveLength(201)
    expect(await again.get('k7')).toEqual({ key: 'k7', text: 'newer' })
    expect(await again.get('k8')).toEqual(entries[8])
    expect(await again.get('other')).toBeUndefined()
    await again.close()
    expect(readdirSync(dir)).toEqual(['journal.jsonl'])
  })

  it('an unfinished last line is cut off and told of; what follows is whole', async () => {
    const first = await Journal.open(file)
    await first.append({ key: 'a' })
    await first.close()
    appendFileSync(file, '{"key":"b","te')
    const second = await Journal.open(file)
    expect({ torn: second.repaired, b: second.has('b') }).toEqual({ torn: 14, b: false })
    await second.append({ key: 'c' })
    expect(await second.get('c')).toEqual({ key: 'c' })
    await second.close()
    expect(readFileSync(file, 'utf8')).toBe('{"key":"a"}\n{"key":"c"}\n')
  })

  it('a damaged line before the last is an error with its number, and nothing is changed', async () => {
    const text = '{"key":"a"}\n{"ke\n{"key":"c"}\n'
    writeFileSync(file, text)
    const code = 'ERR_JOURNAL'
    await expect(Journal.open(file)).rejects.toMatchObject({ code, message: /jsonl:2: / })
    writeFileSync(file, '[1]\n')
    await expect(Journal.open(file)).rejects.toThrow(/jsonl:1: not an entry with a key/)
    writeFileSync(file, text)
    await expect(Journal.open(file)).rejects.toThrow()
    expect(readFileSync(file, 'utf8')).toBe(text)
    expect(readdirSync(dir)).toEqual(['journal.jsonl'])
  })

  it('two users at once are refused, in one process and in two', async () => {
    const journal = await Journal.open(file)
    await expect(Journal.open(file)).rejects.toThrow(/is in use by this process/)
    await journal.close()
    const other = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'])
    await once(other, 'spawn')
    const lock = join(dir, `.journal.jsonl.lock-${other.pid}`)
    writeFileSync(lock, '')
    await expect(Journal.open(file)).rejects.toThrow(`is in use by process ${other.pid}`)
    writeFileSync(lock, '12') // began at another time: this is another process of the same number
    await (await Journal.open(file)).close()
    writeFileSync(lock, '')
    other.kill('SIGKILL')
    await once(other, 'exit')
    await (await Journal.open(file)).close()
    expect(readdirSync(dir)).toEqual(['journal.jsonl'])
  })

  it('a key depends on all parts and on nothing else', () => {
    expect(keyOf('a', { b: 1 })).toBe(keyOf('a', { b: 1 }))
    expect(new Set([keyOf('a', 'b'), keyOf('ab'), keyOf('a', ['b']), keyOf('a', 'c')]).size).toBe(4)
  })
})

describe('bounded', () => {
  it('works on so many at once, and after an error waits for those under way', async () => {
    const done: number[] = []
    let open = 0
    let most = 0
    const work = async (i: number) => {
      most = Math.max(most, ++open)
      await new Promise((resolve) => setTimeout(resolve, i === 3 ? 5 : 30))
      open--
      if (i === 3) throw new Error('three')
      done.push(i)
    }
    await expect(bounded([0, 1, 2, 3, 4, 5, 6, 7], 4, work)).rejects.toThrow('three')
    expect({ done: done.sort(), most, open }).toEqual({ done: [0, 1, 2], most: 4, open: 0 })
  })
})
