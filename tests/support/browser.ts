import { spawnSync } from 'node:child_process'
import { type Browser, chromium } from 'playwright-core'

/** Names under which Chromium is installed; `CHROMIUM` names another one. */
const names = [process.env.CHROMIUM ?? [], 'chromium', 'chromium-browser', 'google-chrome'].flat()

/** The Chromium of this machine, undefined where there is none. */
export const chromiumPath = names.map(find).find((path) => path !== undefined)

function find(name: string): string | undefined {
  const { status, stdout } = spawnSync('sh', ['-c', 'command -v "$0"', name], { encoding: 'utf8' })
  return status === 0 ? stdout.trim() : undefined
}

/** Starts it, without a window. */
export function openBrowser(): Promise<Browser> {
  const args = process.getuid?.() === 0 ? ['--no-sandbox'] : [] // its sandbox does not start as root
  return chromium.launch({ args, ...(chromiumPath && { executablePath: chromiumPath }) })
}
