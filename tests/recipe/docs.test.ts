import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { z } from 'zod'
import { dpoSchema, sftSchema } from '../../src/recipe/keys.js'
import { aliases, refused, withoutEffect } from '../../src/recipe/known.js'

const page = readFileSync(new URL('../../docs/recipes.md', import.meta.url), 'utf8')

/** The row docs/recipes.md must have for a key. */
function row(name: string, schema: z.ZodType): string {
  const { expected, effect } = schema.meta() ?? {}
  const initial = schema.safeParse(undefined)
  const fallback = initial.success ? `\`${JSON.stringify(initial.data)}\`` : 'required'
  return `| \`${name}\` | ${expected} | ${fallback} | ${effect} |`
}

const sftKeys = Object.entries<z.ZodType>(sftSchema.shape)
const dpoKeys = Object.entries<z.ZodType>(dpoSchema.shape)

describe('docs/recipes.md', () => {
  it.each([...sftKeys, ...dpoKeys])('has the row of %s as the schema has it', (name, schema) => {
    expect(page.split('\n')).toContain(row(name, schema))
  })

  it.each(Object.entries(aliases))('has the old name %s', (old, name) => {
    expect(page).toContain(`| \`${old}\` | \`${name}\` |`)
  })

  it.each(Object.entries(refused))('says why %s is refused', (name, { reason }) => {
    expect(page).toContain(`| \`${name}\` | ${reason} |`)
  })

  it.each(Object.keys(withoutEffect))('lists %s as without effect', (name) => {
    expect(page).toContain(`\`${name}\``)
  })

  it('has no row of a key that does not exist', () => {
    const known = new Set([
      ...[...sftKeys, ...dpoKeys].map(([name]) => name),
      ...[aliases, refused].flatMap((table) => Object.keys(table)),
    ])
    const rows = [...page.matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name ?? '')
    expect(rows.filter((name) => !known.has(name))).toEqual([])
  })
})
