import type { z } from 'zod'
import { isRecord, showJson } from '../json.js'
import { dpoSchema, sftSchema } from './keys.js'
import { aliases, refused, withoutEffect } from './known.js'
import { type Override, parseOverrides, readings, withValue } from './overrides.js'
import type { Problems } from './problems.js'
import type { Mapping, Source } from './source.js'
import { suggest } from './suggest.js'

export type RecipeKind = 'sft' | 'dpo'

/** Recipe values under today's names, with the place each came from. */
export interface Collected {
  values: Mapping
  /** Line number, `--key` of an override, or undefined. */
  placeOf(path: readonly PropertyKey[]): number | string | undefined
  /** Whether the command line gave the key. */
  overridden: ReadonlySet<string>
}

// Each row: ways to say the same thing. An override by one of them replaces the others in the file.
const alternatives = [
  ['dataset_mixer', 'dataset_mixture', 'dataset_name'],
  ['model_name_or_path', 'init_from_config'],
]

const schemas = { sft: sftSchema, dpo: dpoSchema }
const own = <T>(table: Readonly<Record<string, T>>, name: string): T | undefined =>
  Object.hasOwn(table, name) ? table[name] : undefined
const modern = (name: string): string => own(aliases, name) ?? name
const schemaOf = (kind: RecipeKind, name: string): z.ZodType | undefined =>
  own<z.ZodType>(schemas[kind].shape, name)

/** Renames old keys and applies the overrides; keys given twice become problems. */
export function collect(
  kind: RecipeKind,
  source: Source,
  overrideArgs: readonly string[],
  problems: Problems,
): Collected {
  let values: Mapping = {}
  const written = new Map<string, string>() // today's name -> name in the file
  for (const [name, value] of Object.entries(source.values)) {
    const today = modern(name)
    const other = written.get(today)
    if (other !== undefined && own(withoutEffect, today) === undefined) {
      problems.add(
        source.placeOf([name]),
        `${name} and ${other} are the same key; give one of them`,
      )
    }
    written.set(today, name)
    values = { ...values, [today]: value }
  }

  const overrides = parseOverrides(overrideArgs)
  const overridden = new Set(overrides.map(({ path }) => modern(path[0])))
  for (const group of alternatives) {
    if (!group.some((name) => overridden.has(name))) continue
    const dropped = group.filter((name) => !overridden.has(name))
    values = Object.fromEntries(Object.entries(values).filter(([name]) => !dropped.includes(name)))
  }
  for (const override of overrides) values = applied(kind, values, override)

  return {
    values,
    overridden,
    placeOf([first, ...rest]) {
      const name = String(first)
      if (overridden.has(name)) return `--${name}`
      return source.placeOf([written.get(name) ?? name, ...rest])
    },
  }
}

/**
 * One source laid over another: its keys win, also where the one below has them under an old name
 * or says the same thing in another way.
 */
export function laidOver(below: Source, above: Source): Source {
  const given = new Set(Object.keys(above.values).map(modern))
  for (const group of alternatives) {
    if (group.some((name) => given.has(name))) for (const name of group) given.add(name)
  }
  const kept = Object.entries(below.values).filter(([name]) => !given.has(modern(name)))
  return {
    values: { ...Object.fromEntries(kept), ...above.values },
    placeOf: (path) => {
      const own = Object.hasOwn(above.values, String(path[0]))
      return own ? above.placeOf(path) : below.placeOf(path)
    },
  }
}

/** Takes the first reading of the override's text that its key accepts. */
function applied(kind: RecipeKind, values: Mapping, { path, text }: Override): Mapping {
  const [first, ...rest] = path
  const name = modern(first)
  const schema = schemaOf(kind, name)
  const outcomes = readings(text).map((value) => withValue(values, [name, ...rest], value))
  const accepted = outcomes.find((outcome) => schema?.safeParse(outcome[name]).success)
  return accepted ?? outcomes[0] ?? values
}

/**
 * Sorts the keys into those westwind acts on (returned), those without effect (a note each), and
 * those it refuses or does not know (a problem each).
 */
export function sortKeys(
  kind: RecipeKind,
  { values, placeOf, overridden }: Collected,
  problems: Problems,
  notes: string[],
): Mapping {
  const known = new Map<string, unknown>()
  for (const [name, value] of Object.entries(values)) {
    if (schemaOf(kind, name) !== undefined) {
      known.set(name, value)
      continue
    }
    const refusal = own(refused, name)
    const idle = own(withoutEffect, name)
    if (refusal !== undefined) {
      const harmless = [
        ...(refusal.harmless ?? []),
        ...((kind === 'dpo' && refusal.harmlessInDpo) || []),
      ]
      if (asksForNothing(value) || harmless.includes(value)) continue
      problems.add(
        placeOf([name]),
        `${name}: ${showJson(value)} is refused: ${refusal.reason}`,
        'ERR_UNSUPPORTED',
      )
    } else if (idle !== undefined) {
      if (!asksForNothing(value)) notes.push(`${name}: no effect: ${idle}`)
    } else {
      problems.add(placeOf([name]), unknownKey(kind, name))
    }
  }
  if (values.push_to_hub === true) {
    if (overridden.has('push_to_hub')) {
      problems.add(
        '--push_to_hub',
        'push_to_hub: true is refused: uploading is not supported. Upload output_dir after the run.',
        'ERR_UNSUPPORTED',
      )
    } else {
      notes.push('push_to_hub: not supported: nothing is uploaded, the model stays in output_dir')
    }
  }
  return Object.fromEntries(known)
}

/** Checks values against the schema and fills in defaults; throws all problems there are so far. */
export function validate<S extends z.ZodObject>(
  schema: S,
  values: Mapping,
  { placeOf }: Collected,
  problems: Problems,
): z.output<S> {
  const result = schema.safeParse(values)
  const seen = new Set<string>()
  for (const issue of result.error?.issues ?? []) {
    const [first] = issue.path
    const name = String(first)
    if (issue.code === 'unrecognized_keys') {
      const inner = issue.path.length > 1 ? mixtureEntryKeys : innerKeys(name)
      for (const key of issue.keys) {
        const near = suggest(key, inner)
        problems.add(
          placeOf([...issue.path, key]),
          `${pathText(issue.path)} has no key ${key}; ${near ? `did you mean ${near}?` : `it takes ${inner.join(', ')}`}`,
        )
      }
      continue
    }
    const nested = issue.path.length > 1 && nestedMessages.has(name)
    const path = nested ? issue.path : issue.path.slice(0, 1)
    const label = pathText(path)
    if (seen.has(label)) continue
    seen.add(label)
    const expected = nested ? issue.message : String(schema.shape[name]?.meta()?.expected)
    const got = at(values, path)
    problems.add(
      placeOf(path),
      got === undefined
        ? `${label} is missing: expected ${expected}`
        : `${label} must be ${expected}, got ${showJson(got)}`,
    )
  }
  problems.throwIfAny()
  return schema.parse(values)
}

const mixtureEntryKeys = ['id', 'config', 'revision', 'split', 'columns', 'weight']
const innerKeys = (name: string): string[] =>
  name === 'dataset_mixture'
    ? ['datasets', 'test_split_size', 'seed']
    : ['add_special_tokens', 'append_concat_token']
const nestedMessages = new Set(['dataset_mixture', 'dataset_kwargs'])

function unknownKey(kind: RecipeKind, name: string): string {
  const other = kind === 'sft' ? 'dpo' : 'sft'
  if (schemaOf(other, name) !== undefined) {
    return `${name} is a key of ${other} recipes; this one is for westwind ${kind}`
  }
  const near = suggest(name, [
    ...Object.keys(schemas[kind].shape),
    ...Object.keys(aliases),
    ...Object.keys(refused),
    ...Object.keys(withoutEffect),
  ])
  const hint = near ? `did you mean ${near}?` : 'docs/recipes.md lists the keys'
  return `${name}: unknown key; ${hint}`
}

function asksForNothing(value: unknown): boolean {
  if (value === null || value === undefined || value === false || value === '') return true
  if (Array.isArray(value)) return value.length === 0
  return isRecord(value) && Object.keys(value).length === 0
}

/** The value at a path. */
export function at(values: unknown, path: readonly PropertyKey[]): unknown {
  const [first, ...rest] = path
  if (first === undefined) return values
  if (Array.isArray(values)) return at(values[Number(first)], rest)
  return isRecord(values) ? at(values[String(first)], rest) : undefined
}

/** A path as one writes it: `a.b[0].c`. */
export const pathText = (path: readonly PropertyKey[]): string =>
  path
    .map((part, i) => (typeof part === 'number' ? `[${part}]` : `${i ? '.' : ''}${String(part)}`))
    .join('')
