/** A setting of each run. */
export interface SettingRow {
  key: string
  /** null where the run does not say it. */
  values: (string | null)[]
  /** Whether runs that say it say different things. */
  differs: boolean
}

/**
 * Settings side by side, a row for each name that any has.
 *
 * @param absent what a run says that lacks the name: null where it may be unknown, `none` where it is not set
 */
export function settingRows(
  all: readonly (Record<string, unknown> | undefined)[],
  absent: 'none' | null,
): SettingRow[] {
  return union(all.map((settings) => Object.keys(settings ?? {}))).map((key) => {
    const values = all.map((settings) => {
      if (settings === undefined) return null
      return Object.hasOwn(settings, key) ? words(settings[key]) : absent
    })
    const said = new Set(values.filter((value) => value !== null))
    return { key, values, differs: said.size > 1 }
  })
}

/** A value of JSON in words; strings as they are. */
export function words(value: unknown): string {
  if (value === undefined || value === null) return 'none'
  try {
    return typeof value === 'string' ? value : JSON.stringify(value)
  } catch {
    return 'a deeply nested value' // JSON.parse takes any depth, JSON.stringify recurses
  }
}

/** All strings of some lists, once each, in the order of their first appearance. */
export function union(lists: readonly (readonly string[])[]): string[] {
  return [...new Set(lists.flat())]
}
