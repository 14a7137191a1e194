/** Named values, one a line, aligned. */
export function table(values: Record<string, string | number>): string {
  const width = Math.max(...Object.keys(values).map((name) => name.length)) + 2
  return Object.entries(values)
    .map(([name, value]) => `${name.padEnd(width)}${value}\n`)
    .join('')
}

/** A size in binary units, about three digits. */
export function bytes(n: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB']
  let value = n
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${units[unit]}`
}

/** Whether to colour what is written there: a terminal, unless NO_COLOR (https://no-color.org). */
export function useColor(stream: { isTTY?: boolean }): boolean {
  const { FORCE_COLOR, NO_COLOR } = process.env
  if (FORCE_COLOR !== undefined && FORCE_COLOR !== '0') return true
  return Boolean(stream.isTTY) && !NO_COLOR
}
