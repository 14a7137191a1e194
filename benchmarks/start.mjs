// One start of dSFT in a process of its own, for scaling.mjs: all from the recipe to what the first step is made of, but the
// model. Prints a line of JSON: milliseconds since the process began, those of the data alone, peak memory.
//
//   node benchmarks/start.mjs KEYS
// KEYS: the recipe's keys as JSON.
import { existsSync, readFileSync } from 'node:fs'
import { parseRecipe } from '../dist/recipe/recipe.js'
import { loadTextInputs } from '../dist/train/inputs.js'
import { sftInputs } from '../dist/train/sft.js'

const { config } = parseRecipe('sft', JSON.parse(process.argv[2]))
const text = await loadTextInputs(config)
const begin = performance.now()
const { units, statistics, fromCache } = await sftInputs(config, text, {})
const end = performance.now()
// maxRSS of a child begins at that of its parent on Linux
const status = existsSync('/proc/self/status') ? readFileSync('/proc/self/status', 'utf8') : ''
const kib = Number(/VmHWM:\s*(\d+) kB/.exec(status)?.[1] ?? process.resourceUsage().maxRSS)
const mib = kib / 1024
console.log(
  JSON.stringify({ ms: end, data: end - begin, mib, units, fromCache, tokens: statistics.tokens }),
)
