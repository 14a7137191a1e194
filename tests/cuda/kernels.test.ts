import { describe, expect, it } from 'vitest'
import { native } from '../../src/native/addon.js'

const { cudaImageFor, cudaImages, cudaKernels, cudaLaunches } = native()
const built = cudaKernels.length > 0
if (!built) console.log('kernels: skipped, this build of the addon has no CUDA kernels')

const generic = cudaImages.filter(({ file }) => !file.endsWith('_sm90'))
const hopper = cudaImages.filter(({ file }) => file.endsWith('_sm90'))

describe.runIf(built)('the kernels in the addon', () => {
  it('are those that the launch code asks for: none is missing, and none is there for nothing', () => {
    expect([...cudaKernels].sort()).toEqual([...cudaLaunches].sort())
  })

  it('have names of their own', () => {
    expect(new Set(cudaKernels).size).toBe(cudaKernels.length)
  })

  it.each([80, 86, 89, 90, 100])('have code that sm_%i runs, and the words say which', (arch) => {
    const words = cudaImageFor(arch)
    const machine = /^(sm_\d+a?) machine code$/.exec(words)?.[1]
    for (const { codes } of generic) {
      expect(codes.split(' ')).toContain('compute_80')
      if (machine) expect(codes.split(' ')).toContain(machine)
    }
    if (machine) expect(machine.replace('a', '')).toBe(`sm_${arch}`)
    else expect(words).toMatch(/^PTX (compute_90a and )?compute_80, compiled by the driver$/)
  })

  it('have code for Hopper alone in files of their own, which the words name only there', () => {
    expect(hopper.length).toBeGreaterThan(0)
    for (const { codes } of hopper) expect(codes).toMatch(/^(sm_90a )?compute_90a$/)
    expect([80, 86, 89, 90, 100].filter((arch) => cudaImageFor(arch).includes('90a'))).toEqual([90])
  })

  it('are not for GPUs older than Ampere', () => {
    expect(cudaImageFor(75)).toBe('')
  })
})
