import { z } from 'zod'
import { WestwindError } from '../errors.js'

const positive = (expected: string) => z.number({ error: expected }).positive(expected)
const text = (expected: string) => z.string({ error: expected }).min(1, expected)
const money = z
  .number({ error: 'US dollars, 0 or more' })
  .min(0, 'US dollars, 0 or more')
  .meta({ effect: 'US dollars per million tokens' })

/** What a million tokens cost, in any one currency; budgets are in the same. */
export const priceSchema = z.strictObject({ input: money, output: money })

/** The keys of an endpoint; configurations add their own. */
export const endpointShape = {
  base_url: z
    .url({
      protocol: /^https?$/,
      error: 'an http or https address such as http://localhost:8000/v1',
    })
    .refine((url) => !URL.canParse(url) || new URL(url).password === '', {
      error:
        'an address without a password; put the key into a variable and name it in api_key_env',
    }),
  model: text('the name of the model, as the endpoint calls it'),
  api_key_env: z
    .string()
    .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'the name of an environment variable (not the key itself)')
    .optional(),
  timeout: positive('seconds, above 0')
    .max(300, "seconds, at most 300 (Node's own limit)")
    .default(300),
  max_retries: z
    .number({ error: 'a whole number from 0 to 100' })
    .int('a whole number from 0 to 100')
    .min(0, 'a whole number from 0 to 100')
    .max(100, 'a whole number from 0 to 100')
    .default(6),
  price: priceSchema.optional(),
}

/** One model behind an OpenAI-compatible endpoint. */
export const endpointSchema = z.strictObject(endpointShape)

/** `base_url` is what `/chat/completions` follows. `timeout` (seconds) is that of one request. */
export type Endpoint = z.output<typeof endpointSchema>
export type Price = z.output<typeof priceSchema>

/** Whether this is OpenAI's own service: it wants a key, and `max_completion_tokens`. */
export function isOpenAi({ base_url }: Pick<Endpoint, 'base_url'>): boolean {
  const { hostname } = new URL(base_url)
  return hostname === 'api.openai.com' || hostname.endsWith('.api.openai.com')
}

/**
 * Name of the variable that holds the key: `api_key_env`, else `OPENAI_API_KEY` (process.env.OPENAI_API_KEY)
 * for OpenAI's own service. Other endpoints get no key that was not named for them.
 */
export function keyVariable(
  endpoint: Pick<Endpoint, 'base_url' | 'api_key_env'>,
): string | undefined {
  return endpoint.api_key_env ?? (isOpenAi(endpoint) ? 'OPENAI_API_KEY' : undefined)
}

/**
 * The key of an endpoint, from the environment; undefined where it needs none.
 *
 * @throws ERR_TEACHER naming the variable that is not set
 */
export function apiKey(
  endpoint: Pick<Endpoint, 'base_url' | 'api_key_env'>,
  env: Readonly<Record<string, string | undefined>> = process.env,
): string | undefined {
  const name = keyVariable(endpoint)
  if (name === undefined) return undefined
  const key = env[name]?.trim()
  if (key) return key
  throw new WestwindError(
    'ERR_TEACHER',
    `${endpoint.base_url}: the API key is read from the variable ${name}, which is not set`,
  )
}
