import { appendFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { device } from '../../src/device/device.js'
import { honest } from '../feedback/judge.js'
import { cliBuilt } from '../support/cli.js'
import { startTeacher, type TeacherServer } from '../support/teacher.js'
import { Pipeline, runAsProcess, sha, workFolder } from './support.js'

let root: string
let teacher: TeacherServer

beforeAll(async () => {
  root = await workFolder()
  teacher = await startTeacher(async (request) => {
    await new Promise((resolve) => setTimeout(resolve, 10))
    return honest(request)
  })
})

afterAll(async () => {
  await teacher.close()
  expect(device('cpu').stats()).toMatchObject({ liveBytes: 0, forgottenTensors: 0 })
  await rm(root, { recursive: true, force: true })
})

/** dSFT, answers of what it left, scores of the teacher on loopback, dDPO, evaluations, report. */
async function create(name: string): Promise<Pipeline> {
  const p = await Pipeline.create(root, name)
  const { dataset_name: _, ...dpo } = p.dpo ?? {}
  p.dpo = { ...dpo, do_eval: true }
  await mkdir(join(p.folder, 'data/prompts'))
  const prompts = Array.from({ length: 8 }, (_, i) => ({ prompt: `say in ${i}` }))
  const lines = prompts.map((row) => `${JSON.stringify(row)}\n`).join('')
  await writeFile(join(p.folder, 'data/prompts/train.jsonl'), lines)
  await writeFile(join(p.folder, 'data/text.jsonl'), '{"text":"from model to it"}\n')
  const sampling = { max_tokens: 6 }
  p.more = {
    feedback: {
      prompts: { data: join(p.folder, 'data/prompts') },
      models: [
        { stage: 'sft', name: 'a', sampling },
        { stage: 'sft', name: 'b', sampling },
      ],
      generate: { per_prompt: 2 },
      teacher: { base_url: teacher.url, model: 'judge' },
      rate: { aspects: ['helpfulness'], concurrency: 1 },
      binarize: { test_size: 2 },
    },
    eval: [
      { task: 'perplexity', models: ['sft', 'dpo'], data: join(p.folder, 'data/text.jsonl') },
      { task: 'preferences', kl_samples: 1, max_new_tokens: 4 },
    ],
    report: {},
  }
  return p
}

const stages = [
  ...['sft', 'generate', 'rate', 'binarize', 'dpo'],
  ...['perplexity/sft', 'perplexity/dpo', 'preferences/dpo', 'report'],
]
const all = (outcome: string) => Object.fromEntries(stages.map((stage) => [stage, outcome]))

it('the whole way runs once, then nothing; what changed runs alone, and nothing is paid for twice', async () => {
  const p = await create('whole')
  const first = await p.run()
  expect(first.outcomes).toEqual(all('ran'))
  expect(first.said).toMatch(/rate: done in 0:\d\d, 8 prompts, 8 rated, 0 quarantined, 0 pending/)
  expect(first.said).toMatch(/binarize: done in 0:\d\d, 6 pairs to train on, 2 held out/)
  const html = await readFile(p.out('report.html'), 'utf8')
  expect(html).toContain('perplexity')
  const paid = teacher.log.length
  expect(paid).toBe(8 * 2) // helpfulness and the overall score

  expect((await p.run()).outcomes).toEqual(all('skipped'))

  const feedback = p.more.feedback as Record<string, unknown>
  p.more.feedback = { ...feedback, binarize: { test_size: 2, rejected: 'lowest' } }
  const { outcomes, said } = await p.run()
  expect(said).toContain('binarize: runs, rejected was "random", is "lowest"\n')
  for (const stage of ['sft', 'generate', 'rate', 'perplexity/sft']) {
    expect(outcomes[stage]).toBe('skipped')
  }
  expect(outcomes.binarize).toBe('ran')

  await appendFile(join(p.folder, 'data/text.jsonl'), '{"text":"a"}\n')
  const evaluated = await p.run()
  expect(evaluated.outcomes).toEqual({
    ...all('skipped'),
    ...{ 'perplexity/sft': 'ran', 'perplexity/dpo': 'ran', report: 'ran' },
  })
  expect(teacher.log.length).toBe(paid)
}, 60_000)

it('a dry run tells requests and answers, and a preset its rule for rejected answers', async () => {
  const p = await create('dry')
  await p.run({ until: 'sft' })
  p.keys = { preset: 'handbook-v0.2' }
  p.dpo = { ...p.dpo, max_prompt_length: 64 }
  const { said } = await p.run({ dryRun: true })
  expect(said).toContain('    8 prompts, 16 answers of local models, 0 requests to endpoints\n')
  expect(said).toContain(`    teacher: judge at ${teacher.url}\n`)
  expect(said).toContain(
    '    preset handbook-v0.2: rejected zephyr-beta (ultrafeedback_binarized of October 2023)\n',
  )
})

it('what is wrong in the sections is said with line and key', async () => {
  const p = await create('wrong')
  const feedback = p.more.feedback as Record<string, unknown>
  const text = async () =>
    p.run({ dryRun: true }).then(String, (error: Error) => error.message.replaceAll(p.file, 'p'))
  p.more.feedback = { ...feedback, promts: {}, rate: { shufles: 2 } }
  expect(await text()).toMatch(
    /^2 problems in the recipe:\np:\d+: feedback: rate\.shufles: unknown key; did you mean shuffles\?\np:\d+: feedback: promts: unknown key; did you mean prompts\?$/,
  )
  p.more.feedback = { ...feedback, binarize: { rejectd: 'lowest' } }
  expect(await text()).toMatch(
    /^p:\d+: feedback: binarize\.rejectd: unknown key; did you mean rejected\?$/,
  )
  p.more.feedback = { ...feedback, teacher: undefined }
  expect(await text()).toContain('prompts need a teacher that scores the answers')
  p.more = { eval: [{ task: 'perplexty', data: 'x' }] }
  expect(await text()).toContain('dpo')
  p.dpo = { ...p.dpo, dataset_name: p.data('dpo') }
  expect(await text()).toMatch(
    /^p:\d+: eval\[0\]: task: "perplexty" is no task; did you mean perplexity\?$/,
  )
  p.more = { eval: [{ task: 'perplexity', data: 3 }] }
  expect(await text()).toMatch(/^p:\d+: eval\[0\]: data must be a file or a list of files, got 3$/)
})

it('does not begin where a file of a later stage is missing', async () => {
  const p = await create('missing')
  p.more = { ...p.more, eval: [{ task: 'arc', data: 'no.jsonl' }] }
  await expect(p.run()).rejects.toThrow('eval[0]: data: no.jsonl, which is not there')
  expect((await p.run({ dryRun: true })).said).toContain(
    '] arc/dpo: runs, after dpo; needs no.jsonl, which is not there\n',
  )
})

it.skipIf(!cliBuilt)(
  'killed while answers are generated and rated, it ends the same and repeats no paid request',
  async () => {
    const whole = await create('never-killed')
    await whole.run()
    const before = teacher.log.length
    const killed = await create('killed')
    await killed.write()
    const rated = () => teacher.log.filter(({ answered }) => answered).length - before
    const moments = [
      killed.has('generate/generate.journal.jsonl'),
      () => rated() >= 3,
      () => rated() >= 9,
    ]
    for (const moment of moments) expect((await runAsProcess(killed, moment)).code).toBeNull()
    const last = await runAsProcess(killed)
    expect(last.stderr).toContain('[3/9] rate: goes on, it was stopped before its end')
    expect(last.code).toBe(0)
    for (const file of ['sft/model.safetensors', 'rate/ratings.jsonl', 'dpo/model.safetensors']) {
      expect(await sha(killed.out(file)), file).toBe(await sha(whole.out(file)))
    }
    const paid = teacher.log.slice(before).filter(({ answered }) => answered)
    expect(paid.length).toBeLessThanOrEqual(16 + 2) // at most the one in flight at each kill
  },
  90_000,
)
