import { createHash, type Hash, randomBytes } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, readFile, rename, rm, symlink } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import {
  datasetInfo,
  downloadFile,
  HUB_URL,
  HubApiError,
  type ListFileEntry,
  listFiles,
  modelInfo,
} from '@huggingface/hub'
import { atomicFile, exists } from './checkpoint/atomic.js'
import { WestwindError } from './errors.js'
import { reason } from './json.js'

// Files lie in the cache that huggingface_hub uses (https://huggingface.co/docs/huggingface_hub/guides/manage-cache):
//   <cache>/models--org--name/blobs/<hash>, snapshots/<commit>/<path> -> the blob, refs/<revision>
// Here refs/<revision> is written last, so that a ref stands for a snapshot with every file that was asked for.

export interface RepoOptions {
  type: 'model' | 'dataset'
  /** Branch, tag or commit; `main` by default. */
  revision?: string
  /** Which files to fetch; by default those a model or data set is read from. */
  files?: (path: string) => boolean
  /** Called before a file is fetched, with its size in bytes. */
  onFile?: (path: string, bytes: number) => void
  fetch?: typeof fetch
}

const defaultFiles = {
  model: (path: string) => /^(model[^/]*\.safetensors|[^/]+\.(json|jinja))$/.test(path),
  dataset: (path: string) => /\.(parquet|jsonl|json|gz)$|(^|\/)README\.md$/.test(path),
}

/** The folder of a model: `pathOrId` if there is such a folder, else the Hub's, in the cache. */
export function resolveModel(pathOrId: string, revision?: string): Promise<string> {
  return resolveRepo(pathOrId, { type: 'model', ...(revision && { revision }) })
}

/**
 * The local folder or file `id` if there is one; else the Hub repository of that name, fetched into
 * the cache (`HF_HUB_CACHE`, `HF_HOME`), each file checked against its hash. `HF_TOKEN` gives
 * access to gated repositories, `HF_ENDPOINT` names a mirror. With `HF_HUB_OFFLINE=1`, or where the
 * Hub cannot be reached, what was fetched before is used.
 *
 * @returns path of the local folder
 * @throws ERR_NETWORK saying what to do; ERR_INVALID_ARG for what can be no repository name
 */
export async function resolveRepo(id: string, options: RepoOptions): Promise<string> {
  if (await exists(id)) return id
  const { type, revision = 'main' } = options
  checkNames(id, revision, type)
  const folder = join(cacheDirectory(), `${type}s--${id.replace('/', '--')}`)
  if (isOffline()) {
    const cached = await cachedSnapshot(folder, revision)
    if (cached) return cached
    throw networkError(
      `${describe(id, options)} is not in the cache (${folder}), and HF_HUB_OFFLINE is set. ${advice(id, type)}`,
    )
  }
  try {
    return await fetchSnapshot(id, folder, options)
  } catch (cause) {
    if (cause instanceof WestwindError) throw cause
    if (cause instanceof HubApiError && cause.statusCode < 500) {
      throw networkError(refusal(id, options, cause.statusCode), cause)
    }
    const cached = await cachedSnapshot(folder, revision)
    if (cached) return cached
    throw networkError(
      `${describe(id, options)} could not be fetched from ${endpoint()}: ${rootReason(cause)}. ${advice(id, type)} Files that arrived whole are kept, so the same command goes on from there.`,
      cause,
    )
  }
}

/** Where {@link resolveRepo} finds it without the network, if it does: a folder or file, or a snapshot in the cache. */
export async function localRepo(
  id: string,
  { type, revision = 'main' }: Pick<RepoOptions, 'type' | 'revision'>,
): Promise<string | undefined> {
  if (await exists(id)) return id
  checkNames(id, revision, type)
  return cachedSnapshot(join(cacheDirectory(), `${type}s--${id.replace('/', '--')}`), revision)
}

async function fetchSnapshot(id: string, folder: string, options: RepoOptions): Promise<string> {
  const { type, revision = 'main', files = defaultFiles[type] } = options
  const accessToken = await readToken()
  const access = {
    hubUrl: endpoint(),
    ...(accessToken && { accessToken }),
    ...(options.fetch && { fetch: options.fetch }),
  }
  const info = { name: id, revision, additionalFields: ['sha' as const], ...access }
  const { sha } = type === 'model' ? await modelInfo(info) : await datasetInfo(info)
  if (!isHash(sha)) throw new Error(`the Hub gave ${JSON.stringify(sha)} as commit`)

  const repo = { type, name: id }
  const snapshot = join(folder, 'snapshots', sha)
  await mkdir(snapshot, { recursive: true })
  for await (const entry of listFiles({ repo, revision: sha, recursive: true, ...access })) {
    if (entry.type !== 'file' || !files(entry.path)) continue
    const pointer = join(snapshot, safePath(entry.path))
    if (await exists(pointer)) continue
    const hash = entry.lfs?.oid ?? entry.oid
    if (!isHash(hash)) throw new Error(`the Hub gave ${JSON.stringify(hash)} as hash of a file`)
    const blob = join(folder, 'blobs', hash)
    if (!(await exists(blob))) {
      options.onFile?.(entry.path, entry.size)
      const content = await downloadFile({ repo, revision: sha, path: entry.path, ...access })
      if (!content) throw new Error(`${entry.path} is listed, but not there`)
      await storeBlob(content, blob, entry)
    }
    await mkdir(dirname(pointer), { recursive: true })
    await rm(pointer, { force: true }) // a link whose blob was deleted
    await symlink(relative(dirname(pointer), blob), pointer)
  }
  await atomicFile(join(folder, 'refs', revision), sha)
  return snapshot
}

/** Streams a download to the disk; it gets its name only if size and hash are right. */
async function storeBlob(content: Blob, blob: string, entry: ListFileEntry): Promise<void> {
  await mkdir(dirname(blob), { recursive: true })
  const partial = `${blob}.${randomBytes(4).toString('hex')}.incomplete`
  const hash = entry.lfs ? createHash('sha256') : createHash('sha1').update(`blob ${entry.size}\0`) // what git hashes
  try {
    const chunks = Readable.from(content.stream())
    await pipeline(chunks, hashing(hash), createWriteStream(partial, { flags: 'wx' }))
    if (hash.digest('hex') !== (entry.lfs?.oid ?? entry.oid)) {
      throw new Error(`${entry.path} arrived damaged: its hash is not the one the Hub lists`)
    }
    await rename(partial, blob)
  } finally {
    await rm(partial, { force: true })
  }
}

function hashing(hash: Hash) {
  return async function* (chunks: AsyncIterable<Uint8Array>) {
    for await (const chunk of chunks) {
      hash.update(chunk)
      yield chunk
    }
  }
}

/** The snapshot that a ref or commit stands for, if it was fetched. */
async function cachedSnapshot(folder: string, revision: string): Promise<string | undefined> {
  const named = await readFile(join(folder, 'refs', revision), 'utf8').catch(() => revision)
  const commit = named.trim()
  if (!isHash(commit)) return undefined
  const snapshot = join(folder, 'snapshots', commit)
  return (await exists(snapshot)) ? snapshot : undefined
}

/** Names become URLs and paths of the cache, so they hold nothing that leads elsewhere. */
function checkNames(id: string, revision: string, type: string): void {
  const part = /^[A-Za-z0-9_][\w.-]*$/
  const names = id.split('/')
  if (names.length > 2 || names.some((name) => !part.test(name) || /--|\.\./.test(name))) {
    throw new WestwindError(
      'ERR_INVALID_ARG',
      `${JSON.stringify(id)} is no folder on this machine, and cannot be the name of a Hub ${type} (org/name)`,
    )
  }
  if (!revision.split('/').every((name) => part.test(name)) || revision.includes('..')) {
    throw new WestwindError('ERR_INVALID_ARG', `${JSON.stringify(revision)} cannot be a revision`)
  }
}

function safePath(path: string): string {
  const parts = path.split('/')
  if (parts.some((part) => part === '' || part === '.' || part === '..' || /[\\:\0]/.test(part))) {
    throw networkError(`the repository has a file named ${JSON.stringify(path)}, which is not safe`)
  }
  return path
}

function cacheDirectory(): string {
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE } = process.env
  return HF_HUB_CACHE || HUGGINGFACE_HUB_CACHE || join(hubHome(), 'hub')
}

function hubHome(): string {
  const { HF_HOME, XDG_CACHE_HOME } = process.env
  return HF_HOME || join(XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface')
}

/** `HF_TOKEN`, or the file that `hf auth login` writes. */
async function readToken(): Promise<string | undefined> {
  const file = process.env.HF_TOKEN_PATH || join(hubHome(), 'token')
  const token = (process.env.HF_TOKEN || (await readFile(file, 'utf8').catch(() => ''))).trim()
  if (token === '') return undefined
  if (!token.startsWith('hf_')) {
    throw networkError(
      'the Hub token (HF_TOKEN) must start with hf_; see huggingface.co/settings/tokens',
    )
  }
  return token
}

function endpoint(): string {
  return (process.env.HF_ENDPOINT || HUB_URL).replace(/\/+$/, '')
}

function isOffline(): boolean {
  return /^(1|true|yes|on)$/i.test(process.env.HF_HUB_OFFLINE ?? '')
}

function refusal(id: string, options: RepoOptions, status: number): string {
  const what = describe(id, options)
  if (status === 404) {
    return `${what} is not on the Hub, and there is no folder ${id} on this machine; check the spelling and the revision`
  }
  if (status === 401 || status === 403) {
    return `${what} is not on the Hub or needs access; check the spelling, accept its terms on ${endpoint()}/${id}, and set HF_TOKEN`
  }
  return `${what}: the Hub answered with status ${status}; try again later`
}

function describe(id: string, { type, revision }: RepoOptions): string {
  return `${type === 'model' ? 'model' : 'data set'} ${id}${revision ? ` at ${revision}` : ''}`
}

function advice(id: string, type: string): string {
  return `Fetch it on a machine with a network (hf download ${id} --repo-type ${type}) and copy the cache, or give a local folder instead.`
}

/** undici says "fetch failed" and hides the cause within. */
function rootReason(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined
  return cause === undefined ? reason(error) : `${reason(error)} (${reason(cause)})`
}

function isHash(text: unknown): text is string {
  return typeof text === 'string' && /^[0-9a-f]{40}([0-9a-f]{24})?$/.test(text)
}

function networkError(message: string, cause?: unknown): WestwindError {
  return new WestwindError('ERR_NETWORK', message, { cause })
}
