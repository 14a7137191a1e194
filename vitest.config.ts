import { defineConfig } from 'vitest/config'

export default defineConfig({
  esbuild: { target: 'es2022' }, // Node 20 has no `using`
  test: {
    include: ['tests/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    pool: 'forks', // the addon keeps threads and memory per process
    poolOptions: { forks: { maxForks: 2 } },
  },
})
