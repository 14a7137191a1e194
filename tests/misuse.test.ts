import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as westwind from '../src/index.js'
import { garbage, hopeless, variants } from './support/garbage.js'
import {
  type Case,
  cpu,
  folder,
  functions,
  internal,
  methods,
  opCases,
} from './support/right-calls.js'

// Every function that users can reach is called without arguments, and with each argument, and each part of one,
// replaced by each of many wrong values. It may take them, or say in a WestwindError what is wrong with which.

const cwd = process.cwd()

beforeAll(() => {
  process.chdir(folder) // a string that comes as a path is a path of this folder
  process.env.WESTWIND_CACHE = join(folder, 'cache')
  process.env.HF_HUB_OFFLINE = '1'
})

afterAll(() => {
  process.chdir(cwd)
  rmSync(folder, { recursive: true, force: true })
})

/** Names of the functions that are called with arguments. */
function methodsOf(owner: object): string[] {
  const described = Object.entries(Object.getOwnPropertyDescriptors(owner))
  return described.flatMap(([name, { value }]) =>
    typeof value === 'function' && name !== 'constructor' && value.length > 0 ? [name] : [],
  )
}

const firstOf = ([name]: readonly [string, unknown]) => name

/** Runs a call to its end, whether it answers at once, later or bit by bit, and disposes what it made. */
async function outcome({ call }: Case, args: unknown[]): Promise<unknown> {
  try {
    return await westwind.isolated(async () => {
      using _ = westwind.scope()
      const result: unknown = await call(...args)
      if (isObject(result)) {
        if (isIterable(result)) for await (const _piece of result);
        if (isDisposable(result)) result[Symbol.dispose]()
      }
      return undefined
    })
  } catch (error) {
    return error
  } finally {
    await cpu.synchronize().catch(() => undefined) // what the op found wrong in its numbers
  }
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}

function isIterable(value: object): value is AsyncIterable<unknown> {
  return Symbol.asyncIterator in value
}

function isDisposable(value: object): value is Disposable {
  return Symbol.dispose in value
}

/** What is wrong with an outcome, or undefined. */
function complaint(
  name: string,
  parts: readonly string[],
  wrong: unknown,
  error: unknown,
): string | undefined {
  if (error === undefined) {
    return [...hopeless.values()].includes(wrong) ? 'it was taken' : undefined
  }
  if (!(error instanceof westwind.WestwindError)) return String(error)
  const shown = typeof wrong === 'string' && wrong !== '' && error.message.includes(wrong)
  const names = parts.filter((part) => !/^\d+$/.test(part)) // places in lists tell nothing
  const named = names.some((part) => new RegExp(part, 'i').test(error.message))
  if (shown || named || error.message.includes(name)) return undefined
  return `its message names neither the function nor the argument: ${error.message}`
}

async function complaints(name: string, of: Case): Promise<string[]> {
  const found: string[] = []
  const names = Object.keys(of.args)
  const values = Object.values(of.args)
  const right = await outcome(of, values)
  if (right !== undefined) found.push(`the right call fails: ${right}`)
  const without = complaint(name, names, undefined, await outcome(of, []))
  if (without) found.push(`without arguments: ${without}`)
  for (const [i, value] of values.entries()) {
    for (const [label, wrong] of garbage) {
      for (const { at, value: variant } of variants(value, wrong, [names[i]!])) {
        const error = await outcome(of, values.with(i, variant))
        const wrongIs = complaint(name, at, wrong, error)
        if (wrongIs) found.push(`${at.join('.')} is ${label}: ${wrongIs}`)
      }
    }
  }
  return found
}

describe('every function that is exported', () => {
  it('has a right call to start from', () => {
    const called = Object.entries(westwind).filter(([, value]) => typeof value === 'function')
    const without = (prefix: string, names: string[], cases: object) =>
      names.filter((name) => !(name in cases)).map((name) => prefix + name)
    const missing = [
      ...without('', called.map(firstOf), functions),
      ...without('ops.', Object.keys(westwind.ops), opCases),
      ...Object.entries(methods).flatMap(([type, [owner, cases]]) =>
        without(`${type}.`, methodsOf(owner), cases),
      ),
    ].filter((name) => !internal.includes(name))
    expect(missing, 'each needs a right call in tests/support/right-calls.ts').toEqual([])
  })

  const all = [
    ...Object.entries(functions),
    ...Object.entries(opCases),
    ...Object.values(methods).flatMap(([, cases]) => Object.entries(cases)),
  ]
  it.each(all)('%s takes a wrong argument, or names what is wrong', async (name, of) => {
    expect(await complaints(name, of)).toEqual([])
  })
})

it('after all that the device works', async () => {
  using x = westwind.fromArray([1, 2], [2], 'f32', cpu)
  using y = westwind.ops.add(x, x)
  expect([...(await y.read())]).toEqual([2, 4])
})
