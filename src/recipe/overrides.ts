import { parse } from 'yaml'
import { WestwindError } from '../errors.js'
import { isRecord } from '../json.js'
import type { Mapping } from './source.js'

/** One `--key=value` of the command line; `path` is the key, cut at its dots. */
export interface Override {
  path: [string, ...string[]]
  text: string
}

/**
 * Reads `--key=value`, `--key value` and bare `--flag` (which means true). Hyphens in keys are
 * underscores; dots descend (`--dataset_mixture.seed=1`). Throws `ERR_INVALID_ARG`.
 */
export function parseOverrides(args: readonly string[]): Override[] {
  const overrides: Override[] = []
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!
    const match = /^--([A-Za-z_][^=]*)(?:=([\s\S]*))?$/.exec(arg)
    if (match === null) {
      throw new WestwindError('ERR_INVALID_ARG', `expected --key=value, got ${arg}`)
    }
    let text = match[2]
    const next = args[i + 1]
    if (text === undefined && next !== undefined && !next.startsWith('--')) {
      text = next
      i++
    }
    overrides.push({ path: splitKey(match[1]!), text: text ?? 'true' })
  }
  return overrides
}

function splitKey(key: string): [string, ...string[]] {
  const [first = '', ...rest] = key.split('.')
  const name = first.replaceAll('-', '_')
  // The keys of dataset_mixer are data sets, whose names may have dots.
  return name === 'dataset_mixer' && rest.length > 0 ? [name, rest.join('.')] : [name, ...rest]
}

/**
 * What the text of an override may mean, the likeliest first: null, boolean, number, or a YAML
 * list or mapping in brackets; else a list, if it has commas; then the text itself.
 */
export function readings(text: string): unknown[] {
  const list = text === '' ? [] : text.split(',').map((item) => scalar(item.trim()))
  const first = scalar(text)
  return [
    first,
    ...(first === text ? [] : [text]),
    list,
    text.split(',').map((item) => item.trim()),
  ]
}

function scalar(text: string): unknown {
  if (/^(null|None|~)$/.test(text)) return null
  if (/^(true|True|TRUE)$/.test(text)) return true
  if (/^(false|False|FALSE)$/.test(text)) return false
  if (/^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$/.test(text)) return Number(text)
  if (/^[[{]/.test(text)) {
    try {
      return parse(text, { version: '1.2', schema: 'core' })
    } catch {
      return text // a Jinja template, say
    }
  }
  return text
}

/**
 * A copy of `values` with `value` at `path`, with the mappings on the way made where missing.
 * Throws `ERR_INVALID_ARG` for a list index that is not one.
 */
export function withValue(values: Mapping, path: readonly string[], value: unknown): Mapping {
  const [name, ...rest] = path
  return name === undefined ? values : { ...values, [name]: changed(values[name], rest, value) }
}

function changed(inner: unknown, path: readonly string[], value: unknown): unknown {
  const [name, ...rest] = path
  if (name === undefined) return value
  if (!Array.isArray(inner)) return withValue(isRecord(inner) ? inner : {}, path, value)
  if (!/^\d+$/.test(name) || Number(name) >= inner.length) {
    throw new WestwindError(
      'ERR_INVALID_ARG',
      `expected the index of one of ${inner.length} list items (from 0), got "${name}"`,
    )
  }
  return inner.map((item, i) => (i === Number(name) ? changed(item, rest, value) : item))
}
