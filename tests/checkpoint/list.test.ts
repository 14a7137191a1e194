import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { atomicDirectory } from '../../src/checkpoint/atomic.js'
import {
  checkpointPath,
  latestCheckpoint,
  listCheckpoints,
  pruneCheckpoints,
} from '../../src/checkpoint/list.js'
import { saveModelDir } from '../../src/checkpoint/save.js'
import { writeTrainerState } from '../../src/checkpoint/training-state.js'
import { temporaryDirectory, tinyModel, tinyState } from './tiny-model.js'

const root = temporaryDirectory()
let dir = ''
let count = 0
beforeEach(() => {
  dir = join(root, String(count++))
})

async function save(...steps: number[]): Promise<void> {
  for (const step of steps) {
    await atomicDirectory(checkpointPath(dir, step), async (tmp) => {
      await saveModelDir(tmp, tinyModel(step))
      await writeTrainerState(tmp, tinyState(step))
    })
  }
}
const steps = async () => (await listCheckpoints(dir)).map(({ step }) => step)

describe('listCheckpoints and latestCheckpoint', () => {
  it('find nothing where there is no directory yet', async () => {
    expect(await listCheckpoints(dir)).toEqual([])
    expect(await latestCheckpoint(dir)).toBeUndefined()
  })

  it('sort by step, not by name', async () => {
    await save(100, 20, 3)
    expect(await steps()).toEqual([3, 20, 100])
    expect(await latestCheckpoint(dir)).toEqual({ step: 100, path: join(dir, 'checkpoint-100') })
  })

  it.each<[string, (path: string) => void]>([
    ['trainer_state.json', (path) => rmSync(join(path, 'trainer_state.json'))],
    ['config.json', (path) => rmSync(join(path, 'config.json'))],
    ['model.safetensors', (path) => rmSync(join(path, 'model.safetensors'))],
    ['cut short', (path) => truncateSync(join(path, 'model.safetensors'), 900)],
    ['step 20', (path) => renameSync(path, path.replace('20', '30'))],
  ])('pass over an incomplete one and say why: %s', async (reason, damage) => {
    await save(10, 20)
    damage(join(dir, 'checkpoint-20'))
    const skipped: string[] = []
    expect((await latestCheckpoint(dir, (_, why) => skipped.push(why)))?.step).toBe(10)
    expect(skipped).toHaveLength(1)
    expect(skipped[0]).toContain(reason)
  })

  it('pay no attention to other names', async () => {
    await save(10)
    for (const name of ['checkpoint-', 'checkpoint-1x', 'checkpoint-01', 'runs']) {
      mkdirSync(join(dir, name))
    }
    writeFileSync(join(dir, 'checkpoint-5'), 'a file')
    expect(await steps()).toEqual([10])
  })

  it('bring back a version whose replacement was cut off', async () => {
    await save(10)
    const dead = spawnSync('true').pid
    renameSync(join(dir, 'checkpoint-10'), join(dir, `.checkpoint-10.old-${dead}-0123456789ab`))
    expect(await steps()).toEqual([10])
  })
})

describe('pruneCheckpoints', () => {
  it('deletes the oldest, keeps the newest and those to be kept', async () => {
    await save(10, 20, 30, 40)
    expect(await pruneCheckpoints(dir, 3)).toEqual([10])
    expect(await pruneCheckpoints(dir, 2, [20])).toEqual([30])
    expect(await steps()).toEqual([20, 40])
    expect(await pruneCheckpoints(dir, 1, [20])).toEqual([])
    expect(await pruneCheckpoints(dir, 0)).toEqual([])
    expect(await pruneCheckpoints(dir, undefined)).toEqual([])
    expect(readdirSync(dir).sort()).toEqual(['checkpoint-20', 'checkpoint-40'])
  })

  it('does not touch checkpoints of another trainer', async () => {
    await save(20, 30)
    mkdirSync(join(dir, 'checkpoint-10'))
    writeFileSync(join(dir, 'checkpoint-10', 'trainer_state.json'), '{"global_step":10}')
    expect(await pruneCheckpoints(dir, 1)).toEqual([20])
    expect(readdirSync(dir).sort()).toEqual(['checkpoint-10', 'checkpoint-30'])
  })
})
