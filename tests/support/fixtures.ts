import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const fixtures = join(dirname(fileURLToPath(import.meta.url)), '../fixtures')

/** Path of a file of tests/fixtures. */
export function fixturePath(...parts: string[]): string {
  return join(fixtures, ...parts)
}

/** The rows of a JSON-lines file; the caller says what they are. */
export function jsonLines<T>(file: string): T[] {
  const lines = readFileSync(file, 'utf8').split('\n')
  return lines.filter((line) => line !== '').map((line): T => JSON.parse(line))
}

/** A JSON file; the caller says what it holds. */
export function readJson<T>(file: string): T {
  return JSON.parse(readFileSync(file, 'utf8'))
}

export function readText(file: string): string {
  return readFileSync(file, 'utf8')
}
