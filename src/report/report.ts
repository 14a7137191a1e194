import { type Check, fields, list, optional, path } from '../arguments.js'
import { atomicFile, exists } from '../checkpoint/atomic.js'
import { refuse, WestwindError } from '../errors.js'
import { compare, type RunReport } from './compare.js'
import { reportPage } from './page.js'
import { type Evaluation, readEvaluations } from './read-evaluations.js'
import { type RunFolder, readRunFolder } from './read-run.js'

export interface ReportOptions {
  /** Folders of runs, of checkpoints or of models, in the order in which they are shown. */
  runs: readonly string[]
  /** Folders with results of evaluations, beside those in `eval/` of each run. */
  eval?: readonly string[]
  /** The page, `report.html` by default; the JSON is beside it, with the ending `.json`. */
  out?: string
}

const checkOptions: Check<ReportOptions> = fields<ReportOptions>({
  runs: list(path),
  eval: optional(list(path)),
  out: optional(path),
})

/**
 * Sets runs side by side in one self-contained HTML page and a JSON file with the same numbers: curves, final
 * metrics, evaluation scores, sample answers, recipes, where data and models come from, machines and versions. Runs
 * may be unfinished, resumed or of older versions; what is damaged in them is said in `problems` and on the page.
 *
 * @returns what the JSON file has
 * @throws ERR_DATA where a folder does not exist
 */
export async function report(options: ReportOptions): Promise<RunReport> {
  checkOptions(options, 'report: options')
  const { runs, eval: evalFolders = [], out = 'report.html' } = options
  if (runs.length + evalFolders.length === 0) {
    refuse('report: options.runs', 'the folders of one or more runs', 'none')
  }
  if (!out.endsWith('.html')) refuse('report: options.out', 'a name that ends in .html', out)
  const problems: string[] = []
  const folders: RunFolder[] = []
  const evaluations: Evaluation[] = []
  for (const run of runs) {
    folders.push(await readRunFolder(run))
    const own = `${run}/eval`
    if (await exists(own)) evaluations.push(...(await readEvaluations(own, problems)))
  }
  for (const dir of evalFolders) {
    if (!(await exists(dir))) {
      throw new WestwindError('ERR_DATA', `${dir} does not exist; expected a folder of evaluations`)
    }
    const found = await readEvaluations(dir, problems)
    if (found.length === 0) problems.push(`${dir}: no results.json of an evaluation is here`)
    evaluations.push(...found.filter(({ file }) => !evaluations.some((one) => one.file === file)))
  }
  const result = await compare(folders, evaluations, problems)
  await atomicFile(out.replace(/html$/, 'json'), `${JSON.stringify(result, null, 2)}\n`)
  await atomicFile(out, reportPage(result))
  return result
}
