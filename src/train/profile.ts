import { atomicFile } from '../checkpoint/atomic.js'
import type { Device } from '../device/device.js'
import type { TimedOp } from '../native/addon-types.js'

/** Steps that are profiled, behind the first of a process, which sets up memory. */
const steps = { first: 1, count: 3 }

/** What the profiled steps took. */
export interface ProfileSummary {
  file: string
  steps: number
  seconds: number
  /** Share of that time in which the event loop was busy. */
  javascript: number
  /** Ops by the time the device took for them, in seconds, longest first. */
  ops: { name: string; seconds: number; count: number }[]
}

/**
 * Times a few steps op by op and writes them as Chrome-trace events, for Perfetto or chrome://tracing: a track of
 * enqueued ops, a track of what the device did, arrows between them. While it runs the device finishes each op
 * before the next; the steps are not slower for it on a CPU, and a little on a GPU.
 */
export class StepProfiler {
  readonly #device: Device
  readonly #file: string
  readonly #spans: { name: string; begin: number; end: number }[] = []
  #seen = 0
  #start = 0
  #loop = performance.eventLoopUtilization()

  constructor(device: Device, file: string) {
    this.#device = device
    this.#file = file
  }

  /** Before a step. */
  async begin(): Promise<void> {
    if (this.#seen === steps.first) {
      await this.#device.synchronize()
      this.#device.startTiming()
      this.#start = performance.now()
      this.#loop = performance.eventLoopUtilization()
    }
    if (this.#profiles) {
      const now = performance.now() - this.#start
      this.#spans.push({ name: `step ${this.#seen + 1}`, begin: now, end: now })
    }
  }

  /** After a step; with the last one that is profiled the file is written, and told. */
  async end(): Promise<ProfileSummary | undefined> {
    const last = this.#seen === steps.first + steps.count - 1
    if (this.#profiles) {
      await this.#device.synchronize()
      this.#spans.at(-1)!.end = performance.now() - this.#start
    }
    this.#seen++
    return last ? await this.finish() : undefined
  }

  /** Writes what there is, where a run ends before. */
  async finish(): Promise<ProfileSummary | undefined> {
    if (this.#spans.length === 0) return undefined
    const { active } = performance.eventLoopUtilization(this.#loop)
    await this.#device.synchronize()
    const ops = this.#device.endTiming()
    const spans = this.#spans.splice(0)
    const elapsed = spans.at(-1)!.end
    const trace = traceOf(`${this.#device}`, ops, spans, { javascript: active / elapsed })
    await atomicFile(this.#file, `${JSON.stringify(trace)}\n`)
    return {
      file: this.#file,
      steps: spans.length,
      seconds: elapsed / 1000,
      javascript: active / elapsed,
      ops: totals(ops),
    }
  }

  get #profiles(): boolean {
    return this.#seen >= steps.first && this.#seen < steps.first + steps.count
  }
}

/** The lines that a run says of its profile, once there is one. */
export function profileLines(summary: ProfileSummary | undefined): string[] {
  if (!summary) return []
  const { file, steps, seconds, javascript, ops } = summary
  const busy = ops.reduce((sum, op) => sum + op.seconds, 0)
  const share = (of: number) => `${((100 * of) / seconds).toFixed(1)} %`
  const shown = ops.slice(0, 8).map((op) => `${op.name} ${share(op.seconds)}`)
  return [
    `profile: ${steps} steps in ${seconds.toFixed(3)} s, device busy ${share(busy)}, JavaScript ${(100 * javascript).toFixed(1)} %; ${shown.join(', ')}`,
    `profile: written to ${file}`,
  ]
}

function totals(ops: readonly TimedOp[]): ProfileSummary['ops'] {
  const byName = new Map<string, { name: string; seconds: number; count: number }>()
  for (const { label, begin, end } of ops) {
    const name = nameOf(label)
    const total = byName.get(name) ?? { name, seconds: 0, count: 0 }
    total.seconds += (end - begin) / 1000
    total.count++
    byName.set(name, total)
  }
  return [...byName.values()].sort((a, b) => b.seconds - a.seconds)
}

function nameOf(label: string): string {
  return label.split(' ', 1)[0]!
}

const threads = { host: 1, device: 2, steps: 3 }

/** The trace event format: times in microseconds. */
function traceOf(
  device: string,
  ops: readonly TimedOp[],
  spans: readonly { name: string; begin: number; end: number }[],
  otherData: Record<string, number>,
) {
  const at = (tid: number) => ({ pid: 1, tid })
  const named = (tid: number, name: string) => {
    return { ...at(tid), ph: 'M', name: 'thread_name', args: { name } }
  }
  const us = (ms: number) => ms * 1000
  const events = ops.flatMap(({ label, enqueued, begin, end }, id) => {
    const op = { name: nameOf(label), args: { op: label } }
    const arrow = { name: 'enqueued', cat: 'enqueue', id }
    return [
      { ...op, ...at(threads.host), cat: 'host', ph: 'i', s: 't', ts: us(enqueued) },
      { ...arrow, ...at(threads.host), ph: 's', ts: us(enqueued) },
      { ...arrow, ...at(threads.device), ph: 'f', bp: 'e', ts: us(begin) },
      { ...op, ...at(threads.device), cat: 'device', ph: 'X', ts: us(begin), dur: us(end - begin) },
    ]
  })
  const stepEvents = spans.map(({ name, begin, end }) => {
    return { name, ...at(threads.steps), cat: 'step', ph: 'X', ts: us(begin), dur: us(end - begin) }
  })
  return {
    displayTimeUnit: 'ms',
    otherData,
    traceEvents: [
      named(threads.host, 'JavaScript: enqueued'),
      named(threads.device, `device ${device}`),
      named(threads.steps, 'steps'),
      ...stepEvents,
      ...events,
    ],
  }
}
