/** A number to read: integers with commas, else at most four decimals, or four digits of a small one. */
export function formatNumber(x: number): string {
  if (Number.isInteger(x)) return x.toLocaleString('en-US')
  if (!Number.isFinite(x)) return String(x)
  return String(Number(Math.abs(x) < 0.01 ? x.toPrecision(4) : x.toFixed(4)))
}
