import { PassThrough } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { formatDuration, Progress } from '../../src/train/progress.js'

/** A stream that keeps what is written, and a clock that is set by hand. */
function harness(isTTY: boolean, total = 100, done = 0) {
  const written: string[] = []
  const clock = { ms: 0 }
  const stream = {
    isTTY,
    columns: 100,
    write: (text: string) => written.push(text),
    on: () => undefined,
  }
  const progress = new Progress({ label: 'dpo', total, done, stream, now: () => clock.ms })
  return { progress, written, clock }
}

const record = {
  step: 10,
  loss: Math.LN2,
  learning_rate: 5e-7,
  'rewards/accuracies': 0.5,
  tokens_per_second: 12345.6,
  pairs_per_second: 3.456,
}

describe('Progress in a file', () => {
  it('is one plain line per log, without control characters', () => {
    const { progress, written, clock } = harness(false)
    clock.ms = 20_000
    progress.update(9)
    progress.log(record)
    progress.close()
    expect(written).toEqual([
      'dpo 10/100  loss 0.6931  lr 5.00e-7  reward acc 0.5000  tok/s 12,346  pairs/s 3.46  ETA 3:00\n',
    ])
  })

  it('estimates from this process alone on a resumed run', () => {
    const { progress, written, clock } = harness(false, 100, 90)
    clock.ms = 10_000
    progress.log({ ...record, step: 95 })
    expect(written[0]).toContain('ETA 0:10')
  })
})

describe('Progress on a terminal', () => {
  it('redraws one line, at most ten times a second', () => {
    const { progress, written, clock } = harness(true)
    for (let i = 1; i <= 50; i++) {
      clock.ms = i * 10
      progress.update(i)
    }
    expect(written.length).toBeLessThanOrEqual(6)
    for (const text of written) expect(text.startsWith('\r\x1b[2K')).toBe(true)
    expect(written.join('')).not.toContain('\n')
  })

  it('fits the width of the terminal and ends its line', () => {
    const { progress, written, clock } = harness(true)
    clock.ms = 1000
    progress.log(record)
    progress.update(100)
    progress.close()
    const bars = written.join('').replaceAll('\r\x1b[2K', '\n').split('\n')
    for (const bar of bars.filter((b) => b.includes('█'))) expect(bar.length).toBeLessThan(100)
    expect(written.at(-1)).toMatch(/100% █{20} 100\/100 .*\n$/)
  })
})

describe('Progress', () => {
  it('outlives a reader that goes away', () => {
    const stream = new PassThrough()
    const progress = new Progress({ label: 'sft', total: 2, stream })
    stream.emit('error', Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }))
    stream.destroy()
    expect(() => progress.log({ step: 1, loss: 1 })).not.toThrow()
    const broken = {
      write: () => {
        throw new Error('EPIPE')
      },
      on: () => undefined,
    }
    expect(() => new Progress({ label: 'sft', total: 2, stream: broken }).note('x')).not.toThrow()
  })
})

describe('formatDuration', () => {
  it.each([
    [0, '0:00'],
    [0.2, '0:01'],
    [61, '1:01'],
    [3723, '1:02:03'],
  ])('%d s is %s', (seconds, text) => expect(formatDuration(seconds)).toBe(text))
})
