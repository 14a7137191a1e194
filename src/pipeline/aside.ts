import { mkdir, readdir, rename } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { exists } from '../checkpoint/atomic.js'

/** Whether there is something in a folder. */
export async function hasContent(folder: string): Promise<boolean> {
  return (await readdir(folder).catch(() => [])).length > 0
}

/** Where a folder in `outputDir` would be kept: `previous/<its path>-<n>`, the first that is free. */
export async function asideName(outputDir: string, folder: string): Promise<string> {
  const name = join(outputDir, 'previous', relative(outputDir, folder))
  for (let n = 1; ; n++) {
    if (!(await exists(`${name}-${n}`))) return `${name}-${n}`
  }
}

/** Makes room for a new run of a stage without deleting the old one; returns where it is kept. */
export async function moveAside(outputDir: string, folder: string): Promise<string> {
  const kept = await asideName(outputDir, folder)
  await mkdir(dirname(kept), { recursive: true })
  await rename(folder, kept)
  return kept
}
