import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WestwindError } from '../errors.js'
import type { Addon } from './addon-types.js'

let loaded: Addon | undefined

/**
 * The native addon, loaded on first use, so that importing westwind never fails for want of it.
 * `WESTWIND_ADDON` names another file than the one the build leaves.
 *
 * @throws ERR_NATIVE when the file is missing or does not fit this machine
 */
export function native(): Addon {
  if (loaded) return loaded
  const root = join(dirname(fileURLToPath(import.meta.url)), '../..')
  const file = process.env.WESTWIND_ADDON ?? join(root, 'build/Release/westwind.node')
  limitSpinning()
  try {
    loaded = createRequire(import.meta.url)(file) as Addon
  } catch (cause) {
    const why = cause instanceof Error ? cause.message.split('\n')[0] : String(cause)
    throw new WestwindError(
      'ERR_NATIVE',
      `the native addon could not be loaded from ${file}: ${why}. ` +
        'Build it with `npm run build` (needs CMake and a C++20 compiler).',
      { cause },
    )
  }
  return loaded
}

/**
 * Threads that wait for the next parallel loop spin some microseconds, then sleep. libgomp's default, to
 * spin for milliseconds, makes small models 40 times slower where another program wants the cores.
 * libgomp reads this once, when the addon is loaded.
 */
function limitSpinning(): void {
  const { env } = process
  if (env.GOMP_SPINCOUNT === undefined && env.OMP_WAIT_POLICY === undefined) {
    env.GOMP_SPINCOUNT = '1000'
  }
}
