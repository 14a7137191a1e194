import { readFile } from 'node:fs/promises'
import { WestwindError } from '../errors.js'
import type { DpoConfig, Recipe, SftConfig } from './config.js'
import { dpoSchema, sftSchema } from './keys.js'
import { Problems } from './problems.js'
import { collect, type RecipeKind, sortKeys, validate } from './read.js'
import { dpoConfig, sftConfig } from './training-config.js'

export type { RecipeKind } from './read.js'

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
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (cause) {
    throw new WestwindError('ERR_CONFIG', `${file}: cannot read this recipe`, { cause })
  }
  return parseRecipe(kind, text, file, overrides)
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
  const problems = new Problems(where)
  const notes: string[] = []
  const collected = collect(kind, recipe, where, overrides, problems)
  const known = sortKeys(kind, collected, problems, notes)
  const fail = (key: string, message: string): never =>
    problems.fail(collected.placeOf([key]), message)

  if (kind === 'sft') {
    const config = sftConfig(validate(sftSchema, known, collected, problems), notes, fail)
    return { config, notes, where }
  }
  const config = dpoConfig(validate(dpoSchema, known, collected, problems), notes, fail)
  return { config, notes, where }
}
