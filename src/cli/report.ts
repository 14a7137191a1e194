import { report } from '../report/report.js'
import type { Register } from './context.js'
import { collect } from './options.js'

interface Flags {
  out: string
  eval?: string[]
  json?: true
}

export const registerReport: Register = (program, { stdout, stderr }) => {
  program
    .command('report')
    .description('Runs side by side on one HTML page: curves, scores, answers, recipes, origin.')
    .argument('<runs...>', 'folders of runs, checkpoints or models')
    .option('--out <file>', 'the page; the JSON is beside it', 'report.html')
    .option('--eval <dir>', 'a folder with results of evaluations; may be repeated', collect)
    .option('--json', 'print what the JSON file has')
    .action(async (runs: string[], flags: Flags) => {
      const { out, eval: evaluations } = flags
      const result = await report({ runs, out, ...(evaluations && { eval: evaluations }) })
      for (const problem of result.problems) stderr.write(`note: ${problem}\n`)
      if (flags.json) stdout.write(`${JSON.stringify(result)}\n`)
      else stdout.write(`${out}\n${out.replace(/html$/, 'json')}\n`)
    })
}
