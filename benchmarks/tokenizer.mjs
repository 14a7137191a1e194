// Encodes real texts with westwind's tokenizer and with the Rust library `tokenizers`, piece by piece in turns, one thread each,
// and writes tokens per CPU second and their ratio to benchmarks/results/. Before that all ids are held to be equal. Needs a
// Python with tokenizers; its side is peer_tokenizer.py.
//
//   node benchmarks/tokenizer.mjs --python VENV/bin/python --tokenizer DIR --texts FILE [--texts FILE …] [--pieces 40]
// FILE has rows of messages (or of chosen and rejected), as Parquet or JSON Lines; the text of a turn is encoded at once.
import { createHash } from 'node:crypto'
import { basename, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { markdownTable } from '../dist/bench/compare.js'
import { quantile } from '../dist/bench/harness.js'
import { readRows } from '../dist/data/read-rows.js'
import { loadTokenizer } from '../dist/data/tokenizer/tokenizer.js'
import { report, talk } from './support.mjs'

const { values: flags } = parseArgs({
  options: {
    python: { type: 'string' },
    tokenizer: { type: 'string' },
    texts: { type: 'string', multiple: true },
    pieces: { type: 'string', default: '40' },
  },
})
if (!flags.python || !flags.tokenizer || !flags.texts) {
  console.error('tokenizer: give --python, --tokenizer and --texts; see the head of this file')
  process.exit(1)
}

const found = new Set() // a prompt stands before both answers of a pair
for (const file of flags.texts) {
  for (const { messages, chosen, rejected } of await readRows(file)) {
    for (const turn of [messages, chosen, rejected].flat()) {
      if (typeof turn?.content === 'string') found.add(turn.content)
    }
  }
}
const texts = [...found]
if (texts.length === 0) throw new Error(`tokenizer: ${flags.texts.join(', ')}: no row has messages`)
const rust = talk(flags.python, [
  'benchmarks/peer_tokenizer.py',
  resolve(flags.tokenizer, 'tokenizer.json'),
])
const { forms } = await rust.ask({ texts })

const digestOf = (ids) => createHash('sha256').update(Int32Array.from(ids)).digest('hex')
const { digests } = await rust.ask({ digests: true })
const checking = await loadTokenizer(flags.tokenizer)
for (const [i, text] of texts.entries()) {
  if (digestOf(checking.encode(text)) === digests[i]) continue
  console.error(`tokenizer: other ids than the library's for ${JSON.stringify(text.slice(0, 500))}`)
  process.exit(1)
}

const fresh = await loadTokenizer(flags.tokenizer) // with an empty cache, as the library's

/** Tokens of a piece and CPU seconds of this process, those of the garbage collector included. */
function encode(from, to) {
  const begin = process.cpuUsage()
  let tokens = 0
  for (let i = from; i < to; i++) tokens += fresh.encode(texts[i]).length
  const { user, system } = process.cpuUsage(begin)
  return { tokens, seconds: (user + system) / 1e6 }
}

const names = ['westwind', ...forms]
const rates = Object.fromEntries(names.map((name) => [name, []])) // tokens per CPU second of each piece
let tokens = 0
const size = Math.ceil(texts.length / Number(flags.pieces))
for (let from = 0; from < texts.length; from += size) {
  const to = Math.min(texts.length, from + size)
  const turns = names.map((name) => async () => {
    const own = name === 'westwind'
    const made = own ? encode(from, to) : await rust.ask({ form: name, from, to })
    rates[name].push(made.tokens / made.seconds)
    if (own) tokens += made.tokens
  })
  for (const turn of (from / size) % 2 === 0 ? turns : turns.reverse()) await turn()
}
rust.end()

const million = (rate) => (rate / 1e6).toFixed(2)
const rows = names.map((name) => {
  const ratios = rates.westwind.map((rate, i) => rate / rates[name][i])
  const [low, middle, high] = [0.2, 0.5, 0.8].map((q) => quantile(ratios, q).toFixed(2))
  const own = name === 'westwind'
  return [
    own ? name : `tokenizers, \`${name}\``,
    million(quantile(rates[name], 0.5)),
    ...(own ? ['', ''] : [middle, `${low} to ${high}`]),
  ]
})
const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0)
const head = ['encoder', 'million tokens per CPU second', 'westwind ÷ it', '20 to 80 %']
report(
  'tokenizer',
  flags.python,
  ({ date, machine, versions }) => `# Encoding beside the Rust library: ${date}, ${machine}

\`node benchmarks/tokenizer.mjs\`: ${texts.length.toLocaleString('en')} different turns of ${flags.texts.map((file) => `\`${join(basename(resolve(file, '..')), basename(file))}\``).join(', ')}
(${(bytes / 1e6).toFixed(1)} MB, ${tokens.toLocaleString('en')} tokens), all ids equal. ${rates.westwind.length} pieces in turns, one thread each, each encoder with the cache that it
has filled itself; rates are of CPU time (V8's compiler and garbage collector included), medians of pieces. ${versions}

${markdownTable(head, rows)}
`,
  { module: 'tokenizers', title: 'tokenizers' },
)
