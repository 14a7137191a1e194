import { stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { exists } from '../checkpoint/atomic.js'
import { hashFile } from '../checkpoint/hash-file.js'
import { isRecord, readJsonObject } from '../json.js'
import { isSamePlace } from './read-evaluations.js'
import { orProblem, type RunFolder } from './read-run.js'

/** A data set that a run read, as it is now. */
export interface DataLineage {
  name: string
  /** Its `manifest.json`, where it was made by `westwind feedback`. */
  manifest: Record<string, unknown> | null
  manifest_sha256: string | null
}

/** The data sets of a run, each with the manifest beside it, if it is a file or folder that is still there. */
export async function dataLineage(run: RunFolder): Promise<DataLineage[]> {
  const lineages: DataLineage[] = []
  for (const name of run.datasets) {
    const found = await stat(name).catch(() => undefined)
    const file = join(found?.isFile() ? dirname(name) : name, 'manifest.json')
    const here = found !== undefined && (await exists(file))
    const manifest = here
      ? await orProblem(file, run.problems, () => readManifest(file))
      : undefined
    const manifest_sha256 = manifest ? await hashFile(file) : null
    if (manifest) await checkFiles(file, manifest, run.problems)
    lineages.push({ name, manifest: manifest ?? null, manifest_sha256 })
  }
  return lineages
}

/** A manifest that can be written again as a part of the report: JSON of any depth cannot. */
async function readManifest(file: string): Promise<Record<string, unknown>> {
  const manifest = await readJsonObject(file, 'ERR_DATA')
  JSON.stringify(manifest)
  return manifest
}

/** Holds the files that a manifest lists against their hashes. */
async function checkFiles(
  manifestFile: string,
  { files }: Record<string, unknown>,
  problems: string[],
): Promise<void> {
  for (const [name, entry] of Object.entries(isRecord(files) ? files : {})) {
    if (!isRecord(entry) || typeof entry.sha256 !== 'string' || name !== basename(name)) continue
    const file = join(dirname(manifestFile), name)
    const hash = await orProblem(file, problems, () => hashFile(file))
    if (hash !== undefined && hash !== entry.sha256) {
      problems.push(`${file}: changed since ${manifestFile} was written: its SHA-256 is ${hash}`)
    }
  }
}

/** Index of the run whose model, or a checkpoint of it, this run started from; -1 where it is none of these. */
export async function parentOf(run: RunFolder, runs: readonly RunFolder[]): Promise<number> {
  const { base_model: base } = run
  if (base === null) return -1
  const model = /^checkpoint-\d+$/.test(basename(base)) ? dirname(base) : base
  for (const [i, other] of runs.entries()) {
    if (other === run) continue
    if ((await isSamePlace(base, other.path)) || (await isSamePlace(model, other.path))) return i
  }
  return -1
}
