import { readFile } from 'node:fs/promises'
import { type Check, fields, list, oneOf, path, plainCopy, record, text } from '../arguments.js'
import { refuse, WestwindError } from '../errors.js'
import type { DpoConfig, Recipe, SftConfig } from './config.js'
import { dpoSchema, sftSchema } from './keys.js'
import { withPreset } from './presets.js'
import { Problems } from './problems.js'
import { collect, type RecipeKind, sortKeys, validate } from './read.js'
import { parseYaml, type Source } from './source.js'
import { dpoConfig, sftConfig } from './training-config.js'

export type { RecipeKind } from './read.js'

interface ReadOptions {
  overrides?: readonly string[]
  part?: string
}

const checkKind: Check<RecipeKind> = oneOf('sft', 'dpo')
const checkOverrides: Check<readonly string[]> = list(text)

/**
 * Reads a recipe file: keys of alignment-handbook, TRL and transformers in YAML, old names
 * included, with `--key=value` overrides on top. docs/recipes.md lists the keys.
 *
 * Throws `ERR_CONFIG` with every wrong or unknown key and its line, or `ERR_UNSUPPORTED` if all
 * that is wrong is that the recipe asks for what westwind does not do.
 */
export async function loadRecipe(
  kind: 'sft',
  file: string,
  overrides?: readonly string[],
): Promise<Recipe<SftConfig>>
export async function loadRecipe(
  kind: 'dpo',
  file: string,
  overrides?: readonly string[],
): Promise<Recipe<DpoConfig>>
export async function loadRecipe(
  kind: RecipeKind,
  file: string,
  overrides?: readonly string[],
): Promise<Recipe<SftConfig | DpoConfig>>
export async function loadRecipe(
  kind: RecipeKind,
  file: string,
  overrides: readonly string[] = [],
): Promise<Recipe<SftConfig | DpoConfig>> {
  checkKind(kind, 'loadRecipe: kind')
  path(file, 'loadRecipe: file')
  checkOverrides(overrides, 'loadRecipe: overrides')
  let yaml: string
  try {
    yaml = await readFile(file, 'utf8')
  } catch (cause) {
    throw new WestwindError('ERR_CONFIG', `${file}: cannot read this recipe`, { cause })
  }
  return parseRecipe(kind, yaml, file, overrides)
}

/**
 * Like {@link loadRecipe}, for YAML text or an object with the same keys.
 *
 * @param where what error messages call the source
 */
export function parseRecipe(
  kind: 'sft',
  recipe: string | Record<string, unknown>,
  where?: string,
  overrides?: readonly string[],
): Recipe<SftConfig>
export function parseRecipe(
  kind: 'dpo',
  recipe: string | Record<string, unknown>,
  where?: string,
  overrides?: readonly string[],
): Recipe<DpoConfig>
export function parseRecipe(
  kind: RecipeKind,
  recipe: string | Record<string, unknown>,
  where?: string,
  overrides?: readonly string[],
): Recipe<SftConfig | DpoConfig>
export function parseRecipe(
  kind: RecipeKind,
  recipe: string | Record<string, unknown>,
  where = 'recipe',
  overrides: readonly string[] = [],
): Recipe<SftConfig | DpoConfig> {
  checkKind(kind, 'parseRecipe: kind')
  text(where, 'parseRecipe: where')
  checkOverrides(overrides, 'parseRecipe: overrides')
  const copy = plainCopy(recipe, 'parseRecipe: recipe', 'ERR_CONFIG')
  if (typeof copy === 'string')
    return readRecipe(kind, parseYaml(copy, where), where, { overrides })
  record(copy, 'parseRecipe: recipe')
  return readRecipe(kind, { values: copy, placeOf: () => undefined }, where, { overrides })
}

/** The recipe that a source of keys is. `part`: what errors call it within the file `where`. */
export function readRecipe(
  kind: 'sft',
  source: Source,
  where: string,
  options?: ReadOptions,
): Recipe<SftConfig>
export function readRecipe(
  kind: 'dpo',
  source: Source,
  where: string,
  options?: ReadOptions,
): Recipe<DpoConfig>
export function readRecipe(
  kind: RecipeKind,
  source: Source,
  where: string,
  options?: ReadOptions,
): Recipe<SftConfig | DpoConfig>
export function readRecipe(
  kind: RecipeKind,
  source: Source,
  where: string,
  { overrides = [], part }: ReadOptions = {},
): Recipe<SftConfig | DpoConfig> {
  const problems = new Problems(where, part)
  const notes: string[] = []
  const collected = collect(kind, source, overrides, problems)
  const { values, preset } = withPreset(
    kind,
    collected.values,
    problems,
    collected.placeOf(['preset']),
  )
  const known = sortKeys(kind, { ...collected, values }, problems, notes)
  const fail = (key: string, message: string): never =>
    problems.fail(collected.placeOf([key]), message)

  if (kind === 'sft') {
    const config = sftConfig(validate(sftSchema, known, collected, problems), notes, fail)
    return { config: checked(config), notes, where, ...(preset && { preset }) }
  }
  const config = dpoConfig(validate(dpoSchema, known, collected, problems), notes, fail)
  return { config: checked(config), notes, where, ...(preset && { preset }) }
}

const configs = new WeakSet<object>()

/** Nothing of a checked config changes any more: what is to be different is an override. */
function checked<C extends SftConfig | DpoConfig>(config: C): C {
  const { initFromConfig: _, ...rest } = config // an unread config.json, of any depth
  freeze(rest)
  configs.add(Object.freeze(config))
  return config
}

function freeze(value: unknown): void {
  if (typeof value !== 'object' || value === null) return
  for (const inner of Object.values(Object.freeze(value))) freeze(inner)
}

/** A recipe of this kind whose config {@link parseRecipe} gave. */
export function checkRecipe(recipe: Recipe<SftConfig | DpoConfig>, kind: RecipeKind): void {
  const where = `${kind}: recipe`
  recipeFields(recipe, where)
  if (recipe.config.kind !== kind) refuse(`${where}.config.kind`, kind, recipe.config.kind)
}

const recipeFields: Check<Omit<Recipe<SftConfig | DpoConfig>, 'preset'>> = fields<
  Omit<Recipe<SftConfig | DpoConfig>, 'preset'>
>({
  config: (value, where) => {
    if (typeof value === 'object' && value !== null && configs.has(value)) return
    refuse(where, 'what loadRecipe or parseRecipe gave; changes are overrides there', value)
  },
  notes: list(text),
  where: text,
})
