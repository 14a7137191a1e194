import type { z } from 'zod'
import { WestwindError } from '../errors.js'
import { showJson } from '../json.js'

/** A row that `schema` accepts; other columns are dropped. @throws ERR_DATA naming place, column and value */
export function parseRow<T>(schema: z.ZodType<T>, row: unknown, where: string): T {
  const parsed = schema.safeParse(row)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const column = issue?.path.join('.') ?? ''
  throw new WestwindError(
    'ERR_DATA',
    `${where}: ${column === '' ? '' : `${column}: `}${issue?.message ?? 'wrong'}; the row is ${showJson(row)}`,
  )
}
