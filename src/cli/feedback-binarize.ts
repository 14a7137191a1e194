import { Option } from 'commander'
import { WestwindError } from '../errors.js'
import { type BinarizeOptions, binarize } from '../feedback/binarize.js'
import { binarizeOptions } from '../feedback/binarize-config.js'
import { formatReport } from '../feedback/format-report.js'
import { loadFeedbackConfig } from '../feedback/load-config.js'
import { chosenRules, rejectedRules } from '../feedback/rules.js'
import type { Register } from './context.js'
import { count, number } from './options.js'

type Flags = Partial<Omit<BinarizeOptions, 'input' | 'signal'>>

export const addFeedbackBinarize: Register = (feedback, context) => {
  feedback
    .command('binarize')
    .description('Preference pairs from rated answers, as westwind dpo reads them.')
    .argument('<input>', 'rated answers, or the YAML file of the feedback step')
    .option('--out <dir>', 'folder to write to')
    .addOption(choice('--chosen <rule>', 'the best answer by this score; overall', chosenRules))
    .addOption(choice('--rejected <rule>', 'which of the others; random', rejectedRules))
    .option('--seed <n>', 'of the random rule and of what is held out; 42', count(0))
    .addOption(
      choice('--ties <what>', 'equally good answers; drop under lowest, else keep', [
        'keep',
        'drop',
      ]),
    )
    .option('--min-margin <x>', 'least score of chosen less that of rejected', number(0, 1e6))
    .option('--min-spread <x>', 'least distance of highest and lowest score', number(0, 1e6))
    .option('--max-disagreement <x>', "largest spread of the teacher's ratings", number(0, 1e6))
    .option('--decontaminate <file...>', 'evaluation sets that prompts must not overlap')
    .option('--ngram <n>', 'words in a row that are an overlap; 13', count(1))
    .option('--test-size <n>', 'pairs to hold out, prompts whole; 0', count(0))
    .option('--tokenizer <dir>', 'count lengths in its tokens too')
    .option('--json', 'print the report as a JSON object')
    .action(async (input: string, { json, ...flags }: Flags & { json?: true }) => {
      const report = await binarize({ ...(await given(input, flags)), signal: context.signal })
      context.stdout.write(`${json ? JSON.stringify(report) : formatReport(report)}\n`)
      for (const warning of report.warnings) context.stderr.write(`warning: ${warning}\n`)
    })
}

function choice(flags: string, text: string, values: readonly string[]): Option {
  return new Option(flags, text).choices([...values])
}

/** Flags win over the configuration. */
async function given(input: string, flags: Flags): Promise<BinarizeOptions> {
  if (/\.ya?ml$/.test(input)) {
    return { ...binarizeOptions(await loadFeedbackConfig(input)), ...flags }
  }
  const { out } = flags
  if (out !== undefined) return { input, ...flags, out }
  throw new WestwindError('ERR_INVALID_ARG', '--out: expected the folder to write the pairs to')
}
