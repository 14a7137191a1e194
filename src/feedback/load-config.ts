import { readFile } from 'node:fs/promises'
import { WestwindError } from '../errors.js'
import { reason } from '../json.js'
import { checkedKeys } from '../recipe/checked-keys.js'
import { parseOverrides, readings, withValue } from '../recipe/overrides.js'
import { Problems } from '../recipe/problems.js'
import { type Mapping, parseYaml, type Source } from '../recipe/source.js'
import { type FeedbackConfig, feedbackSchema } from './config.js'

/**
 * Reads the YAML file of a feedback step, with `--section.key=value` overrides on top.
 *
 * @throws ERR_CONFIG with every wrong or unknown key and its line
 */
export async function loadFeedbackConfig(
  file: string,
  overrides: readonly string[] = [],
): Promise<FeedbackConfig> {
  let yaml: string
  try {
    yaml = await readFile(file, 'utf8')
  } catch (cause) {
    throw new WestwindError('ERR_CONFIG', `${file}: cannot be read: ${reason(cause)}`, { cause })
  }
  return parseFeedbackConfig(yaml, file, overrides)
}

/** Like {@link loadFeedbackConfig}, for YAML text; `where` is what errors call it. */
export function parseFeedbackConfig(
  yaml: string,
  where: string,
  overrides: readonly string[] = [],
): FeedbackConfig {
  const source = parseYaml(yaml, where)
  const problems = new Problems(where)
  const given = parseOverrides(overrides)
  let values = source.values
  for (const { path, text } of given) {
    const outcomes = readings(text).map((value) => withValue(values, path, value))
    const fits = (outcome: Mapping) => !problemsAt(outcome, path)
    values = outcomes.find(fits) ?? outcomes[0] ?? values
  }
  const placeOf = (path: readonly PropertyKey[]) => {
    const override = given.find((one) => one.path.every((name, i) => name === String(path[i])))
    return override ? `--${override.path.join('.')}` : source.placeOf(path)
  }

  return checkedConfig(values, placeOf, problems)
}

/** Checks the keys of a feedback step; `placeOf` says where each stands. */
export function checkedConfig(
  values: Mapping,
  placeOf: Source['placeOf'],
  problems: Problems,
): FeedbackConfig {
  const config = checkedKeys(feedbackSchema, { values, placeOf }, problems)
  checkTogether(config, (path, message) => problems.add(placeOf(path), message))
  problems.throwIfAny()
  return config
}

/** What no single key shows to be wrong. */
function checkTogether(
  { models = [], generate, rate, teacher, principles }: FeedbackConfig,
  add: (path: PropertyKey[], message: string) => void,
): void {
  const names = models.map(modelName)
  for (const [i, name] of names.entries()) {
    if (names.indexOf(name) !== i) {
      add(['models', i], `two models are called ${name}: give one of them another name`)
    }
    const { path, price } = models[i]!
    if (generate.budget.max_cost !== undefined && path === undefined && !price) {
      add(
        ['models', i],
        `${name} has no price (input and output per million tokens), which generate.budget.max_cost needs`,
      )
    }
  }
  if (models.length > 0 && models.length < generate.per_prompt) {
    add(
      ['generate', 'per_prompt'],
      `generate.per_prompt is ${generate.per_prompt} and there are ${models.length} models to draw from`,
    )
  }
  if (rate.budget.max_cost !== undefined && teacher && !teacher.price) {
    add(
      ['teacher'],
      'teacher has no price (input and output per million tokens), which rate.budget.max_cost needs',
    )
  }
  for (const [source, mix] of Object.entries(principles?.mix ?? {})) {
    if (Object.values(mix).some((weight) => weight > 0)) continue
    add(
      ['principles', 'mix', source],
      `principles.mix.${source}: at least one weight must be above 0`,
    )
  }
}

/** What a model of the pool is called in the data. */
export function modelName({
  name,
  model,
  path,
}: NonNullable<FeedbackConfig['models']>[number]): string {
  return name ?? model ?? path ?? ''
}

/**
 * A section that a command cannot do without.
 *
 * @throws ERR_CONFIG naming it
 */
export function section<K extends 'prompts' | 'models' | 'teacher'>(
  config: FeedbackConfig,
  name: K,
): NonNullable<FeedbackConfig[K]> {
  const value = config[name]
  if (value !== undefined) return value
  throw new WestwindError(
    'ERR_CONFIG',
    `the configuration has no section "${name}"; docs/feedback.md shows one`,
  )
}

function problemsAt(values: Mapping, path: readonly string[]): boolean {
  const { error } = feedbackSchema.safeParse(values)
  return !!error?.issues.some((issue) => path.every((name, i) => name === String(issue.path[i])))
}
