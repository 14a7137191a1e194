#!/usr/bin/env node
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const file = join(root, 'dist/cli/main.js')

if (existsSync(file)) {
  const { main } = await import(pathToFileURL(file).href)
  process.exitCode = await main(process.argv.slice(2))
} else {
  console.error(`error: westwind is not built yet. Run \`npm run build\` in ${root} first.`)
  process.exitCode = 1
}
