import { readFile } from 'node:fs/promises'
import { type ErrorCode, WestwindError } from './errors.js'

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A value as JSON, cut short, for messages about files nobody vouches for. */
export function showJson(value: unknown): string {
  try {
    const text = JSON.stringify(value) ?? String(value)
    return text.length > 80 ? `${text.slice(0, 77)}...` : text
  } catch {
    return 'a deeply nested value' // JSON.parse takes any depth, JSON.stringify recurses
  }
}

/** Parses a JSON file whose top level must be an object; any failure is `code`, naming the file. */
export async function readJsonObject(
  file: string,
  code: ErrorCode,
): Promise<Record<string, unknown>> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (cause) {
    throw new WestwindError(code, `${file} could not be read: ${reason(cause)}`, { cause })
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new WestwindError(code, `${file} is not valid JSON: ${reason(cause)}`, { cause })
  }
  if (!isRecord(value)) {
    throw new WestwindError(code, `${file}: expected a JSON object, got ${showJson(value)}`)
  }
  return value
}

/** The message of whatever was thrown. */
export function reason(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause)
}
