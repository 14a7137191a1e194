import fastify from 'fastify'
import { z } from 'zod'
import type { Task } from './tasks.js'
import { judge } from './teacher.js'

const requestSchema = z.object({
  model: z.string(),
  messages: z.array(z.object({ role: z.string(), content: z.string() })).min(1),
})

/** The teacher's score, 0 to 10, on the scale from 1 to 10 that is asked for; and back. */
export const ratingOf = (score: number): number => 1 + (9 * score) / 10
export const scoreOf = (rating: number): number => ((rating - 1) * 10) / 9

/** Taken where it is free: a second quickstart then finds its ratings as they were. */
export const teacherPort = 8377

export interface TeacherServer {
  /** What `base_url` of an endpoint is. */
  url: string
  close(): Promise<void>
}

/**
 * The rule-based teacher as an OpenAI-compatible endpoint on loopback: it finds the instruction and the
 * answers in a judging request, as a judge reads them, and answers in the JSON that was asked for.
 */
export async function serveTeacher(tasks: readonly Task[]): Promise<TeacherServer> {
  const byPrompt = new Map(tasks.map((task) => [task.prompt, task]))
  const app = fastify()
  app.post('/v1/chat/completions', async (request, reply) => {
    const parsed = requestSchema.safeParse(request.body)
    const shown = parsed.success ? read(parsed.data.messages.at(-1)?.content ?? '') : undefined
    const task = shown && byPrompt.get(shown.instruction)
    if (!parsed.success || !shown || !task) {
      const message = 'expected a request that compares answers to one of the prompts'
      return reply.code(400).send({ error: { message, type: 'invalid_request_error' } })
    }
    const ratings = shown.answers.map((answer, i) => {
      const { score, ...kept } = judge(task, answer)
      const rules = Object.entries(kept).map(([rule, is]) => `${is ? '' : 'not '}${rule}`)
      return [`answer_${i + 1}`, { rationale: rules.join(', '), rating: ratingOf(score) }]
    })
    const content = JSON.stringify(Object.fromEntries(ratings))
    return {
      id: 'chatcmpl-teacher',
      object: 'chat.completion',
      created: 0,
      model: parsed.data.model,
      choices: [{ index: 0, message: { role: 'assistant', content }, finish_reason: 'stop' }],
    }
  })
  const listen = (port: number) => app.listen({ host: '127.0.0.1', port })
  const url = await listen(teacherPort).catch(() => listen(0))
  return { url: `${url}/v1`, close: () => app.close() }
}

/** What stands between the marker lines of templates/feedback/judge.jinja. */
function read(text: string): { instruction: string; answers: string[] } | undefined {
  const between = (name: string) =>
    new RegExp(`^<<\\w+ ${name}>>\\n([\\s\\S]*?)\\n<<\\w+ end of ${name}>>$`, 'm').exec(text)?.[1]
  const instruction = between('instruction')
  const answers: string[] = []
  for (;;) {
    const answer = between(`answer ${answers.length + 1}`)
    if (answer === undefined) break
    answers.push(answer)
  }
  return instruction === undefined || answers.length === 0 ? undefined : { instruction, answers }
}
