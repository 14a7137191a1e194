import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { resolveModel, resolveRepo } from '../src/hub.js'
import { temporaryDirectory } from './checkpoint/tiny-model.js'

// A Hub on the loopback interface: no test reaches the network.
const commit = 'c0ffee'.padEnd(40, '0')
const gitHash = (text: string) =>
  createHash('sha1').update(`blob ${text.length}\0${text}`).digest('hex')
const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')

interface HubFile {
  text: string
  listedPath?: string
  lfs?: boolean
  sent?: string
}
let files: Record<string, HubFile> = {}
let requests: string[] = []
let tokens: (string | undefined)[] = []
let server: Server
let endpoint = ''

beforeAll(async () => {
  server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '', 'http://hub')
    requests.push(pathname)
    tokens.push(request.headers.authorization)
    const json = (status: number, value: unknown) => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
    }
    if (/^\/api\/(models|datasets)\/org\/repo\/revision\/main$/.test(pathname)) {
      return json(200, { _id: '1', id: 'org/repo', sha: commit, lastModified: 0, gated: false })
    }
    if (pathname.endsWith(`/org/repo/tree/${commit}`)) {
      const entries = Object.entries(files).map(([path, { text, lfs, listedPath }]) => ({
        type: 'file',
        path: listedPath ?? path,
        size: text.length,
        oid: gitHash(text),
        ...(lfs && { lfs: { oid: sha256(text), size: text.length, pointerSize: 100 } }),
      }))
      return json(200, [{ type: 'directory', path: 'data', size: 0, oid: commit }, ...entries])
    }
    const file = files[/\/org\/repo\/resolve\/[^/]+\/(.*)$/.exec(pathname)?.[1] ?? '']
    if (file) {
      const body = file.sent ?? file.text
      const range = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '')
      const part = range ? body.slice(Number(range[1]), Number(range[2]) + 1) : body
      response.writeHead(range ? 206 : 200, {
        etag: `"${gitHash(file.text)}"`,
        'content-range': `bytes 0-${part.length - 1}/${body.length}`,
        'content-length': part.length,
      })
      return response.end(part)
    }
    if (pathname.includes('/gated/')) return json(401, { error: 'Invalid credentials' })
    if (pathname.includes('/busy/')) return json(503, { error: 'Busy' })
    return json(404, { error: 'Not found' })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the server has no port')
  endpoint = `http://127.0.0.1:${address.port}`
})
afterAll(() => server.close())

const root = temporaryDirectory()
let cache = ''
let count = 0
beforeEach(() => {
  cache = join(root, String(count++))
  for (const [name, value] of Object.entries({
    HF_ENDPOINT: endpoint,
    HF_HUB_CACHE: cache,
    HF_HOME: join(cache, 'home'),
    HF_TOKEN: '',
    HF_TOKEN_PATH: '',
    HF_HUB_OFFLINE: '',
  })) {
    vi.stubEnv(name, value)
  }
  requests = []
  tokens = []
  files = {
    'config.json': { text: '{"a":1}' },
    'model.safetensors': { text: 'weights', lfs: true },
    'pytorch_model.bin': { text: 'pickle', lfs: true },
    'data/train.jsonl': { text: '{}\n' },
  }
})
afterEach(() => vi.unstubAllEnvs())

const snapshot = () => join(cache, 'models--org--repo', 'snapshots', commit)
const fails = (work: Promise<string>, message: RegExp, code = 'ERR_NETWORK') =>
  expect(work).rejects.toMatchObject({ code, message: expect.stringMatching(message) })

describe('resolveModel', () => {
  it('prefers a local folder of that name', async () => {
    mkdirSync(join(cache, 'org', 'repo'), { recursive: true })
    expect(await resolveModel(join(cache, 'org', 'repo'))).toBe(join(cache, 'org', 'repo'))
    expect(requests).toEqual([])
  })

  it('fetches the files of a model into the cache of huggingface_hub', async () => {
    expect(await resolveModel('org/repo')).toBe(snapshot())
    expect(readdirSync(snapshot()).sort()).toEqual(['config.json', 'model.safetensors'])
    expect(readFileSync(join(snapshot(), 'model.safetensors'), 'utf8')).toBe('weights')
    const folder = join(cache, 'models--org--repo')
    expect(readdirSync(join(folder, 'blobs')).sort()).toEqual(
      [gitHash('{"a":1}'), sha256('weights')].sort(),
    )
    expect(readFileSync(join(folder, 'refs', 'main'), 'utf8')).toBe(commit)
  })

  it('fetches nothing twice', async () => {
    await resolveModel('org/repo')
    requests = []
    await resolveModel('org/repo')
    expect(requests.filter((path) => path.includes('/resolve/'))).toEqual([])
  })

  it('sends the token of HF_TOKEN, or of the file of hf auth login', async () => {
    vi.stubEnv('HF_TOKEN', 'hf_env')
    await resolveModel('org/repo')
    expect(new Set(tokens)).toEqual(new Set(['Bearer hf_env']))
    vi.stubEnv('HF_TOKEN', '')
    mkdirSync(join(cache, 'home'))
    writeFileSync(join(cache, 'home', 'token'), 'hf_file\n')
    tokens = []
    await resolveModel('org/repo')
    expect(new Set(tokens)).toEqual(new Set(['Bearer hf_file']))
    vi.stubEnv('HF_TOKEN', 'secret')
    await fails(resolveModel('org/repo'), /must start with hf_/)
  })

  it.each([
    ['bytes changed', 'WEIGHTS'],
    ['cut short', 'weig'],
  ])('keeps no file that arrives with %s, and no ref to the snapshot', async (_, sent) => {
    files['model.safetensors'] = { text: 'weights', lfs: true, sent }
    await fails(resolveModel('org/repo'), /arrived damaged/)
    const folder = join(cache, 'models--org--repo')
    expect(readdirSync(join(folder, 'blobs'))).toEqual([gitHash('{"a":1}')])
    expect(existsSync(join(folder, 'refs'))).toBe(false)
    vi.stubEnv('HF_HUB_OFFLINE', '1')
    await fails(resolveModel('org/repo'), /not in the cache/)
  })

  it.each(['../evil.json', '/evil.json', 'a/../../evil.json', 'a\\evil.json'])(
    'refuses a repository with a file named %s',
    async (listedPath) => {
      files['x.json'] = { text: 'x', listedPath }
      const all = resolveRepo('org/repo', { type: 'model', files: () => true })
      await fails(all, /not safe/)
    },
  )

  it('says what to do where the repository is missing, gated, or the Hub busy', async () => {
    await fails(resolveModel('org/none'), /not on the Hub, and there is no folder org\/none/)
    await fails(resolveModel('gated/repo'), /accept its terms.*HF_TOKEN/)
    await fails(resolveModel('busy/repo'), /could not be fetched.*Busy/)
    await fails(resolveModel('org/repo', 'v9'), /org\/repo at v9 is not on the Hub/)
  })

  it.each(['./runs/sft', '/abs', 'a/b/c', 'a--b', 'org/../x', ''])(
    'refuses %j, which is neither a folder here nor a name of the Hub',
    async (id) => {
      await fails(resolveModel(id), /cannot be the name of a Hub model/, 'ERR_INVALID_ARG')
      expect(requests).toEqual([])
    },
  )

  it('refuses a revision that leaves the cache', async () => {
    await fails(resolveModel('org/repo', '../../x'), /cannot be a revision/, 'ERR_INVALID_ARG')
  })
})

describe('without a network', () => {
  it('HF_HUB_OFFLINE uses the cache, asks nothing, and says what to do when it is empty', async () => {
    vi.stubEnv('HF_HUB_OFFLINE', '1')
    await fails(resolveModel('org/repo'), /HF_HUB_OFFLINE is set.*hf download org\/repo/)
    vi.stubEnv('HF_HUB_OFFLINE', '')
    await resolveModel('org/repo')
    vi.stubEnv('HF_HUB_OFFLINE', '1')
    requests = []
    expect(await resolveModel('org/repo')).toBe(snapshot())
    expect(await resolveModel('org/repo', commit)).toBe(snapshot())
    expect(requests).toEqual([])
    await fails(resolveModel('org/repo', 'v2'), /org\/repo at v2 is not in the cache/)
  })

  it('a Hub that cannot be reached is named with the reason; what was fetched is used', async () => {
    const broken = async () => {
      throw new TypeError('fetch failed', { cause: new Error('getaddrinfo ENOTFOUND') })
    }
    const resolve = () => resolveRepo('org/repo', { type: 'model', fetch: broken })
    await fails(resolve(), /fetch failed \(getaddrinfo ENOTFOUND\).*give a local folder/)
    await resolveModel('org/repo')
    expect(await resolve()).toBe(snapshot())
  })
})

describe('resolveRepo of a data set', () => {
  it('fetches the files it is read from, or those that are asked for', async () => {
    files['README.md'] = { text: 'configs' }
    files['data/valid.jsonl'] = { text: '[]' }
    const fetched: string[] = []
    const dir = await resolveRepo('org/repo', {
      type: 'dataset',
      files: (path) => path.startsWith('data/t'),
      onFile: (path, bytes) => fetched.push(`${path} ${bytes}`),
    })
    expect(dir).toBe(join(cache, 'datasets--org--repo', 'snapshots', commit))
    expect(fetched).toEqual(['data/train.jsonl 3'])
    await resolveRepo('org/repo', { type: 'dataset' })
    expect(readdirSync(join(dir, 'data')).sort()).toEqual(['train.jsonl', 'valid.jsonl'])
    expect(readFileSync(join(dir, 'README.md'), 'utf8')).toBe('configs')
    expect(existsSync(join(dir, 'model.safetensors'))).toBe(false)
  })

  it('mends a snapshot whose blob was deleted', async () => {
    const dir = await resolveRepo('org/repo', { type: 'dataset' })
    rmSync(join(cache, 'datasets--org--repo', 'blobs'), { recursive: true })
    await resolveRepo('org/repo', { type: 'dataset' })
    expect(readFileSync(join(dir, 'data', 'train.jsonl'), 'utf8')).toBe('{}\n')
  })
})
