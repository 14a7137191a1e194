// What Python does with text where evaluation results depend on it: which characters are white space, what a character is.

/** What `str.isspace`, `str.strip` and `\s` of Python's `re` take for white space. */
const space =
  '[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]'
const spaces = new RegExp(`${space}+`)
const trailing = new RegExp(`${space}+$`)
const leading = new RegExp(`^${space}+`)

/** Python's `text.rstrip()`. */
export function rstrip(text: string): string {
  return text.replace(trailing, '')
}

/** Python's `text.strip()`. */
export function strip(text: string): string {
  return rstrip(text).replace(leading, '')
}

/** Length of Python's `re.split(r'\s+', text)`. */
export function countWords(text: string): number {
  return text.split(spaces).length
}

/** Python's `text.capitalize()`: the first character in upper case, the others in lower case. */
export function capitalize(text: string): string {
  const [first = '', ...rest] = text
  const [upper = '', ...more] = first.toUpperCase()
  return upper + more.join('').toLowerCase() + rest.join('').toLowerCase()
}

/** Python's `len(text)`: characters, not UTF-16 units. */
export function length(text: string): number {
  let n = 0
  for (const _ of text) n++
  return n
}
