import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Path of a template that comes with the package. */
export function templatePath(name: string): string {
  return join(dirname(fileURLToPath(import.meta.url)), '../../templates', name)
}
