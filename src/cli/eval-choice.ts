import type { Command } from 'commander'
import type { ChoiceTaskName } from '../eval/choice/tasks.js'
import { runChoices } from '../eval/run-scoring.js'
import type { CliContext, Register } from './context.js'
import { report, type ScoringFlags, withScoring } from './eval-shared.js'
import { count } from './options.js'

interface Flags extends ScoringFlags {
  data: string[]
  fewshot?: number
  fewshotData?: string[]
  preset?: string
}

const descriptions: Record<ChoiceTaskName, string> = {
  arc: 'ARC: grade-school science questions; acc and acc_norm.',
  hellaswag: 'HellaSwag: how a scene goes on; acc and acc_norm.',
  mmlu: 'MMLU: questions of 57 subjects; acc by subject and category.',
  truthfulqa: 'TruthfulQA: mc1 and mc2, whether true answers are likelier than false ones.',
  'multiple-choice': 'Any file of questions with choices; acc and acc_norm.',
}

export const registerChoices: Register = (parent, context) => {
  for (const task of ['arc', 'hellaswag', 'mmlu', 'truthfulqa', 'multiple-choice'] as const) {
    const command = parent
      .command(`${task} <model>`)
      .description(descriptions[task])
      .requiredOption('--data <files...>', 'the questions')
    addExamples(command, task)
    withScoring(command).action((model: string, flags: Flags) =>
      evaluate(task, model, flags, context),
    )
  }
}

function addExamples(command: Command, task: ChoiceTaskName): void {
  if (task === 'truthfulqa') {
    command.option('--preset <file>', 'text that stands before each question')
    return
  }
  command
    .option('--fewshot <n>', 'answered examples before each question', count(0), 0)
    .option('--fewshot-data <files...>', 'where they come from: the train, validation or dev split')
}

async function evaluate(
  task: ChoiceTaskName,
  model: string,
  flags: Flags,
  context: CliContext,
): Promise<void> {
  const { signal, stderr } = context
  report(await runChoices({ ...flags, task, model, signal, stream: stderr }), flags, context)
}
