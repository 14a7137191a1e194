import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative, resolve } from 'node:path'
import { promisify } from 'node:util'
import type { Command } from 'commander'
import { describe, expect, it } from 'vitest'
import { createProgram } from '../src/cli/main.js'
import { version } from '../src/version.js'

const root = resolve(import.meta.dirname, '..')
const read = (file: string) => readFileSync(join(root, file), 'utf8')
const filesOf = (folder: string, pattern: RegExp) =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => pattern.test(name))
    .map((name) => join(folder, name))

const pages = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', ...filesOf('docs', /\.md$/)]
const folders = ['src', 'native', 'scripts', 'bin', 'tests', 'examples', 'benchmarks']
const sources = [
  'CMakeLists.txt',
  ...folders.flatMap((f) => filesOf(f, /\.(ts|mjs|js|cc|h|cu|cuh|cmake)$/)),
]

/** Fenced blocks of a page in one of these languages. */
function blocks(page: string, ...languages: string[]): string[] {
  return [...read(page).matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)]
    .filter(([, language]) => languages.includes(language!))
    .map(([, , text]) => text!)
}

/** Names of headings as GitHub links to them. */
function anchors(page: string): string[] {
  return [...read(page).matchAll(/^#+ (.*)$/gm)].map(([, title]) =>
    title!
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  )
}

describe('pages', () => {
  it.each(pages)('%s: every relative link leads somewhere', (page) => {
    const text = read(page).replace(/^```[\s\S]*?^```$/gm, '')
    for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target!)) continue
      const [path, anchor] = target!.split('#')
      const file = path ? relative(root, join(root, dirname(page), path)) : page
      expect(existsSync(join(root, file)), `${target} in ${page}`).toBe(true)
      if (anchor) expect(anchors(file), `${target} in ${page}`).toContain(anchor)
    }
  })

  it('every TypeScript block type-checks against the public names', {
    timeout: 180_000,
  }, async () => {
    const dir = mkdtempSync(join(tmpdir(), 'westwind-docs-'))
    try {
      const files = pages.flatMap((page) => {
        return blocks(page, 'ts').map((text, i) => {
          const name = `${page.replaceAll(/[/.]/g, '-')}-${i + 1}.ts`
          writeFileSync(join(dir, name), `${text}\nexport {}\n`)
          return name
        })
      })
      expect(files.length).toBeGreaterThan(0)
      const compilerOptions = {
        paths: {
          westwind: [join(root, 'src/index.ts')],
          openai: [join(root, 'node_modules/openai/index.d.mts')],
        },
        typeRoots: [join(root, 'node_modules/@types')],
      }
      writeFileSync(join(dir, 'package.json'), '{"type":"module"}')
      const config = { extends: join(root, 'tsconfig.json'), compilerOptions, include: [], files }
      writeFileSync(join(dir, 'tsconfig.json'), JSON.stringify(config))
      const tsc = join(root, 'node_modules/typescript/bin/tsc')
      const failed = await promisify(execFile)(process.execPath, [tsc, '-p', dir]).then(
        () => '',
        ({ stdout, stderr }) => `${stdout}${stderr}` || 'tsc ended without a word',
      )
      expect(failed).toBe('')
    } finally {
      rmSync(dir, { recursive: true, force: true })
    }
  })

  it('every command and option of westwind that a page shows is there', () => {
    const { stdin, stdout, stderr } = process
    const { signal } = new AbortController()
    const program = createProgram({ signal, stdin, stdout, stderr })
    const seen = new Set<string>()
    for (const page of pages) {
      const lines = blocks(page, 'sh', 'bash').join('\n').replaceAll('\\\n', ' ').split('\n')
      for (const line of lines) {
        const call = /^(?:\$ )?(?:npx |node bin\/)?westwind(?:\.js)? ([^#|>]+)/.exec(line)
        if (call) seen.add(checkCall(program, call[1]!.trim(), `${page}: ${line}`))
      }
    }
    expect([...seen]).toEqual(expect.arrayContaining(['sft', 'dpo', 'generate']))
  })

  it('docs/environment.md has every variable that the source reads, and no other', () => {
    const code = sources.map(read).join('\n')
    const used = new Set<string>()
    for (const [, name] of code.matchAll(/\benv\.([A-Z][A-Z0-9_]+)\b/g)) used.add(name!)
    for (const [, names] of code.matchAll(/const \{([A-Z0-9_, ]+)\} = process\.env/g)) {
      for (const name of names!.split(',')) used.add(name.trim())
    }
    for (const [, name] of code.matchAll(/\bgetenv\("(\w+)"\)/g)) used.add(name!)
    for (const [, name] of code.matchAll(/\bHINTS (?:.*)ENV (\w+) ENV (\w+)/g)) used.add(name!)
    const rows = read('docs/environment.md').matchAll(/^\| `([A-Z0-9_]+)` \|/gm)
    const documented = [...rows].map(([, name]) => name!)
    expect([...used].sort()).toEqual(documented.sort())
  })

  it('no file names a place of the machine it was written on', () => {
    for (const file of [...pages, ...sources]) {
      expect(read(file), file).not.toMatch(/(^|[\s"'`(=])\/(work|home|root|Users)\//m)
    }
  })

  it('src/version.ts says what package.json says', () => {
    expect(JSON.parse(read('package.json'))).toMatchObject({ version })
  })
})

/** Finds the command of a call and holds each `--option` against it; returns the command's name. */
function checkCall(program: Command, call: string, where: string): string {
  const words = call.match(/"[^"]*"|'[^']*'|\S+/g) ?? []
  let command = program
  let name = ''
  for (const word of words) {
    const next = command.commands.find((one) => one.name() === word)
    if (!next) break
    command = next
    name = `${name} ${word}`.trim()
  }
  if (!words[0]!.startsWith('-')) expect(name, where).not.toBe('')
  const recipe = ['sft', 'dpo'].includes(name) || name === 'inspect data' // recipe keys are checked by the recipe
  for (const word of words) {
    const option = /^(--?[a-zA-Z][\w-]*)/.exec(word)?.[1]
    if (!option || (recipe && option.includes('_')) || (recipe && word.includes('='))) continue
    const known = ['--help', '-h', '--version', ...program.options, ...command.options]
      .flatMap((one) => (typeof one === 'string' ? [one] : [one.long, one.short]))
      .filter((one) => one !== undefined)
    expect(known, where).toContain(option)
  }
  return name
}
