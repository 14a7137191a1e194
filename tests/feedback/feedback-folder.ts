import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  type ChatRequest,
  type Reply,
  startTeacher,
  type TeacherServer,
} from '../support/teacher.js'
import { honest } from './judge.js'

/** A rated answer, as `ratings.jsonl` has it. */
export interface Rated {
  model: string
  response: string
  overall_score: number
  overall_spread: number | null
  critique: string
  annotations: Record<
    string,
    { rating: number | null; spread: number | null; count: number; ratings: (number | null)[] }
  >
  fine_grained_score: number | null
  fine_grained_count: number
}

export interface Line {
  prompt_id: string
  tuple_id?: number
  source: string
  instruction: string
  models: string[]
  completions: Rated[]
  aspect?: string
  reason?: string
  reasons?: string[]
  attempts?: { reason: string; raw: string }[]
}

type Script = (request: ChatRequest, times: number) => Reply | Promise<Reply>

/** A folder with prompts, a teacher on loopback, and configurations that name both. */
export class FeedbackFolder {
  readonly dir = mkdtempSync(join(tmpdir(), 'westwind-feedback-'))
  script: Script = honest
  server!: TeacherServer

  async open(): Promise<this> {
    this.server = await startTeacher((request, times) => this.script(request, times))
    return this
  }

  async close(): Promise<void> {
    await this.server.close()
    rmSync(this.dir, { recursive: true, force: true })
  }

  path(...names: string[]): string {
    return join(this.dir, ...names)
  }

  /** `prompts.jsonl` with questions 0 … n-1, or these texts. */
  prompts(texts: number | string[]): void {
    const all =
      typeof texts === 'number' ? Array.from({ length: texts }, (_, i) => `Question ${i}?`) : texts
    const rows = all.map((prompt, i) => JSON.stringify({ prompt, source: i % 2 ? 'odd' : 'even' }))
    writeFileSync(this.path('prompts.jsonl'), `${rows.join('\n')}\n`)
  }

  /** YAML with five models and a teacher; `more` is added to its end. */
  yaml(more = ''): string {
    const model = (name: string) =>
      `  - { model: ${name}, base_url: '${this.server.url}', max_retries: 2, price: { input: 1, output: 2 } }`
    return `output_dir: ${this.path('out')}
seed: 7
prompts: { data: ${this.path('prompts.jsonl')} }
models:
${['a', 'b', 'c', 'd', 'e'].map(model).join('\n')}
principles: { mix: { default: { helpfulness: 2, honesty: 1, none: 1 }, odd: { truthfulness: 1 } } }
teacher:
  model: gpt-4
  base_url: ${this.server.url}
  max_retries: 2
  timeout: 2
  price: { input: 30, output: 60 }
${more}
`
  }

  lines(name: string): Line[] {
    return this.text(name)
      .split('\n')
      .filter((line) => line !== '')
      .map((line): Line => JSON.parse(line))
  }

  manifest(): {
    generate: Record<string, unknown>
    rate: Record<string, unknown> & { spent: Record<string, number> }
  } {
    return JSON.parse(this.text('manifest.json'))
  }

  text(name: string): string {
    return readFileSync(this.path('out', name), 'utf8')
  }

  /** Names and contents of everything in the folder. */
  everything(): string {
    const names = readdirSync(this.dir, { recursive: true, encoding: 'utf8' })
    const texts = names.map((name) => {
      const path = this.path(name)
      return existsSync(path) && !readdirSafe(path) ? readFileSync(path, 'latin1') : ''
    })
    return [...names, ...texts].join('\n')
  }

  /** Requests that were answered, and so paid for, more than once. */
  paidTwice(): number {
    const answered = this.server.log.filter(({ answered }) => answered)
    return answered.length - new Set(answered.map(({ request }) => JSON.stringify(request))).size
  }
}

function readdirSafe(path: string): boolean {
  try {
    readdirSync(path)
    return true
  } catch {
    return false
  }
}
