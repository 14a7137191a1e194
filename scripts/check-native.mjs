// Checks the C++: format (clang-format), suspicious code (clang-tidy, where it is installed), and the rule of
// native/cpu/ops.h, that the code of one instruction set leaves no symbol a linker would share with another.
// `--fix` formats in place first.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
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
  const sources = files('native', /\.(h|cc)$/)
  if (fix) spawnSync(clangFormat, ['-i', ...sources], { cwd: root, stdio: 'inherit' })
  const { stderr } = spawnSync(clangFormat, ['--dry-run', ...sources], {
    cwd: root,
    encoding: 'utf8',
  })
  const bad = sources.filter((file) => stderr.includes(`${file}:`))
  report('format', bad.length && `run \`node scripts/check-native.mjs --fix\` for ${bad.join(' ')}`)
}

// Resolves to what clang-tidy has to say about a file, empty if nothing.
function tidy(file) {
  const include = ['include', 'cpu', 'runtime', 'binding'].map((folder) => `-Inative/${folder}`)
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
  const child = spawn('clang-tidy', ['--quiet', file, '--', ...flags], { cwd: root })
  let output = ''
  child.stdout.on('data', (text) => {
    output += text
  })
  return new Promise((resolve) => child.on('close', (code) => resolve(code === 0 ? '' : output)))
}

async function checkTidy() {
  if (!runs('clang-tidy')) return skip('clang-tidy', 'it is not on the PATH')
  const queue = files('native', /\.cc$/)
  const findings = []
  const worker = async () => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const said = await tidy(file)
      if (said) findings.push(said)
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
  report('clang-tidy', findings.length && `\n${findings.join('\n')}`)
}

// Weak symbols (V, W, u) outside the namespace of the set: bodies of which the linker keeps one for all sets.
function checkSharedSymbols() {
  const what = 'symbols of instruction sets'
  if (!runs('nm')) return skip(what, 'nm is not on the PATH')
  for (const isa of ['avx2', 'avx512']) {
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
await checkTidy()
process.exit(failed ? 1 : 0)
