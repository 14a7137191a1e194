// Checks the C++ and CUDA: format (clang-format), suspicious code (clang-tidy, where it is installed), the rule of
// native/cpu/ops.h, that the code of one instruction set leaves no symbol a linker would share with another, and that
// ptxas takes every kernel without spilling a register to memory.
// `--fix` formats in place first.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const files = (folder, pattern) =>
  readdirSync(join(root, folder), { recursive: true })
    .filter((name) => pattern.test(name))
    .map((name) => join(folder, name))
    .sort()

let failed = false

function report(what, problem) {
  console.log(`check-native: ${what}: ${problem || 'good'}`)
  if (problem) failed = true
}

const skip = (what, why) => console.log(`check-native: ${what}: skipped, ${why}`)
const runs = (command) => spawnSync(command, ['--version']).status === 0

function checkFormat(fix) {
  const clangFormat = join(root, 'node_modules/.bin/clang-format')
  if (!runs(clangFormat))
    return skip('format', 'the clang-format of node_modules does not run here')
  const sources = files('native', /\.(h|cc|cu|cuh)$/)
  if (fix) spawnSync(clangFormat, ['-i', ...sources], { cwd: root, stdio: 'inherit' })
  const { stderr } = spawnSync(clangFormat, ['--dry-run', ...sources], {
    cwd: root,
    encoding: 'utf8',
  })
  const bad = sources.filter((file) => stderr.includes(`${file}:`))
  report('format', bad.length && `run \`node scripts/check-native.mjs --fix\` for ${bad.join(' ')}`)
}

// Runs one command on each of a list of arguments, as many at a time as there are processors; resolves to what
// `said(output, exitCode, args)` makes of each, without the empty ones.
async function forEach(command, list, said) {
  const queue = [...list]
  const findings = []
  const worker = async () => {
    for (let args = queue.shift(); args !== undefined; args = queue.shift()) {
      const child = spawn(command, args, { cwd: root })
      let output = ''
      for (const stream of [child.stdout, child.stderr]) {
        stream.on('data', (text) => {
          output += text
        })
      }
      const code = await new Promise((resolve) => child.on('close', resolve))
      const text = said(output, code, args)
      if (text) findings.push(text)
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
  return findings
}

async function checkTidy() {
  if (!runs('clang-tidy')) return skip('clang-tidy', 'it is not on the PATH')
  const include = ['include', 'cpu', 'cuda', 'runtime', 'binding'].map(
    (folder) => `-Inative/${folder}`,
  )
  const napi = ['node-api-headers/include', 'node-addon-api'].map(
    (path) => `-isystemnode_modules/${path}`,
  )
  const define = [
    'WESTWIND_ISA=portable',
    'WESTWIND_ISA_portable',
    'NAPI_VERSION=8',
    'NODE_ADDON_API_CPP_EXCEPTIONS_ALL',
  ]
  const flags = ['-std=c++20', ...include, ...napi, ...define.map((name) => `-D${name}`)]
  const cuda = cudaHeaders()
  const sources = files('native', /\.cc$/).filter((file) => cuda || !/^native.cuda/.test(file))
  if (cuda) flags.push(`-isystem${cuda}`)
  const findings = await forEach(
    'clang-tidy',
    sources.map((file) => ['--quiet', file, '--', ...flags]),
    (output, code) => (code === 0 ? '' : output),
  )
  report('clang-tidy', findings.length && `\n${findings.join('\n')}`)
}

// Where cuda.h is, as the build found it.
function cudaHeaders() {
  const cache = join(root, 'build/CMakeCache.txt')
  if (!existsSync(cache)) return undefined
  return /^CUDA_HEADERS_FOUND:PATH=(\/.*)$/m.exec(readFileSync(cache, 'utf8'))?.[1]
}

// The machine code of every kernel, as the driver or a full build would have it: the PTX of build/cuda for each
// architecture it is meant for.
async function checkKernels() {
  const what = 'kernels in machine code'
  if (!existsSync(join(root, 'build/cuda'))) return skip(what, 'a build without CUDA')
  if (!runs('ptxas')) return skip(what, 'ptxas is not on the PATH')
  const jobs = files('build/cuda', /\.ptx$/).flatMap((file) =>
    (/_sm90\.ptx$/.test(file) ? ['sm_90a'] : ['sm_80', 'sm_89', 'sm_90a']).map((arch) => [
      '-v',
      `-arch=${arch}`,
      file,
      '-o',
      '/dev/null',
    ]),
  )
  const findings = await forEach('ptxas', jobs, (output, code, args) => {
    const where = `${relative('build/cuda', args[2])} for ${args[1].slice('-arch='.length)}`
    if (code !== 0) return `${where}: ${output}`
    // A kernel's name comes in one line, its spills in the next but one.
    const spills = [...output.matchAll(/properties for (\w+)\n.*?(\d+) bytes spill stores/g)]
    const bad = spills.filter(([, , bytes]) => bytes !== '0').map(([, name]) => name)
    const serial = /wgmma.*serializ/i.test(output) ? ['wgmma serialised'] : []
    return bad.length + serial.length > 0 ? `${where}: ${[...bad, ...serial].join(', ')}` : ''
  })
  report(what, findings.length && `\n  ${findings.join('\n  ')}`)
}

// Weak symbols (V, W, u) outside the namespace of the set: bodies of which the linker keeps one for all sets.
function checkSharedSymbols() {
  const what = 'symbols of instruction sets'
  if (!runs('nm')) return skip(what, 'nm is not on the PATH')
  for (const isa of ['avx2', 'avx512', 'amx']) {
    const folder = join('build/CMakeFiles', `cpu_${isa}.dir`)
    if (!existsSync(join(root, folder))) {
      skip(`${what}: ${isa}`, `${folder} is not there; build first`)
      continue
    }
    const objects = files(folder, /\.o$/)
    const own = `_ZN8westwind${isa.length}${isa}`
    const { stdout } = spawnSync('nm', ['-A', '--defined-only', ...objects], {
      cwd: root,
      encoding: 'utf8',
    })
    const shared = stdout
      .split('\n')
      .map((line) => /^(.+?):\S* ([VWu]) (\S+)$/.exec(line))
      .filter((match) => match && !match[3].startsWith(own))
      .map(([, file, , symbol]) => `\n  ${symbol} in ${relative(folder, file)}`)
    report(
      `${what}: ${isa}`,
      shared.length && `give these internal linkage (native/cpu/ops.h):${shared.join('')}`,
    )
  }
}

checkFormat(process.argv.includes('--fix'))
checkSharedSymbols()
await checkKernels()
await checkTidy()
process.exit(failed ? 1 : 0)
