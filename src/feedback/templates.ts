import { join } from 'node:path'
import { Template } from '@huggingface/jinja'
import { z } from 'zod'
import { WestwindError } from '../errors.js'
import { reason } from '../json.js'
import { parseYaml } from '../recipe/source.js'
import { readText, templateDir } from './principles.js'
import { sha256 } from './ratings.js'

const files = ['judge.jinja', 'aspects.yaml'] as const

const text = z.string({ error: 'a text' }).min(1, 'a text')
const aspectSchema = z
  .strictObject({
    title: text,
    task: text,
    least: z.number({ error: 'a number' }),
    most: z.number({ error: 'a number' }),
    not_applicable: z.boolean({ error: 'true or false' }),
    levels: z.record(z.string(), text, { error: 'a text by score' }),
  })
  .refine(({ least, most }) => least < most, { error: 'least must be below most' })
const aspectsSchema = z.record(z.string(), aspectSchema)

/** What the judge is asked of each answer, and the range of the score. */
export type Aspect = z.output<typeof aspectSchema>

export interface Templates {
  aspects: Readonly<Record<string, Aspect>>
  /** Of both files. */
  sha256: string
  /** The text that asks for one aspect of all answers. */
  render(aspect: Aspect, values: JudgeValues): string
}

export interface JudgeValues {
  instruction: string
  answers: readonly string[]
  nonce: string
  structured: boolean
}

/**
 * The judge's templates: those that come with westwind, or of a folder.
 *
 * @throws ERR_CONFIG naming the file and what is wrong, or an aspect that it has not
 */
export async function loadTemplates(
  names: readonly string[],
  dir: string = templateDir,
): Promise<Templates> {
  const [judgeFile, aspectsFile] = [join(dir, files[0]), join(dir, files[1])]
  const [judge, yaml] = [await readText(judgeFile), await readText(aspectsFile)]
  const parsed = aspectsSchema.safeParse(parseYaml(yaml, aspectsFile).values)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw wrong(`${aspectsFile}: ${issue?.path.join('.')}: expected ${issue?.message}`)
  }
  const aspects = parsed.data
  for (const name of names) {
    if (Object.hasOwn(aspects, name)) continue
    throw wrong(`${aspectsFile} has no aspect "${name}", only ${Object.keys(aspects).join(', ')}`)
  }
  const template = guarded(judgeFile, () => new Template(judge))
  return {
    aspects,
    sha256: sha256(judge, yaml),
    render(aspect, values) {
      const levels = Object.entries(aspect.levels)
        .map(([score, text]) => ({ score: Number(score), text }))
        .sort((a, b) => a.score - b.score)
      return guarded(judgeFile, () => template.render({ ...aspect, ...values, levels })).trim()
    },
  }
}

function guarded<T>(file: string, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    throw new WestwindError('ERR_CONFIG', `${file}: ${reason(cause)}`, { cause })
  }
}

function wrong(message: string): WestwindError {
  return new WestwindError('ERR_CONFIG', message)
}

/**
 * A code for the marker lines around what is judged: nobody who wrote an answer knows it, and no text that
 * is judged contains it.
 */
export function nonceOf(texts: readonly string[], ...purpose: string[]): string {
  for (let i = 0; ; i++) {
    const nonce = sha256('nonce', ...purpose, `${i}`).slice(0, 8)
    if (!texts.some((text) => text.includes(nonce))) return nonce
  }
}

/** The JSON schema of a structured reply: a key per answer, so that none can be left out. */
export function replySchema(aspect: Aspect, answers: number): Record<string, unknown> {
  const number = { type: 'number', description: `from ${aspect.least} to ${aspect.most}` }
  const rating = aspect.not_applicable
    ? { anyOf: [number, { type: 'string', enum: ['N/A'] }] }
    : number
  const one = {
    type: 'object',
    properties: { rationale: { type: 'string' }, rating },
    required: ['rationale', 'rating'],
    additionalProperties: false,
  }
  const names = Array.from({ length: answers }, (_, i) => `answer_${i + 1}`)
  return {
    type: 'object',
    properties: Object.fromEntries(names.map((name) => [name, one])),
    required: names,
    additionalProperties: false,
  }
}
