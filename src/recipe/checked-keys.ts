import { z } from 'zod'
import { isRecord, showJson } from '../json.js'
import type { Problems } from './problems.js'
import { at, pathText } from './read.js'
import type { Source } from './source.js'
import { suggest } from './suggest.js'

/**
 * Keys of a file, checked against a schema whose messages say what each key takes.
 *
 * @throws with every wrong or unknown key and its place
 */
export function checkedKeys<S extends z.ZodType>(
  schema: S,
  { values, placeOf }: Source,
  problems: Problems,
): z.output<S> {
  const result = schema.safeParse(values)
  for (const issue of result.error?.issues ?? []) {
    if (issue.code === 'unrecognized_keys') {
      const known = keysAt(schema, issue.path)
      for (const key of issue.keys) {
        const path = [...issue.path, key]
        const near = suggest(key, known)
        const hint = near ? `did you mean ${near}?` : `known are ${known.join(', ')}`
        problems.add(placeOf(path), `${pathText(path)}: unknown key; ${hint}`)
      }
      continue
    }
    const label = pathText(issue.path)
    const got = at(values, issue.path)
    const end = got === undefined ? 'is missing: expected' : 'must be'
    const tail = got === undefined || isRecord(got) ? '' : `, got ${showJson(got)}`
    problems.add(placeOf(issue.path), `${label} ${end} ${issue.message}${tail}`)
  }
  problems.throwIfAny()
  return schema.parse(values)
}

/** Names of the keys that the schema has at a path. */
function keysAt(schema: unknown, path: readonly PropertyKey[]): string[] {
  const inner = unwrapped(schema)
  const [first, ...rest] = path
  if (inner instanceof z.ZodObject) {
    const shape: Record<string, unknown> = inner.shape
    return first === undefined ? Object.keys(shape) : keysAt(shape[String(first)], rest)
  }
  return inner instanceof z.ZodArray ? keysAt(inner.element, rest) : []
}

function unwrapped(schema: unknown): unknown {
  const wrapped =
    schema instanceof z.ZodOptional ||
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodPrefault
  return wrapped ? unwrapped(schema.unwrap()) : schema
}
