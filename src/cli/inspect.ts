import type { Register } from './context.js'
import { addInspectData } from './inspect-data.js'
import { addInspectDevice } from './inspect-device.js'
import { addInspectModel } from './inspect-model.js'

export const registerInspect: Register = (program, context) => {
  const inspect = program
    .command('inspect')
    .description('Look at data as the loss sees it, at a model, or at this machine.')
  for (const add of [addInspectData, addInspectModel, addInspectDevice]) add(inspect, context)
}
