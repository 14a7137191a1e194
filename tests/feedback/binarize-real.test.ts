import { mkdtempSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { type Row, readRows } from '../../src/data/read-rows.js'
import { type BinarizeOptions, binarize } from '../../src/feedback/binarize.js'
import { sharedPath } from '../support/shared.js'

// Rated answers of which others made pairs by the rule overall, random.

const data = sharedPath('data')
const dir = mkdtempSync(join(tmpdir(), 'westwind-binarize-'))
afterAll(() => rm(dir, { recursive: true, force: true }))

interface Completion {
  model: string
  response: string
  overall_score: number
  /** What overall_score was rounded from. */
  win_prob: number
}

function completions(row: Row): Completion[] {
  const list: Completion[] = []
  if (Array.isArray(row.completions)) list.push(...row.completions)
  return list
}

function lastTurn(messages: unknown): unknown {
  return Array.isArray(messages) ? messages.at(-1)?.content : undefined
}

describe.skipIf(data === undefined)('the ratings of the reference data', () => {
  const ratings = join(data ?? '', 'ultrafeedback_like')
  const input = join(ratings, 'raw.parquet')

  async function pairs(name: string, options: Partial<BinarizeOptions> = {}) {
    const out = join(dir, name)
    const report = await binarize({ input, out, ...options })
    return { report, rows: await readRows(join(out, 'train_prefs.parquet')), out }
  }

  /** Published pairs by the tuple they are of. */
  async function published(): Promise<Map<string, Row>> {
    const found = new Map<string, Row>()
    for (const [split, gz] of [
      ['train_prefs', '.gz'],
      ['test_prefs', ''],
    ] as const) {
      const rows = await readRows(join(ratings, `${split}.parquet`))
      const origins = await readRows(join(ratings, `${split}.meta.jsonl${gz}`))
      for (const [i, row] of rows.entries()) {
        found.set(`${origins[i]!.prompt_id} ${origins[i]!.tuple_id}`, row)
      }
    }
    return found
  }

  it('overall, random: chosen and its score are the published ones, of every tuple with one best answer', async () => {
    const { report, rows } = await pairs('random')
    const raw = await readRows(input)
    const theirs = await published()
    expect(report).toMatchObject({ tuples: raw.length, pairs: raw.length, dropped: {} })
    expect(theirs.size).toBe(raw.length)
    let severalBest = 0
    let sameRejected = 0
    for (const [i, ours] of rows.entries()) {
      const answers = completions(raw[i]!)
      const their = theirs.get(`${raw[i]!.prompt_id} ${raw[i]!.tuple_id}`)!
      const { prompt, prompt_id, chosen, messages, score_chosen } = their
      expect(ours).toMatchObject({ prompt, prompt_id, score_chosen })
      const highest = Math.max(...answers.map(({ win_prob }) => win_prob))
      const best = answers.filter(({ win_prob }) => win_prob === highest)
      if (best.length === 1) expect(ours).toMatchObject({ chosen, messages })
      else severalBest++ // in every number the file has: nothing says which of them is taken
      for (const { chosen, rejected, score_rejected } of [ours, their]) {
        const texts = best.map(({ response }) => response)
        expect(texts).toContain(lastTurn(chosen))
        const others = answers.filter(({ response }) => response !== lastTurn(chosen))
        // theirs was drawn by a generator that is not known: ours is another draw
        const answer = others.find(({ response }) => response === lastTurn(rejected))
        expect(score_rejected).toBe(answer?.overall_score)
      }
      if (lastTurn(ours.rejected) === lastTurn(their.rejected)) sameRejected++
    }
    expect(severalBest).toBeLessThan(0.001 * raw.length)
    expect(Math.abs(sameRejected / raw.length - 1 / 3)).toBeLessThan(0.04) // 4 standard deviations
  })

  it('give the same pairs from JSON Lines, and lowest rejects the worst answer', async () => {
    const { rows, report } = await pairs('lowest', { rejected: 'lowest' })
    const jsonl = { input: join(ratings, 'raw.jsonl.gz'), rejected: 'lowest' as const }
    expect((await pairs('jsonl', jsonl)).rows).toEqual(rows)
    const raw = await readRows(input)
    expect(report.pairs).toBe(raw.length)
    for (const [i, { score_chosen, score_rejected }] of rows.entries()) {
      const scores = completions(raw[i]!).map((one) => one.overall_score)
      expect([score_chosen, score_rejected]).toEqual([Math.max(...scores), Math.min(...scores)])
    }
  })

  it('zephyr-beta rejects the first answer, or the third where the first is chosen', async () => {
    const { rows } = await pairs('beta', { rejected: 'zephyr-beta' })
    const raw = await readRows(input)
    for (const [i, { chosen, rejected }] of rows.entries()) {
      const texts = completions(raw[i]!).map(({ response }) => response)
      expect(lastTurn(rejected)).toBe(texts[lastTurn(chosen) === texts[0] ? 2 : 0])
    }
  })

  it('are all prompts of one evaluation set, and of others the questions they took over', async () => {
    const alpaca = join(data ?? '', 'alpaca_eval/instructions.jsonl')
    await expect(pairs('none', { decontaminate: [alpaca] })).rejects.toThrow(
      /no pair is left: \d+: the prompt overlaps an evaluation set$/,
    )
    const vicuna = join(data ?? '', 'mt_bench/vicuna_bench_question.jsonl')
    const { report, rows } = await pairs('clean', { decontaminate: [vicuna] })
    const questions = await readRows(vicuna)
    const prompts = new Set(rows.map(({ prompt }) => prompt))
    for (const { turns } of questions) {
      if (Array.isArray(turns)) expect(prompts.has(turns[0])).toBe(false)
    }
    const raw = await readRows(input)
    const own = raw.filter(({ source }) => source === 'alpaca_eval/vicuna').length
    expect(report.decontamination!.sets[0]!.hits).toBeGreaterThan(0)
    expect(report.decontamination!.sets[0]!.hits).toBeLessThanOrEqual(own)
  })

  it.each(['raw_autoj.parquet', 'raw_mt_bench.jsonl.gz'])(
    '%s gives pairs and every tuple is accounted for',
    async (name) => {
      const { report } = await pairs(name, { input: join(ratings, name), ties: 'drop' })
      const dropped = Object.values(report.dropped).reduce((sum, count) => sum + count, 0)
      expect(report.pairs).toBeGreaterThan(0)
      expect(report.pairs + dropped).toBe(report.tuples)
    },
  )

  it('have no ratings of aspects to choose by', async () => {
    await expect(pairs('aspects', { chosen: 'mean_aspects' })).rejects.toThrow(
      /No answer has ratings of aspects: choose by overall$/,
    )
  })
})
