import { join } from 'node:path'
import type { Message } from '../data/conversation.js'
import { WestwindError } from '../errors.js'
import { bounded } from '../teacher/bounded.js'
import { nothing, type Spent, sum } from '../teacher/budget.js'
import { Desk, estimate, isOfOneQuestion, type Question } from '../teacher/desk.js'
import { type Endpoint, endpointSchema } from '../teacher/endpoint.js'
import { Meter } from '../teacher/meter.js'
import type { ProgressStream } from '../train/progress.js'
import type { FeedbackConfig, PoolModel } from './config.js'
import { shuffled } from './draw.js'
import { modelName, section } from './load-config.js'
import { localAnswers } from './local-answers.js'
import { type Lines, writeLines, writeManifest } from './output.js'
import { loadPrinciples, type Principle } from './principles.js'
import { type FeedbackPrompt, readPrompts } from './prompts.js'
import { sha256 } from './ratings.js'

export const completionsName = 'completions.jsonl'
export const refusedName = 'completions.quarantine.jsonl'

export interface StepOptions {
  signal?: AbortSignal | undefined
  /** Progress and remarks. */
  stream?: ProgressStream | undefined
}

/** Prompts in = completed + quarantined + pending. */
export interface GenerateCounts {
  prompts: number
  completed: number
  /** A model cannot be asked: the prompt is too long for it, or its endpoint refuses it. */
  quarantined: number
  pending: number
}

/** What a dry run finds: requests to endpoints that a run would make, and the most they would use. */
export interface Estimate {
  prompts: number
  /** Answers that local models would write. */
  local: number
  most: Spent
}

/** A model of the pool, with the endpoint it has or the folder it is. */
interface Member {
  name: string
  pool: PoolModel
  endpoint: Endpoint | undefined
  /** What the journal knows it by. */
  asked: { model: string }
}

/** One answer to get: a prompt, one of its models, and the system prompt that was drawn. */
interface Job {
  prompt: FeedbackPrompt
  member: Member
  principle: Principle | undefined
  question: Question
}

interface Plan {
  prompts: FeedbackPrompt[]
  members: Member[]
  /** Of every prompt, in the order of its models. */
  jobs: Job[][]
  notes: string[]
  principlesSha256: string | undefined
}

/**
 * Answers of k of n models to every prompt, into `output_dir/completions.jsonl`: a line per prompt that has
 * all k. Each answer is in the journal first, so that a run that ended anywhere goes on from there.
 *
 * @throws what stopped it, ERR_BUDGET for example; what was answered by then is written
 */
export async function generateAnswers(
  config: FeedbackConfig,
  options: StepOptions = {},
): Promise<GenerateCounts> {
  const { signal, stream } = options
  const plan = await planOf(config, signal)
  const dir = config.output_dir
  const file = journalFile(dir, 'generate')
  const desk = await Desk.open(file, config.generate.budget, signal)
  try {
    const all = plan.jobs.flat()
    const open = all.filter(({ member, question }) => !desk.has(member.asked, question))
    const meter = new Meter({
      label: 'generate',
      total: all.length,
      done: all.length - open.length,
      stream,
    })
    for (const note of plan.notes) meter.note(note)
    if (desk.journal.repaired > 0) meter.note(repairNote(file, desk.journal.repaired))
    const refused = new Map<Question, string>()
    let failure: unknown
    try {
      failure = await askEndpoints(config, desk, open, refused, meter)
      for (const member of plan.members) {
        if (member.endpoint) continue
        const jobs = all.filter((job) => job.member === member)
        await askLocal(config, desk, member, jobs, refused, meter, signal)
      }
    } catch (cause) {
      failure = cause
    }
    meter.close(desk.spent)
    const counts = { prompts: plan.prompts.length, completed: 0, quarantined: 0, pending: 0 }
    const models = new Map<string, number>()
    await writeLines(dir, [completionsName, refusedName], rows(desk, plan, refused, counts, models))
    await writeManifest(dir, 'generate', {
      config_sha256: sha256(JSON.stringify(config)),
      seed: config.seed,
      prompts: config.prompts,
      models: plan.members.map(({ name, pool, endpoint }) => ({
        name,
        ...(endpoint
          ? { base_url: endpoint.base_url, model: endpoint.model }
          : { path: pool.path }),
        price: pool.price,
        sampling: pool.sampling,
      })),
      answered_by: Object.fromEntries([...models].sort(([a], [b]) => (a < b ? -1 : 1))),
      principles: config.principles && { ...config.principles, sha256: plan.principlesSha256 },
      counts,
      spent: desk.budget.spent,
    })
    if (failure !== undefined) throw pendingError(failure, counts)
    return counts
  } finally {
    await desk.close()
  }
}

/** What a run would ask, without asking: most tokens and money, at a token per 4 bytes and `max_tokens` each. */
export async function estimateGenerate(
  config: FeedbackConfig,
  options: StepOptions = {},
): Promise<Estimate> {
  const { prompts, jobs } = await planOf(config, options.signal)
  const desk = await Desk.peek(journalFile(config.output_dir, 'generate'))
  const open = jobs.flat().filter(({ member, question }) => !desk.has(member.asked, question))
  const most = open.reduce((all, { member: { endpoint }, question }) => {
    return endpoint ? sum(all, estimate(question, endpoint.price)) : all
  }, nothing)
  const local = open.filter(({ member }) => !member.endpoint).length
  return { prompts: prompts.length, local, most }
}

export function journalFile(dir: string, step: string): string {
  return join(dir, `${step}.journal.jsonl`)
}

export function repairNote(file: string, bytes: number): string {
  return `${file}: the last line was not finished (${bytes} bytes) and is cut off`
}

/** With what is still to do, where another run would do it. */
export function pendingError(failure: unknown, counts: { pending: number }): unknown {
  if (!isOfOneQuestion(failure)) return failure
  return new WestwindError(
    failure.code,
    `${counts.pending} prompts are pending. ${failure.message}. Run the same command again to ask for them alone.`,
  )
}

async function planOf(config: FeedbackConfig, signal: AbortSignal | undefined): Promise<Plan> {
  const { seed, generate } = config
  const members = section(config, 'models').map(memberOf)
  const { prompts, notes } = await readPrompts(section(config, 'prompts'), seed, signal)
  const principles = config.principles && (await loadPrinciples(config.principles, seed))
  const jobs = prompts.map((prompt) => {
    const { prompt_id, source, instruction } = prompt
    const order = shuffled(members, ({ name }) => name, 'models', `${seed}`, prompt_id)
    return order.slice(0, generate.per_prompt).map((member): Job => {
      const principle = principles?.draw(source, prompt_id, member.name)
      const { temperature, top_p, max_tokens, stop } = member.pool.sampling
      const system = principle && { role: 'system', content: principle.custom_system_prompt }
      const messages: Message[] = [
        ...(system ? [system] : []),
        { role: 'user', content: instruction },
      ]
      const settings = { temperature, top_p, max_tokens, ...(stop && { stop }) }
      const id = `${prompt_id}/${member.name}`
      return { prompt, member, principle, question: { stage: 'generate', id, messages, settings } }
    })
  })
  const principlesSha256 = principles && sha256(principles.text)
  return { prompts, members, jobs, notes, principlesSha256 }
}

function memberOf(pool: PoolModel): Member {
  const { base_url, model, api_key_env, timeout, max_retries, price, path } = pool
  const name = modelName(pool)
  if (path !== undefined) {
    // Two members may be one folder: each has answers of its own.
    return { name, pool, endpoint: undefined, asked: { model: `${path} as ${name}` } }
  }
  const keys = { base_url, model, api_key_env, timeout, max_retries, price }
  const endpoint = endpointSchema.parse(keys)
  return { name, pool, endpoint, asked: endpoint }
}

/** @returns the last failure that concerned one question alone */
async function askEndpoints(
  { generate }: FeedbackConfig,
  desk: Desk,
  open: readonly Job[],
  refused: Map<Question, string>,
  meter: Meter,
): Promise<unknown> {
  let failure: unknown
  const remote = open.filter(({ member }) => member.endpoint)
  await bounded(remote, generate.concurrency, async ({ member, question }) => {
    if (!member.endpoint) return
    try {
      await desk.ask(member.endpoint, question)
      meter.tick(desk.spent)
    } catch (cause) {
      if (!isOfOneQuestion(cause)) throw cause
      if (cause.code === 'ERR_REFUSED') refused.set(question, cause.message)
      else failure = cause
    }
  })
  return failure
}

async function askLocal(
  { seed }: FeedbackConfig,
  desk: Desk,
  { name, pool, asked }: Member,
  jobs: readonly Job[],
  refused: Map<Question, string>,
  meter: Meter,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (pool.path === undefined) return
  const conversations = jobs.map(({ question }) => question.messages)
  await localAnswers({ ...pool, path: pool.path }, conversations, {
    seed: Number.parseInt(sha256('sampling', `${seed}`, name).slice(0, 8), 16),
    signal,
    isDone: (i) => desk.has(asked, jobs[i]!.question),
    async done(i, answer) {
      await desk.record(asked, jobs[i]!.question, { ...answer, model: name })
      meter.tick(desk.spent)
    },
    refused: (i, why) => refused.set(jobs[i]!.question, `${name}: ${why}`),
  })
}

/** The lines of both files, in the order of the prompts; counts them on the way. */
async function* rows(
  desk: Desk,
  { jobs }: Plan,
  refused: ReadonlyMap<Question, string>,
  counts: GenerateCounts,
  models: Map<string, number>,
): Lines {
  for (const ofPrompt of jobs) {
    const { prompt_id, source, instruction } = ofPrompt[0]!.prompt
    const answers = await Promise.all(
      ofPrompt.map(({ member, question }) => desk.find(member.asked, question)),
    )
    const reasons = ofPrompt.flatMap(({ question }) => refused.get(question) ?? [])
    const completions = ofPrompt.flatMap(({ member, principle }, i) => {
      const answer = answers[i]
      if (!answer) return []
      const { text, finish_reason, refusal, usage, model } = answer
      models.set(model, (models.get(model) ?? 0) + 1)
      const response = withoutEnd(text === '' && refusal ? refusal : text, member.pool.end_markers)
      return { model: member.name, ...principle, response, finish_reason, usage }
    })
    const names = ofPrompt.map(({ member }) => member.name)
    const row = { prompt_id, source, instruction, models: names }
    if (completions.length === ofPrompt.length) {
      counts.completed++
      yield { file: completionsName, value: { ...row, completions } }
    } else if (reasons.length > 0) {
      counts.quarantined++
      yield { file: refusedName, value: { ...row, reasons } }
    } else {
      counts.pending++
    }
  }
}

/** Takes an end marker off as a whole: never a set of characters, which would eat into words. */
export function withoutEnd(text: string, markers: readonly string[]): string {
  const trimmed = text.trimEnd()
  const marker = markers.find((one) => trimmed.endsWith(one))
  return marker === undefined ? text : trimmed.slice(0, -marker.length).trimEnd()
}
