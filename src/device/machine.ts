import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { version } from '../version.js'
import { cudaDevices, cudaVersion, type Device } from './device.js'

/** What a timing or a run means little without. */
export interface Machine {
  /** 'cpu' or 'cuda:N'. */
  device: string
  /** Name of the processor or GPU. */
  processor: string
  /** Of a GPU: the newest CUDA that its driver knows. */
  driver?: string
  /** Version and, in a clone, the commit. */
  westwind: string
  /** ISO 8601, UTC. */
  date: string
}

export function machineOf(device: Device): Machine {
  const gpu = device.name !== 'cpu'
  return {
    device: device.name,
    processor: gpu ? device.product : (cpus()[0]?.model.trim() ?? 'unknown'),
    ...(gpu && { driver: `CUDA ${cudaVersion(cudaDevices().driverVersion)}` }),
    westwind: [version, commit()].filter(Boolean).join('+'),
    date: new Date().toISOString().slice(0, 19),
  }
}

/** Of the clone that this file is in. */
function commit(): string | undefined {
  const root = join(dirname(fileURLToPath(import.meta.url)), '../..')
  if (!existsSync(join(root, '.git'))) return undefined
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
      ...{ cwd: root, encoding: 'utf8' },
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
  } catch {
    return undefined // no git, or not its clone
  }
}
