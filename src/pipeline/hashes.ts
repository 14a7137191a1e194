import { stat } from 'node:fs/promises'
import { hashFile } from '../checkpoint/hash-file.js'

/** The hash of a file as it was when it had this size and these times. */
export interface KnownHash {
  stamp: string
  sha256: string
}

/** Times of a file system tick in milliseconds; a file that changes within one may keep its stamp. */
const tickMs = 2000

/** SHA-256 of files; those of large ones are remembered until size or times change. */
export class FileHashes {
  readonly #known: Map<string, KnownHash>

  constructor(known: Readonly<Record<string, KnownHash>> = {}) {
    this.#known = new Map(Object.entries(known))
  }

  /** undefined where there is no such file. */
  async of(file: string): Promise<string | undefined> {
    const info = await stat(file, { bigint: true }).catch(() => undefined)
    if (!info?.isFile()) return undefined
    const stamp = `${info.size}-${info.mtimeNs}-${info.ctimeNs}`
    const known = this.#known.get(file)
    if (known?.stamp === stamp) return known.sha256
    const sha256 = await hashFile(file)
    const settled = Date.now() - Number(info.ctimeMs) > tickMs
    if (settled) this.#known.set(file, { stamp, sha256 })
    else this.#known.delete(file)
    return sha256
  }

  /** To be remembered for the next time. */
  known(): Record<string, KnownHash> {
    return Object.fromEntries([...this.#known].sort(([a], [b]) => (a < b ? -1 : 1)))
  }
}
