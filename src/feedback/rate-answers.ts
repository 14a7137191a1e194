import { join } from 'node:path'
import { exists } from '../checkpoint/atomic.js'
import { WestwindError } from '../errors.js'
import { bounded } from '../teacher/bounded.js'
import { nothing, sum } from '../teacher/budget.js'
import { Desk, estimate, isOfOneQuestion } from '../teacher/desk.js'
import { type Endpoint, endpointSchema } from '../teacher/endpoint.js'
import { Meter } from '../teacher/meter.js'
import type { FeedbackConfig } from './config.js'
import {
  completionsName,
  type Estimate,
  journalFile,
  pendingError,
  repairNote,
  type StepOptions,
} from './generate-answers.js'
import { section } from './load-config.js'
import { type Lines, writeLines, writeManifest } from './output.js'
import { type Ask, askedAspects, questionOf, rateTuple } from './rate-tuple.js'
import { sha256 } from './ratings.js'
import { Structured } from './structured.js'
import { loadTemplates, type Templates } from './templates.js'
import { readTuples, type Tuple } from './tuples.js'

export const ratingsName = 'ratings.jsonl'
export const quarantineName = 'quarantine.jsonl'

/** Prompts in = rated + quarantined + pending. */
export interface RateCounts {
  prompts: number
  rated: number
  /** A reply could not be read after all retries, or the endpoint refuses the request. */
  quarantined: number
  pending: number
}

interface Plan {
  endpoint: Endpoint
  input: string
  tuples: Tuple[]
  templates: Templates
}

/**
 * Scores of a teacher for the answers in `completions.jsonl`, into `ratings.jsonl` in `output_dir`; what
 * could not be read goes to `quarantine.jsonl`, with the replies. Each reply is in the journal first, so
 * that a run that ended anywhere goes on from there.
 *
 * @throws what stopped it, ERR_BUDGET for example; what was rated by then is written
 */
export async function rateAnswers(
  config: FeedbackConfig,
  options: StepOptions = {},
): Promise<RateCounts> {
  const { signal, stream } = options
  const { endpoint, input, tuples, templates } = await planOf(config, signal)
  const dir = config.output_dir
  const file = journalFile(dir, 'rate')
  const desk = await Desk.open(file, config.rate.budget, signal)
  try {
    const meter = new Meter({ label: 'rate', total: tuples.length, stream })
    if (desk.journal.repaired > 0) meter.note(repairNote(file, desk.journal.repaired))
    const structured = new Structured(desk, endpoint, config.rate.structured)
    const refused = new Map<Tuple, string>()
    let failure: unknown
    try {
      await bounded(tuples, config.rate.concurrency, async (tuple) => {
        try {
          await rateTuple(tuple, config, templates, (build) => structured.ask(build))
          meter.tick(desk.spent)
        } catch (cause) {
          if (!isOfOneQuestion(cause)) throw cause
          if (cause.code === 'ERR_REFUSED') refused.set(tuple, cause.message)
          else failure = cause
        }
      })
    } catch (cause) {
      failure = cause
    }
    meter.close(desk.spent)
    const counts = { prompts: tuples.length, rated: 0, quarantined: 0, pending: 0 }
    const models = new Map<string, number>()
    const find: Ask = async (build) => {
      const { mode } = structured
      const answer = await desk.find(endpoint, build(mode))
      if (answer) models.set(answer.model, (models.get(answer.model) ?? 0) + 1)
      return answer && { answer, structured: mode }
    }
    const lines = rows(tuples, refused, counts, (tuple) =>
      rateTuple(tuple, config, templates, find),
    )
    await writeLines(dir, [ratingsName, quarantineName], lines)
    const { aspects, shuffles, retries, temperature, top_p, max_tokens } = config.rate
    await writeManifest(dir, 'rate', {
      config_sha256: sha256(JSON.stringify(config)),
      seed: config.seed,
      input,
      judge: {
        base_url: endpoint.base_url,
        model: endpoint.model,
        answered_by: Object.fromEntries([...models].sort(([a], [b]) => (a < b ? -1 : 1))),
        structured: structured.mode,
        price: endpoint.price,
        ...{ temperature, top_p, max_tokens },
      },
      templates_sha256: templates.sha256,
      ...{ aspects, shuffles, retries },
      counts,
      spent: desk.budget.spent,
    })
    if (failure !== undefined) throw pendingError(failure, counts)
    return counts
  } finally {
    await desk.close()
  }
}

/** What a run would ask, without asking and without retries; see `estimateGenerate`. */
export async function estimateRate(
  config: FeedbackConfig,
  options: StepOptions = {},
): Promise<Estimate> {
  const { endpoint, tuples, templates } = await planOf(config, options.signal)
  const desk = await Desk.peek(journalFile(config.output_dir, 'rate'))
  let most = nothing
  for (const tuple of tuples) {
    for (const name of askedAspects(config)) {
      for (let shuffle = 0; shuffle < config.rate.shuffles; shuffle++) {
        const build = (structured: boolean) =>
          questionOf(tuple, name, shuffle, 0, structured, config, templates)
        if (desk.has(endpoint, build(true)) || desk.has(endpoint, build(false))) continue
        most = sum(most, estimate(build(config.rate.structured !== 'off'), endpoint.price))
      }
    }
  }
  return { prompts: tuples.length, local: 0, most }
}

async function planOf(config: FeedbackConfig, signal: AbortSignal | undefined): Promise<Plan> {
  const endpoint = endpointSchema.parse(section(config, 'teacher'))
  const input = config.rate.input ?? join(config.output_dir, completionsName)
  if (!(await exists(input))) {
    throw new WestwindError(
      'ERR_DATA',
      `${input} is not there: run westwind feedback generate first`,
    )
  }
  const templates = await loadTemplates(askedAspects(config), config.rate.templates)
  return { endpoint, input, tuples: await readTuples(input, signal), templates }
}

/** The lines of both files, in the order of the tuples; counts them on the way. */
async function* rows(
  tuples: readonly Tuple[],
  refused: ReadonlyMap<Tuple, string>,
  counts: RateCounts,
  outcomeOf: (tuple: Tuple) => ReturnType<typeof rateTuple>,
): Lines {
  for (const tuple of tuples) {
    const outcome = await outcomeOf(tuple)
    const reason = refused.get(tuple)
    if (outcome.kind === 'rated') {
      counts.rated++
      yield { file: ratingsName, value: outcome.row }
    } else if (outcome.kind === 'quarantined') {
      counts.quarantined++
      yield { file: quarantineName, value: outcome.row }
    } else if (reason !== undefined) {
      counts.quarantined++
      const { prompt_id = tuple.promptId, tuple_id, source } = tuple.row
      yield { file: quarantineName, value: { prompt_id, tuple_id, source, reason, attempts: [] } }
    } else {
      counts.pending++
    }
  }
}
