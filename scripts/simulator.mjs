// The PTX simulator that stands in for a GPU in tests: a libcuda.so.1 that executes PTX on the CPU, with checks of memory,
// initialisation and races. Its sources lie outside this repository.
import { spawnSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = join(dirname(fileURLToPath(import.meta.url)), '..')

/** Takes an option and its value out of a list of arguments. */
export function take(args, name, fallback) {
  const at = args.indexOf(name)
  return at < 0 ? fallback : args.splice(at, 2)[1]
}

/** The folder of the sources: `--simulator DIR`, or that of the shared tools. */
export function simulatorIn(args) {
  const shared = process.env.WESTWIND_SHARED ?? join(root, '../shared')
  return resolve(take(args, '--simulator', join(shared, 'tools/ptxsim')))
}

/** Builds it into build/simulator, and returns that folder; undefined where it does not build. */
export function buildSimulator(sources) {
  const out = join(root, 'build/simulator')
  const jobs = `-j${availableParallelism()}`
  const { status } = spawnSync('make', ['-s', '-C', sources, jobs, `BUILD=${out}`], {
    stdio: 'inherit',
  })
  return status === 0 ? out : undefined
}

/** The environment of a program that shall find such a GPU of one architecture, with every check on. */
export const simulated = (library, arch) => ({
  LD_LIBRARY_PATH: [library, process.env.LD_LIBRARY_PATH].filter(Boolean).join(':'),
  PTXSIM_ARCH: arch,
  PTXSIM_RACECHECK: '1',
  WESTWIND_MEMCHECK: '1',
  WESTWIND_PEAK_TFLOPS: '1', // measuring a peak would take minutes, and mean nothing
})
