// The chat page: one or two sides, each a model with a conversation of its own. Nothing is kept when the page closes.
import { isAbort, listModels, Problem, streamAnswer } from './chat.js'

const at = (id) => document.getElementById(id)
const box = at('message')
const selects = [at('model-a'), at('model-b')]
const sides = [makeSide(), makeSide()]
/** Stops the answers under way; undefined while there are none. */
let stopper
/** The models that can be chosen. */
let known = []

/** A model's half of the page. `messages` is what the model is sent: whole turns only. */
function makeSide() {
  const section = at('side').content.firstElementChild.cloneNode(true)
  const find = (selector) => section.querySelector(selector)
  find('.log').tabIndex = 0 // scrolled by keys, in every browser
  return {
    section,
    title: find('h2'),
    log: find('.log'),
    problem: find('.problem'),
    model: '',
    messages: [],
  }
}

function shownSides() {
  return at('compare').checked ? sides : sides.slice(0, 1)
}

/** Begins the conversation of a side anew, with the model that is chosen for it. */
function reset(side, i) {
  side.model = selects[i].value
  side.messages = []
  side.title.textContent = side.model
  side.log.setAttribute('aria-label', `Conversation with ${side.model}`)
  side.log.replaceChildren()
  showProblem(side, '')
}

function layOut() {
  const both = at('compare').checked
  at('label-b').hidden = selects[1].hidden = !both
  at('sides').replaceChildren(...shownSides().map(({ section }) => section))
}

function setStatus(text) {
  at('status').textContent = text
}

function showProblem(side, text) {
  side.problem.textContent = text
  side.problem.hidden = text === ''
}

function addTurn(side, role, text) {
  const turn = document.createElement('div')
  turn.className = `turn ${role}`
  const who = document.createElement('h3')
  who.textContent = role === 'user' ? 'You' : side.model
  const words = document.createElement('p')
  words.textContent = text
  turn.append(who, words)
  side.log.append(turn)
  side.log.scrollTop = side.log.scrollHeight
  return { turn, words }
}

function addNote({ turn }, text) {
  const note = document.createElement('p')
  note.className = 'note'
  note.textContent = text
  turn.append(note)
}

/** The settings as fields of a request. An empty field is left to the server. */
function settings() {
  const fields = { temperature: 'temperature', max_tokens: 'max-tokens', seed: 'seed' }
  const given = Object.entries(fields).filter(([, id]) => at(id).value !== '')
  return Object.fromEntries(given.map(([name, id]) => [name, at(id).valueAsNumber]))
}

/** Asks one model. Returns whether its answer is part of the conversation, whole or stopped by the user. */
async function ask(side, text, signal) {
  const question = addTurn(side, 'user', text)
  const answer = addTurn(side, 'assistant', '')
  const system = at('system').value.trim()
  const messages = [
    ...(system === '' ? [] : [{ role: 'system', content: system }]),
    ...side.messages,
    { role: 'user', content: text },
  ]
  showProblem(side, '')
  side.log.setAttribute('aria-busy', 'true') // read out when it is whole, not word by word
  answer.turn.classList.add('streaming')
  let said = ''
  try {
    const request = {
      model: side.model,
      messages,
      settings: settings(),
      key: at('key').value,
      signal,
    }
    for await (const { text: piece, finishReason } of streamAnswer(request)) {
      const follow = side.log.scrollHeight - side.log.scrollTop - side.log.clientHeight < 40
      said += piece
      answer.words.append(piece)
      if (finishReason === 'length') addNote(answer, 'Cut at the most tokens that it may have.')
      if (follow) side.log.scrollTop = side.log.scrollHeight
    }
  } catch (error) {
    if (isAbort(error)) addNote(answer, 'Stopped.')
    else failed(side, answer, error)
    if (!isAbort(error) || said === '') {
      addNote(question, 'Not part of the conversation: it has no answer.')
      return false
    }
  } finally {
    answer.turn.classList.remove('streaming')
    side.log.setAttribute('aria-busy', 'false')
  }
  side.messages.push({ role: 'user', content: text }, { role: 'assistant', content: said })
  return true
}

function failed(side, answer, error) {
  if (!(error instanceof Problem)) console.error(error)
  const text =
    error instanceof Problem ? error.message : 'This page failed; the console says where.'
  showProblem(side, text)
  if (answer.words.textContent === '') answer.turn.remove()
  else addNote(answer, 'Broken off.')
  if (error.needsKey) at('access').hidden = false
}

async function send() {
  const text = box.value
  if (text.trim() === '') return setStatus('Write a message first.')
  if (stopper) return setStatus('An answer is under way. Wait for it, or stop it with Esc.')
  if (!at('settings').checkValidity()) {
    at('settings').closest('details').open = true
    return at('settings').reportValidity()
  }
  if (sides[0].model === '') return loadModels()
  stopper = new AbortController()
  box.value = ''
  box.focus()
  setBusy(true)
  const { signal } = stopper
  const answered = await Promise.all(shownSides().map((side) => ask(side, text, signal)))
  stopper = undefined
  setBusy(false)
  const kept = answered.filter(Boolean).length
  setStatus(
    signal.aborted ? 'Stopped.' : kept === answered.length ? 'Done.' : 'There was a problem.',
  )
  if (kept === 0 && box.value === '') box.value = text
  if (!at('access').hidden && at('key').value === '') at('key').focus()
}

function setBusy(busy) {
  if (busy) setStatus('Answering …')
  at('stop').disabled = !busy
  at('send').disabled = busy
  for (const control of [...selects, at('new')]) control.disabled = busy
  at('compare').disabled = busy || known.length < 2
}

/** Lets the user choose among these models; conversations with others end. */
function offer(models) {
  known = models
  for (const [i, select] of selects.entries()) {
    select.replaceChildren(...models.map((id) => new Option(id, id)))
    select.selectedIndex = Math.min(i, models.length - 1)
    reset(sides[i], i)
  }
  const alone = models.length < 2
  at('compare').disabled = alone
  at('compare').title = alone ? 'Needs a second model: westwind serve MODEL MODEL' : ''
}

async function loadModels() {
  try {
    const models = await listModels(at('key').value)
    if (models.join('\n') !== known.join('\n')) offer(models)
    at('access').hidden = true
    setStatus(`Ready: ${models.join(', ')}.`)
    box.focus()
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    setStatus(error.message)
    if (error.needsKey) {
      at('access').hidden = false
      at('key').focus()
    }
    if (error.retrySeconds) setTimeout(loadModels, error.retrySeconds * 1000)
  }
}

at('ask').addEventListener('submit', (event) => {
  event.preventDefault()
  send()
})
box.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
  event.preventDefault()
  send()
})
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') stopper?.abort()
})
at('stop').addEventListener('click', () => {
  stopper?.abort()
  box.focus()
})
at('access').addEventListener('submit', (event) => {
  event.preventDefault()
  loadModels()
})
at('compare').addEventListener('change', layOut)
at('new').addEventListener('click', () => {
  for (const [i, side] of sides.entries()) reset(side, i)
  setStatus('A new conversation.')
  box.focus()
})
for (const [i, select] of selects.entries()) {
  select.addEventListener('change', () => {
    reset(sides[i], i)
    setStatus(`A new conversation with ${select.value}.`)
  })
}
for (const id of ['models', 'settings'])
  at(id).addEventListener('submit', (event) => event.preventDefault())
layOut()
loadModels()
