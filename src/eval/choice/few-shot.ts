import { PythonRandom } from '../../data/python-random.js'
import { WestwindError } from '../../errors.js'
import { groupBy } from '../statistics.js'
import type { ChoiceDocument, ChoiceTask } from './document.js'

/** lm-evaluation-harness's seed of few-shot examples. */
const seed = 1234

/**
 * The prompts of documents, in their order: description, `n` answered examples, question. With `random` examples the
 * draws follow one another, so a prompt depends on how many documents came before it.
 */
export function* prompts(
  task: ChoiceTask,
  documents: readonly ChoiceDocument[],
  n: number,
  pool: readonly ChoiceDocument[],
  preset: string | undefined,
): Generator<string> {
  const examples: Sampler = n === 0 ? () => [] : sampler(task, n, pool)
  const before = preset === undefined ? '' : `${preset}\n\n`
  for (const document of documents) {
    const shots = examples(document)
    const description = task.description?.(document) ?? ''
    yield description + before + shots.map(answered).join('') + document.context
  }
}

function answered({ context, choices, gold }: ChoiceDocument): string {
  return `${context} ${choices[gold]}\n\n`
}

type Sampler = (document: ChoiceDocument) => ChoiceDocument[]

function sampler(task: ChoiceTask, n: number, pool: readonly ChoiceDocument[]): Sampler {
  if (task.fewShot === 'first') {
    const groups = groupBy(pool, ({ group }) => group)
    return ({ group }) => {
      const examples = groups.get(group) ?? []
      if (examples.length >= n) return examples.slice(0, n)
      throw tooFew(n, examples.length, group === undefined ? '' : ` of ${group}`)
    }
  }
  const needed = task.drawsOneMore ? n + 1 : n
  if (pool.length < needed) throw tooFew(needed, pool.length, '')
  const random = new PythonRandom(seed)
  if (!task.drawsOneMore) return () => random.sample(pool, n)
  return (document) => {
    const other = (example: ChoiceDocument) => !same(example, document)
    const drawn = random.sample(pool, needed).filter(other).slice(0, n)
    if (drawn.length === n) return drawn
    const others = pool.filter(other)
    if (others.length < n) throw tooFew(n, others.length, ' other than the question')
    return random.sample(others, n)
  }
}

function same(a: ChoiceDocument, b: ChoiceDocument): boolean {
  return (
    a.context === b.context &&
    a.gold === b.gold &&
    a.choices.length === b.choices.length &&
    a.choices.every((choice, i) => choice === b.choices[i])
  )
}

function tooFew(needed: number, there: number, which: string): WestwindError {
  return new WestwindError(
    'ERR_DATA',
    `fewshot: ${needed} examples${which} are needed, fewshotRows has ${there}`,
  )
}
