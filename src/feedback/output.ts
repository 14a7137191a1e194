import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { atomicFile, atomicFiles, exists } from '../checkpoint/atomic.js'
import { readJsonObject } from '../json.js'
import { version } from '../version.js'
import { manifestName } from './pair-files.js'

/** Lines of one file of JSON Lines. */
export type Lines = AsyncIterable<{ file: string; value: unknown }>

/**
 * Writes files of JSON Lines from one pass over their lines: whole, or not at all.
 *
 * @param names of all files; one without lines is left empty
 */
export async function writeLines(dir: string, names: string[], lines: Lines): Promise<void> {
  await atomicFiles(dir, async (tmp) => {
    const handles = new Map(
      await Promise.all(
        names.map(async (name) => [name, await open(join(tmp, name), 'w')] as const),
      ),
    )
    try {
      for await (const { file, value } of lines) {
        await handles.get(file)?.appendFile(`${JSON.stringify(value)}\n`)
      }
    } finally {
      for (const handle of handles.values()) await handle.close()
    }
    return { removeFirst: [], add: names, removeLast: [] }
  })
}

/** Puts what one step did into `manifest.json`, beside what the other steps did. */
export async function writeManifest(dir: string, step: string, value: unknown): Promise<void> {
  const file = join(dir, manifestName)
  const before = (await exists(file)) ? await readJsonObject(file, 'ERR_DATA') : {}
  const manifest = { ...before, westwind: version, [step]: value }
  await atomicFile(file, `${JSON.stringify(manifest, null, 2)}\n`)
}
