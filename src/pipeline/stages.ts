import { Problems } from '../recipe/problems.js'
import { evalStages } from './eval-stages.js'
import { feedbackStages } from './feedback-stages.js'
import type { PipelineFile } from './file.js'
import { reportStage } from './report-stage.js'
import type { Stage } from './stage.js'
import { trainStage } from './train-stage.js'

/**
 * The stages of a pipeline in their order: dSFT, feedback, dDPO, evaluations, report.
 *
 * @throws ERR_CONFIG with file, line, section and key
 */
export async function planStages(pipeline: PipelineFile): Promise<Stage[]> {
  const sft = pipeline.sft && (await trainStage('sft', pipeline, pipeline.sft, {}))
  const feedback = pipeline.feedback ? feedbackStages(pipeline, pipeline.feedback, sft) : []
  const data = feedback.at(-1)
  if (data && !pipeline.dpo) {
    new Problems(pipeline.file, 'feedback').fail(
      pipeline.feedback?.placeOf([]),
      'its pairs are for dpo, which this pipeline has not; add dpo, or see westwind feedback',
    )
  }
  const upstream = { ...(sft && { model: sft }), ...(data && { data }) }
  const dpo = pipeline.dpo && (await trainStage('dpo', pipeline, pipeline.dpo, upstream))
  const trained = [sft, dpo].filter((stage) => stage !== undefined)
  const evals = evalStages(pipeline, trained, data)
  const stages = [...(sft ? [sft] : []), ...feedback, ...(dpo ? [dpo] : []), ...evals]
  if (!pipeline.report) return stages
  return [...stages, reportStage(pipeline, pipeline.report, trained, evals)]
}
