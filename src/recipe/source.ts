import { isMap, isScalar, isSeq, LineCounter, parseDocument } from 'yaml'
import { WestwindError } from '../errors.js'
import { isRecord, reason } from '../json.js'

export type Mapping = Record<string, unknown>

/** Keys and values of a recipe, and where in the file each stands. */
export interface Source {
  values: Mapping
  /**
   * Line of the key at `path`, or of its nearest parent; `file:line` where it is another file's;
   * undefined for values without a file.
   */
  placeOf(path: readonly PropertyKey[]): number | string | undefined
}

/**
 * Parses YAML 1.2 (core schema: `no` is text, `5.0e-7` a number). Throws `ERR_CONFIG` with the
 * line for malformed text, duplicate keys, or anything but a mapping at the top.
 */
export function parseYaml(text: string, where: string): Source {
  const lines = new LineCounter()
  let doc: ReturnType<typeof parseDocument>
  let values: unknown
  try {
    doc = parseDocument(text, { lineCounter: lines, version: '1.2', schema: 'core' })
    if (doc.errors[0] !== undefined) throw doc.errors[0]
    values = doc.toJS() // throws for an alias without anchor, and for too many of them
  } catch (cause) {
    throw new WestwindError('ERR_CONFIG', `${where}: not valid YAML: ${reason(cause)}`, { cause })
  }
  if (!isRecord(values)) {
    const got = values === null ? 'an empty file' : Array.isArray(values) ? 'a list' : 'text'
    throw new WestwindError('ERR_CONFIG', `${where}: expected a mapping "key: value", got ${got}`)
  }
  return {
    values,
    placeOf(path) {
      let node: unknown = doc.contents
      let offset: number | undefined
      for (const part of path) {
        if (isMap(node)) {
          const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === part)
          if (pair === undefined) break
          if (isScalar(pair.key)) offset = pair.key.range?.[0] ?? offset
          node = pair.value
        } else if (isSeq(node)) {
          node = node.items[Number(part)]
          if (isMap(node) || isScalar(node)) offset = node.range?.[0] ?? offset
        }
      }
      return offset === undefined ? undefined : lines.linePos(offset).line
    },
  }
}
