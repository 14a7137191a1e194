import { appendFile, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { device } from '../../src/device/device.js'
import { Pipeline, sha, workFolder } from './support.js'

let root: string
let whole: Pipeline

beforeAll(async () => {
  root = await workFolder()
  whole = await Pipeline.create(root, 'whole')
  const { outcomes } = await whole.run()
  expect(outcomes).toEqual({ sft: 'ran', dpo: 'ran' })
})

afterAll(async () => {
  expect(device('cpu').stats()).toMatchObject({ liveBytes: 0, forgottenTensors: 0 })
  await rm(root, { recursive: true, force: true })
})

const model = 'model.safetensors'

describe('a pipeline that ran', () => {
  it('left the models of its stages, dDPO from what dSFT left', async () => {
    expect(await readdir(whole.out())).toEqual(
      expect.arrayContaining(['dpo', 'pipeline.json', 'sft']),
    )
    const card = await readFile(whole.out('dpo/README.md'), 'utf8')
    expect(card).toContain(`base_model: ${whole.out('sft')}`)
    expect(await sha(whole.out('sft', model))).not.toBe(await sha(whole.out('dpo', model)))
  })

  it('skips every stage the second time, and says so', async () => {
    const before = await sha(whole.out('dpo', model))
    const { outcomes, said, stages } = await whole.run()
    expect(outcomes).toEqual({ sft: 'skipped', dpo: 'skipped' })
    expect(said).toContain('[1/2] sft: skipped, nothing that it depends on has changed')
    expect(stages[1]).toMatchObject({ summary: expect.stringMatching(/^4 steps, train_loss 0/) })
    expect(await sha(whole.out('dpo', model))).toBe(before)
  })

  it('in another folder gives the same weights, bit for bit', async () => {
    const again = await Pipeline.create(root, 'again')
    await again.run()
    for (const stage of ['sft', 'dpo']) {
      expect(await sha(again.out(stage, model))).toBe(await sha(whole.out(stage, model)))
    }
  })
})

describe('what has changed', () => {
  it('a key of dpo runs dpo again, names it, and keeps what was trained', async () => {
    const p = await Pipeline.create(root, 'beta')
    await p.run()
    const [sft, dpo] = [await sha(p.out('sft', model)), await sha(p.out('dpo', model))]
    p.dpo = { ...p.dpo, beta: 0.5 }
    const { outcomes, said } = await p.run()
    expect(outcomes).toEqual({ sft: 'skipped', dpo: 'ran' })
    expect(said).toContain('dpo: runs, beta was 0.1, is 0.5\n')
    expect(said).toContain(`${p.out('dpo')} is kept as ${p.out('previous/dpo-1')}\n`)
    expect(await sha(p.out('sft', model))).toBe(sft)
    expect(await sha(p.out('dpo', model))).not.toBe(dpo)
    expect(await sha(p.out('previous/dpo-1', model))).toBe(dpo)
  })

  it('a data file runs the stage that reads it, and what reads its model', async () => {
    const p = await Pipeline.create(root, 'data')
    await p.run()
    const rows = (await readFile(p.data('sft'), 'utf8')).trim().split('\n')
    await writeFile(p.data('sft'), `${rows.slice(0, 9).join('\n')}\n`)
    const { outcomes, said } = await p.run()
    expect(outcomes).toEqual({ sft: 'ran', dpo: 'ran' })
    expect(said).toContain('sft: runs, data changed (train.jsonl)\n')
    expect(said).toContain('dpo: runs, model changed (model.safetensors)\n')

    const lines = (await readFile(p.data('dpo'), 'utf8')).trim().split('\n')
    await appendFile(p.data('dpo'), `${lines[0]}\n`)
    const next = await p.run()
    expect(next.outcomes).toEqual({ sft: 'skipped', dpo: 'ran' })
    expect(next.said).toContain('dpo: runs, data changed (train.jsonl)\n')
  })

  it('what only decides how a run is logged and saved runs nothing again', async () => {
    const p = await Pipeline.create(root, 'idle')
    await p.run()
    p.sft = { ...p.sft, logging_steps: 1, save_steps: 2, report_to: 'tensorboard' }
    expect((await p.run()).outcomes).toEqual({ sft: 'skipped', dpo: 'skipped' })
  })

  it('a stage that comes out the same leaves those behind it alone', async () => {
    const p = await Pipeline.create(root, 'same')
    await p.run()
    await rm(p.out('sft', model))
    const { outcomes, said } = await p.run()
    expect(said).toContain(`sft: runs, ${p.out('sft', model)} is gone\n`)
    expect(outcomes).toEqual({ sft: 'ran', dpo: 'skipped' })
  })
})

describe('a part of a pipeline', () => {
  it('--until ends with a stage, --from begins with one that needs those before', async () => {
    const p = await Pipeline.create(root, 'part')
    await expect(p.run({ from: 'dpo' })).rejects.toThrow(
      '--from dpo needs what sft leaves, which has not run to its end; leave --from out',
    )
    expect((await p.run({ until: 'sft' })).outcomes).toEqual({ sft: 'ran', dpo: 'left' })
    p.sft = { ...p.sft, learning_rate: 1e-3 }
    const { outcomes, said } = await p.run({ from: 'dpo' })
    expect(outcomes).toEqual({ sft: 'left', dpo: 'ran' })
    expect(said).toContain('[1/2] sft: taken as it is\n')
  })

  it('a stage that does not exist is refused with the nearest name', async () => {
    await expect(whole.run({ until: 'dpoo' })).rejects.toThrow(
      '--until: there is no stage dpoo; did you mean dpo?',
    )
    await expect(whole.run({ from: 'dpo', until: 'sft' })).rejects.toThrow(
      '--until sft comes before --from dpo',
    )
  })

  it('dDPO alone takes its model from the file', async () => {
    const p = await Pipeline.create(root, 'alone')
    p.dpo = { ...p.sft, ...p.dpo, packing: undefined }
    p.sft = undefined
    expect((await p.run()).outcomes).toEqual({ dpo: 'ran' })
  })
})

describe('a dry run', () => {
  it('says what runs and why, steps and data, and writes nothing', async () => {
    const p = await Pipeline.create(root, 'dry')
    p.dpo = { ...p.dpo, max_steps: -1, num_train_epochs: 2 }
    const { outcomes, said } = await p.run({ dryRun: true })
    expect(outcomes).toEqual({ sft: 'planned', dpo: 'planned' })
    expect(said).toContain('[1/2] sft: runs, it never ran here\n')
    expect(said).toMatch(/ {4}data: 24 rows to train on \(\d+ kB\)\n {4}steps: 4 of 2 packed rows/)
    expect(said).toContain('[2/2] dpo: runs, after sft\n')
    expect(said).toContain('    steps: about 24 of 2 pairs, 24 pairs an epoch\n')
    await expect(readdir(p.out())).rejects.toThrow('ENOENT')
  })

  it('says what a change would run again and where the old result goes', async () => {
    const p = await Pipeline.create(root, 'dry-change')
    await p.run()
    const before = await readFile(p.out('pipeline.json'), 'utf8')
    p.sft = { ...p.sft, seed: 1 }
    const { said } = await p.run({ dryRun: true })
    expect(said).toContain('sft: runs, data_seed was 42, is 1; seed was 42, is 1\n')
    expect(said).toContain(`${p.out('sft')} is kept as ${p.out('previous/sft-1')}\n`)
    expect(said).toContain('dpo: runs, if sft, which runs before it, leaves something else\n')
    expect(await readFile(p.out('pipeline.json'), 'utf8')).toBe(before)
  })

  it('names what would be downloaded, without the network', async () => {
    const p = await Pipeline.create(root, 'hub')
    process.env.HF_HUB_CACHE = join(root, 'no-hub')
    p.sft = { ...p.sft, model_name_or_path: 'org/base', dataset_name: 'org/chats' }
    const { said } = await p.run({ dryRun: true })
    delete process.env.HF_HUB_CACHE
    expect(said).toContain(
      'sft: runs, needs org/base, to be downloaded from the Hub; needs org/chats, to be downloaded from the Hub\n',
    )
    expect(said).toContain('    data: org/chats, to be downloaded from the Hub\n')
  })
})
