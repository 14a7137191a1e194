/** Text as it may stand between tags or inside a quoted attribute of HTML or SVG. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;')
    .replaceAll(/(?![\t\n\r])\p{Cc}/gu, '\ufffd') // not allowed in XML, which SVG is
}
