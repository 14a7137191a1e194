import { createWriteStream } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { readRows } from '../data/read-rows.js'
import { WestwindError } from '../errors.js'
import { logprobs, type RowLogps } from '../eval/logprobs.js'
import { reason } from '../json.js'
import { loadModel } from '../model/model.js'
import type { CliContext, Register } from './context.js'
import { count, type ModelOptions, withDevice, withDType } from './options.js'

interface Flags extends ModelOptions {
  data: string
  out?: string
  batchTokens: number
}

export const registerLogprobs: Register = (program, context) => {
  const command = program
    .command('logprobs <model>')
    .description(
      'Log-probabilities that a model gives to the rows of a file, one JSON line per row.',
    )
    .requiredOption('--data <file>', 'rows of any schema that training reads')
    .option('--out <file>', 'where to; default: standard output')
    .option('--batch-tokens <n>', 'tokens computed at once', count(1), 4096)
  withDType(withDevice(command))
  command.action((model: string, flags: Flags) => score(model, flags, context))
}

async function score(path: string, flags: Flags, context: CliContext): Promise<void> {
  const { stdout, stderr, signal } = context
  const { data, out, device, dtype, batchTokens } = flags
  const rows = await readRows(data, { signal })
  using model = await loadModel(path, { device, dtype })
  const totals = { rows: 0, tokens: 0, sum: 0, truncated: 0, dropped: 0 }
  async function* lines() {
    for await (const row of logprobs(model, rows, { batchTokens, signal })) {
      totals.rows++
      if (row.truncated) totals.truncated++
      if (row.dropped) totals.dropped++
      for (const { sum, tokens } of 'chosen' in row ? [row.chosen, row.rejected] : [row]) {
        totals.sum += sum
        totals.tokens += tokens
      }
      yield line(row)
    }
  }
  if (out === undefined) {
    for await (const text of lines()) stdout.write(text)
  } else {
    await writeAside(out, lines())
  }
  const mean = totals.tokens > 0 ? (totals.sum / totals.tokens).toFixed(4) : '-'
  const cut = totals.truncated > 0 ? `, ${totals.truncated} cut to the model's context` : ''
  const dropped = totals.dropped > 0 ? `, ${totals.dropped} without a token to score` : ''
  const where = out === undefined ? '' : ` -> ${out}`
  stderr.write(
    `${totals.rows} rows, ${totals.tokens} tokens, mean log-prob ${mean}${cut}${dropped}${where}\n`,
  )
}

function line(row: RowLogps): string {
  return `${JSON.stringify(row)}\n`
}

/** The file appears when it is whole. */
async function writeAside(file: string, lines: AsyncIterable<string>): Promise<void> {
  const partial = `${file}.${process.pid}.tmp`
  try {
    await pipeline(Readable.from(lines), createWriteStream(partial))
    await rename(partial, file)
  } catch (cause) {
    await rm(partial, { force: true })
    if (cause instanceof WestwindError) throw cause
    throw new WestwindError('ERR_DATA', `${file} cannot be written: ${reason(cause)}`, { cause })
  }
}
