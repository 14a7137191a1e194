import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const checkout = join(dirname(fileURLToPath(import.meta.url)), '../..')
const root = process.env.WESTWIND_SHARED ?? resolve(checkout, '../shared')

/** Path of a file of the optional reference data, or undefined where it is not on this machine. */
export function sharedPath(...parts: string[]): string | undefined {
  const path = join(root, ...parts)
  return existsSync(path) ? path : undefined
}
