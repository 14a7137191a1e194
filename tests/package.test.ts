import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const index = join(root, 'dist/index.js')
const built = existsSync(index)

interface Packed {
  files: { path: string }[]
}

it('the package has the program, the API, the sources of the addon, recipes, templates and the chat page, and no tests', () => {
  const args = ['pack', '--dry-run', '--json', '--ignore-scripts']
  const output = execFileSync('npm', args, { cwd: root, encoding: 'utf8', stdio: 'pipe' })
  const [packed]: Packed[] = JSON.parse(output)
  const paths = packed!.files.map(({ path }) => path)
  const wanted = ['bin/westwind.js', 'CMakeLists.txt', 'LICENSE', 'package.json']
  expect(paths).toEqual(expect.arrayContaining([...wanted, 'recipes/zephyr-7b-beta/dpo.yaml']))
  expect(paths).toEqual(expect.arrayContaining(['web/index.html', 'web/page.css']))
  expect(paths).toEqual(expect.arrayContaining(['web/page.js', 'web/chat.js']))
  expect(paths).toEqual(expect.arrayContaining(['native/binding/addon.cc', 'scripts/build.mjs']))
  const templates = ['mt-bench/judge_prompts.jsonl', 'feedback/judge.jinja']
  expect(paths).toEqual(expect.arrayContaining(templates.map((name) => `templates/${name}`)))
  if (built) expect(paths).toEqual(expect.arrayContaining(['dist/index.js', 'dist/index.d.ts']))
  expect(paths.filter((path) => /(^|\/)(tests|node_modules|runs)\//.test(path))).toEqual([])
})

describe.skipIf(!built)('the built package', () => {
  it('is imported by its name, without an addon too, and has the documented names', () => {
    const code = `
      const westwind = await import('westwind')
      const missing = await import(${JSON.stringify(pathToFileURL(index).href)})
      console.log(JSON.stringify([Object.keys(westwind).sort(), missing.version]))`
    const env = { ...process.env, WESTWIND_ADDON: '/nowhere/westwind.node' }
    const args = ['--input-type=module', '-e', code]
    const output = execFileSync(process.execPath, args, { cwd: root, env, encoding: 'utf8' })
    const [names, version] = JSON.parse(output)
    const wanted = ['loadModel', 'sft', 'dpo', 'generate', 'ops', 'device', 'logprobs', 'scope']
    expect(names).toEqual(expect.arrayContaining(wanted))
    const { version: expected } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
    expect(version).toBe(expected)
  })

  it('what needs the addon says what to do without it', () => {
    const code = `
      const { openCpu } = await import('westwind')
      try { openCpu() } catch (error) { console.log(error.code, error.message) }`
    const env = { ...process.env, WESTWIND_ADDON: '/nowhere/westwind.node' }
    const args = ['--input-type=module', '-e', code]
    const output = execFileSync(process.execPath, args, { cwd: root, env, encoding: 'utf8' })
    expect(output).toMatch(/^ERR_NATIVE the native addon could not be loaded .*npm run build/)
  })
})
