import { readFileSync } from 'node:fs'
import type { FastifyInstance } from 'fastify'

/** Plain files, served as they are; the folder is two levels up from here, in the sources and in dist/. */
const folder = new URL('../../web/', import.meta.url)

const files = [
  ['/', 'index.html', 'text/html; charset=utf-8'],
  ['/page.css', 'page.css', 'text/css; charset=utf-8'],
  ['/page.js', 'page.js', 'text/javascript; charset=utf-8'],
  ['/chat.js', 'chat.js', 'text/javascript; charset=utf-8'],
] as const

/** The page may load its own files and ask its own server, nothing else; no page may show it inside itself. */
const headers = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-cache',
}

/** `GET /`: the chat page. It holds no secret, so it needs no API key; what it asks for does. */
export function registerPage(app: FastifyInstance): void {
  for (const [path, name, type] of files) {
    const content = readFileSync(new URL(name, folder))
    app.get(path, { config: { open: true, always: true } }, async (_, reply) => {
      return reply.headers(headers).type(type).send(content)
    })
  }
}
