import { join } from 'node:path'
import { z } from 'zod'
import { exists } from '../checkpoint/atomic.js'
import { checkedKeys } from '../recipe/checked-keys.js'
import { Problems } from '../recipe/problems.js'
import { report } from '../report/report.js'
import type { PipelineFile, Section } from './file.js'
import { existing } from './located.js'
import type { Stage } from './stage.js'

/** The page that sets the models of a pipeline side by side, as a stage. */
export function reportStage(
  pipeline: PipelineFile,
  section: Section,
  trained: readonly Stage[],
  evals: readonly Stage[],
): Stage {
  checkedKeys(z.strictObject({}), section, new Problems(pipeline.file, section.name))
  const folder = pipeline.outputDir
  return {
    name: 'report',
    section: section.name,
    folder,
    cheap: true,
    config: {},
    inputs: [...trained, ...evals].map(({ name }) => ({ name, stage: name })),
    outputs: () => existing(folder, ['report.html', 'report.json']),
    forecast: async () => [],
    async run({ stream }) {
      const out = join(folder, 'report.html')
      const evaluations = join(folder, 'eval')
      const { problems } = await report({
        runs: trained.map((stage) => stage.folder),
        ...((await exists(evaluations)) && { eval: [evaluations] }),
        out,
      })
      for (const problem of problems) stream?.write(`note: ${problem}\n`)
      return { stopped: false, summary: out }
    },
  }
}
