import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { exists } from '../checkpoint/atomic.js'
import { mixtureRefs } from '../data/mixture.js'
import { type DataRef, dataFiles } from '../data/source.js'
import { localRepo, resolveModel } from '../hub.js'
import type { DataConfig } from '../recipe/config.js'
import type { Located } from './stage.js'

/** What of a model's folder decides what it computes; logs and results do not. */
const modelFile =
  /^(model[^/]*\.safetensors(\.index\.json)?|(generation_|adapter_)?config\.json|(tokenizer|special_tokens|added_tokens)[^/]*\.json|chat_template\.(jinja|json))$/

/** Files of a model in a folder; none where there is no such folder. */
export async function modelFiles(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => [])
  return names
    .filter((name) => modelFile.test(name))
    .sort()
    .map((name) => join(folder, name))
}

/** Files of a model or tokenizer given by folder or Hub id. */
export async function locateModel(
  id: string,
  revision: string | undefined,
  fetch: boolean,
): Promise<Located> {
  const folder = fetch
    ? await resolveModel(id, revision)
    : await localRepo(id, { type: 'model', ...(revision && { revision }) })
  if (folder === undefined) return onHub(id)
  const isFile = (await stat(folder).catch(() => undefined))?.isFile() ?? false
  return { files: isFile ? [folder] : await modelFiles(folder) }
}

/** Files of a recipe's data. */
export async function locateData(
  data: DataConfig,
  evaluates: boolean,
  fetch: boolean,
): Promise<Located> {
  const files: string[] = []
  for (const ref of mixtureRefs(data, { evaluates })) {
    const located = await locateRef(ref)(fetch)
    if ('missing' in located) return located
    files.push(...located.files)
  }
  return { files }
}

/** Files of one split. */
export function locateRef(ref: DataRef): (fetch: boolean) => Promise<Located> {
  return async (fetch) => {
    let missing: string | undefined
    const resolve = async (id: string, revision: string | undefined) => {
      const folder = await localRepo(id, { type: 'dataset', ...(revision && { revision }) })
      if (folder === undefined) missing = id
      return folder ?? id
    }
    try {
      return { files: await dataFiles(ref, fetch ? {} : { resolve }) }
    } catch (cause) {
      if (missing === undefined) throw cause
      return onHub(missing)
    }
  }
}

const onHub = (id: string): Located => {
  return { missing: `${id}, to be downloaded from the Hub`, hub: true }
}

/** Files that must be there. */
export function locateFiles(files: readonly string[]): () => Promise<Located> {
  return async () => {
    for (const file of files)
      if (!(await exists(file))) return { missing: `${file}, which is not there` }
    return { files: [...files] }
  }
}

/** Those of the names that a folder has, as paths. */
export async function existing(folder: string, names: readonly string[]): Promise<string[]> {
  const paths = names.map((name) => join(folder, name))
  const there = await Promise.all(paths.map(exists))
  return paths.filter((_, i) => there[i])
}
