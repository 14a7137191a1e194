import { z } from 'zod'
import { readRows } from '../../data/read-rows.js'
import { WestwindError } from '../../errors.js'
import { parseRow } from '../rows.js'

/** A line of FastChat's `question.jsonl`. */
export interface Question {
  question_id: number
  category: string
  turns: string[]
}

/** A line of FastChat's `model_answer/*.jsonl` and `reference_answer/*.jsonl`. */
export interface Answer {
  question_id: number
  answer_id: string
  model_id: string
  choices: { index: number; turns: string[] }[]
  tstamp: number
}

/** Sampling temperature by category, as FastChat has it; 0.7 for others. */
export const temperatures: Readonly<Record<string, number>> = {
  writing: 0.7,
  roleplay: 0.7,
  extraction: 0,
  math: 0,
  coding: 0,
  reasoning: 0,
  stem: 0.1,
  humanities: 0.1,
}

export function temperatureOf({ category }: Question): number {
  return temperatures[category] ?? 0.7
}

/** Categories whose answers are judged beside a reference answer. */
const withReference: ReadonlySet<string> = new Set(['math', 'reasoning', 'coding'])

export function needsReference({ category }: Question): boolean {
  return withReference.has(category)
}

const questionSchema = z.object({
  question_id: z.number().int(),
  category: z.string().min(1),
  turns: z.array(z.string()).min(1),
})
const answerSchema = z.object({
  question_id: z.number().int(),
  answer_id: z.string(),
  model_id: z.string(),
  choices: z.array(z.object({ index: z.number().int(), turns: z.array(z.string()) })).min(1),
  tstamp: z.number(),
})

/** @throws ERR_DATA naming file and line; also where an id comes twice */
export async function readQuestions(file: string): Promise<Question[]> {
  const rows = await readRows(file)
  const questions = rows.map((row, i) => parseRow(questionSchema, row, `${file}:${i + 1}`))
  if (questions.length === 0) throw new WestwindError('ERR_DATA', `${file}: no questions`)
  const seen = new Set<number>()
  for (const { question_id } of questions) {
    if (seen.has(question_id)) {
      throw new WestwindError('ERR_DATA', `${file}: question_id ${question_id} comes twice`)
    }
    seen.add(question_id)
  }
  return questions
}

/** Answers by question; of two for one question the later. @throws ERR_DATA naming file and line */
export async function readAnswers(file: string): Promise<Map<number, Answer>> {
  const rows = await readRows(file)
  const answers = rows.map((row, i) => parseRow(answerSchema, row, `${file}:${i + 1}`))
  return new Map(answers.map((answer) => [answer.question_id, answer]))
}
