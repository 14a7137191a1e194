/** A token that is found in the text before the model sees it, such as `<s>` or `<|im_end|>`. */
export interface AddedToken {
  id: number
  content: string
  special: boolean
  /** Looked for in the normalised text instead of the raw one. */
  normalized: boolean
  lstrip: boolean
  rstrip: boolean
  singleWord: boolean
}

/** A stretch of text: an added token (which covers the spaces it strips), or what lies between two of them. */
export interface Section {
  start: number
  end: number
  token?: AddedToken
}

/** Cuts a text at the added tokens: leftmost match first, the longest of those that begin there. */
export function splitAtAddedTokens(tokens: readonly AddedToken[]): (text: string) => Section[] {
  if (tokens.length === 0) return (text) => (text === '' ? [] : [{ start: 0, end: text.length }])
  const byContent = new Map(tokens.map((token) => [token.content, token]))
  const longestFirst = [...byContent.keys()].sort((a, b) => b.length - a.length)
  const pattern = new RegExp(longestFirst.map(escapeRegExp).join('|'), 'gu')

  return (text) => {
    const sections: Section[] = []
    let done = 0
    for (const match of text.matchAll(pattern)) {
      const token = byContent.get(match[0])!
      let start = match.index
      let end = start + match[0].length
      if (start < done || (token.singleWord && !standsAlone(text, start, end))) continue
      if (token.lstrip) while (start > done && isSpace(text[start - 1]!)) start--
      if (token.rstrip) while (end < text.length && isSpace(text[end]!)) end++
      if (start > done) sections.push({ start: done, end: start })
      sections.push({ start, end, token })
      done = end
    }
    if (done < text.length) sections.push({ start: done, end: text.length })
    return sections
  }
}

function standsAlone(text: string, start: number, end: number): boolean {
  const isWord = (char: string | undefined) => char !== undefined && /[\p{L}\p{N}_]/u.test(char)
  return !isWord(text[start - 1]) && !isWord(text[end])
}

function isSpace(char: string): boolean {
  return /\s/.test(char)
}

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
}
