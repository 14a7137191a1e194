import { z } from 'zod'
import { readRows } from '../../data/read-rows.js'
import { WestwindError } from '../../errors.js'
import { parseRow } from '../rows.js'
import { templatePath } from '../templates.js'
import { type Answer, needsReference, type Question } from './questions.js'

/** A line of FastChat's `judge_prompts.jsonl`. */
export interface JudgePrompt {
  name: string
  type: string
  system_prompt: string
  /** A Python format string: `{answer}` is a place, `{{` a brace. */
  prompt_template: string
  output_format: string
}

/** The prompts of single-answer grading, by turn and by whether there is a reference. */
export type JudgePrompts = Record<PromptName, JudgePrompt>
type PromptName = (typeof names)[number]
const names = [
  'single-v1',
  'single-math-v1',
  'single-v1-multi-turn',
  'single-math-v1-multi-turn',
] as const

const promptSchema = z.object({
  name: z.string(),
  type: z.string(),
  system_prompt: z.string(),
  prompt_template: z.string(),
  output_format: z.string(),
})

/** Our own wording; FastChat's file can be given instead. */
export const ownPrompts = templatePath('mt-bench/judge_prompts.jsonl')

/** @throws ERR_DATA where the file lacks one of the four prompts, or one is not for single-answer grading */
export async function readJudgePrompts(file: string = ownPrompts): Promise<JudgePrompts> {
  const rows = await readRows(file)
  const all = rows.map((row, i) => parseRow(promptSchema, row, `${file}:${i + 1}`))
  const find = (name: PromptName): JudgePrompt => {
    const prompt = all.find((one) => one.name === name)
    if (!prompt) {
      throw new WestwindError(
        'ERR_DATA',
        `${file}: no prompt named ${name}; it needs ${names.join(', ')}`,
      )
    }
    if (prompt.type !== 'single' || prompt.output_format !== '[[rating]]') {
      throw new WestwindError(
        'ERR_DATA',
        `${file}: ${name} must be of type single with output_format [[rating]], got ` +
          `${prompt.type} with ${prompt.output_format}`,
      )
    }
    return prompt
  }
  return {
    'single-v1': find('single-v1'),
    'single-math-v1': find('single-math-v1'),
    'single-v1-multi-turn': find('single-v1-multi-turn'),
    'single-math-v1-multi-turn': find('single-math-v1-multi-turn'),
  }
}

/** What the judge of one turn is asked. */
export interface JudgeRequest {
  prompt: JudgePrompt
  user_prompt: string
}

/**
 * The question to the judge: of turn 1 about the first answer, of turn 2 about both.
 *
 * @param reference needed in the categories of {@link needsReference}
 * @throws ERR_DATA where a turn or the reference is missing, or the template names an unknown place
 */
export function judgeRequest(
  prompts: JudgePrompts,
  question: Question,
  answer: Answer,
  reference: Answer | undefined,
  turn: number,
): JudgeRequest {
  const byReference = needsReference(question)
  const kind = byReference ? 'single-math-v1' : 'single-v1'
  const prompt = prompts[turn === 1 ? kind : (`${kind}-multi-turn` as const)]
  const turns = turnsOf(answer, question)
  const values: Record<string, string> =
    turn === 1
      ? { question: question.turns[0]!, answer: turns[0]! }
      : {
          question_1: question.turns[0]!,
          question_2: question.turns[1]!,
          answer_1: turns[0]!,
          answer_2: turns[1]!,
        }
  if (byReference) {
    if (!reference) {
      const { question_id, category } = question
      throw new WestwindError(
        'ERR_DATA',
        `question ${question_id} (${category}) is judged beside a reference answer, and there is ` +
          "none; give FastChat's reference_answer/gpt-4.jsonl as --references",
      )
    }
    const expected = turnsOf(reference, question)
    values.ref_answer_1 = expected[0]!
    if (expected[1] !== undefined) values.ref_answer_2 = expected[1]
  }
  return { prompt, user_prompt: format(prompt, values) }
}

/** The turns of the first choice: the one that is judged. */
function turnsOf({ choices, model_id }: Answer, { question_id, turns }: Question): string[] {
  const said = choices[0]!.turns
  if (said.length >= turns.length) return said
  throw new WestwindError(
    'ERR_DATA',
    `the answer of ${model_id} to question ${question_id} has ${said.length} of ${turns.length} turns`,
  )
}

/** Python's `str.format` with named places. */
function format({ name, prompt_template }: JudgePrompt, values: Record<string, string>): string {
  return prompt_template.replace(/\{\{|\}\}|\{([^{}]*)\}/g, (found, place?: string) => {
    if (place === undefined) return found[0]!
    const value = Object.hasOwn(values, place) ? values[place] : undefined
    if (value !== undefined) return value
    throw new WestwindError(
      'ERR_DATA',
      `judge prompt ${name}: unknown place {${place}}; there are ${Object.keys(values).join(', ')}`,
    )
  })
}
