import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { LogWindow, MetricsWriter, readMetrics } from '../../src/train/metrics.js'

const step = (loss: number, n: number) => ({
  loss,
  gradNorm: n,
  learningRate: n / 10,
  numTokens: 100 * n,
})

describe('LogWindow', () => {
  it('averages loss over steps and the rest over micro-batches, and keeps the last grad_norm and lr', () => {
    const window = new LogWindow()
    window.addMicroBatch({ entropy: 1, 'rewards/margins': 0 })
    window.addMicroBatch({ entropy: 2, 'rewards/margins': 3 })
    window.addStep(step(0.5, 1))
    window.addMicroBatch({ entropy: 6, 'rewards/margins': 3 })
    window.addStep(step(0.7, 2))
    expect(window.take()).toEqual({
      loss: 0.6,
      grad_norm: 2,
      learning_rate: 0.2,
      num_tokens: 200,
      entropy: 3,
      'rewards/margins': 2,
    })
  })

  it('starts anew after take, and refuses to average nothing', () => {
    const window = new LogWindow()
    window.addStep(step(0.5, 1))
    window.take()
    expect(() => window.take()).toThrow('no step since the last call')
    window.addStep(step(0.1, 2))
    expect(window.take().loss).toBe(0.1)
  })

  it('goes on from a saved state as if it had never stopped', () => {
    const whole = new LogWindow()
    const first = new LogWindow()
    for (const window of [whole, first]) {
      window.addMicroBatch({ entropy: 0.1 })
      window.addStep(step(0.3, 1))
    }
    const resumed = new LogWindow(JSON.parse(JSON.stringify(first.state())))
    for (const window of [whole, resumed]) {
      window.addMicroBatch({ entropy: 0.7 })
      window.addStep(step(0.2, 2))
    }
    expect(resumed.take()).toEqual(whole.take())
  })
})

describe('MetricsWriter', () => {
  let dir: string
  let path: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'westwind-metrics-'))
    path = join(dir, 'metrics.jsonl')
  })
  afterEach(() => rmSync(dir, { recursive: true }))

  const write = async (steps: number[], resumeStep?: number) => {
    const writer = await MetricsWriter.open(path, resumeStep === undefined ? {} : { resumeStep })
    for (const s of steps) await writer.write({ step: s, loss: s / 10 })
    await writer.close()
  }
  const steps = async () => (await readMetrics(path)).map((r) => r.step)

  it('writes one JSON object a line', async () => {
    await write([1, 2])
    expect(readFileSync(path, 'utf8')).toBe('{"step":1,"loss":0.1}\n{"step":2,"loss":0.2}\n')
  })

  it('goes on after the resumed step without repeats', async () => {
    await write([1, 2, 3, 4, 5])
    await write([4, 5, 6], 3)
    expect(await steps()).toEqual([1, 2, 3, 4, 5, 6])
  })

  it('drops a line that a crash tore, even one that looks whole', async () => {
    await write([1, 2])
    appendFileSync(path, '{"step":3,"lo')
    await write([3], 2)
    expect(await steps()).toEqual([1, 2, 3])
    appendFileSync(path, '{"step":4}') // no line feed: the number may be cut
    await write([4], 4)
    expect(await steps()).toEqual([1, 2, 3, 4])
  })

  it('starts a new run with an empty file, and resumes where there is none', async () => {
    await write([1, 2])
    await write([1])
    expect(await steps()).toEqual([1])
    rmSync(path)
    await write([5], 4)
    expect(await steps()).toEqual([5])
  })

  it('names file and line of a damaged record', async () => {
    writeFileSync(path, '{"step":1}\nnonsense\n{"step":3}\n')
    await expect(readMetrics(path)).rejects.toThrow(
      `${path}:2: expected a JSON object with a numeric "step", got nonsense`,
    )
  })
})
