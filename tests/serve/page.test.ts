import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { chromiumPath, openBrowser } from '../support/browser.js'
import { blocksScripts, lowContrast, outline } from '../support/page-checks.js'
import { FakeEngine } from './fake-engine.js'
import { fakeServer, until } from './support.js'

const title = chromiumPath
  ? 'the chat page in Chromium'
  : 'the chat page (skipped: no Chromium; install it, or name it in CHROMIUM)'

describe.skipIf(!chromiumPath)(title, () => {
  let browser: Browser
  beforeAll(async () => {
    browser = await openBrowser()
  })
  afterAll(() => browser.close())

  /** A server of these models, each saying what it is told, and its page in a fresh browser session. */
  async function open(
    says: Record<string, string>,
    options: Parameters<typeof fakeServer>[0] & { context?: BrowserContextOptions } = {},
  ) {
    const server = await fakeServer({ ids: Object.keys(says), ...options })
    const engines = Object.values(says).map((text) => {
      const engine = new FakeEngine()
      engine.says = server.tokenizer.encode(text)
      return engine
    })
    server.serving.models = server.serving.models.map((model, i) => ({
      ...model,
      engine: engines[i]!,
    }))
    const context = await browser.newContext(options.context ?? {})
    onTestFinished(() => context.close())
    const page = await context.newPage()
    page.setDefaultTimeout(5000)
    const complaints: string[] = []
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) complaints.push(message.text())
    })
    page.on('pageerror', (error) => complaints.push(String(error)))
    await page.goto(server.url)
    return { ...server, engine: engines[0]!, engines, page, context, complaints }
  }

  /** The element with the focus: its id, or its class, or its name. */
  const focused = (page: Page) =>
    page.evaluate<string>(
      '(({ id, className, localName }) => id || className || localName)(document.activeElement)',
    )
  const status = (page: Page) => page.getByRole('status')
  const box = (page: Page) => page.getByRole('textbox', { name: 'Message' })
  const log = (page: Page, model: string) =>
    page.getByRole('log', { name: `Conversation with ${model}` })
  /** Texts of the turns of a conversation, in order. */
  const turns = async (page: Page, model: string) =>
    (await log(page, model).locator('p').allTextContents()).map((text) => text.trim())
  const soon = <T>(value: () => Promise<T>) => expect.poll(value, { timeout: 10_000 })
  /** What a model was sent last, as text. */
  const sent = ({
    engine,
    tokenizer,
  }: Pick<Awaited<ReturnType<typeof open>>, 'engine' | 'tokenizer'>) =>
    tokenizer.decode(engine.requests.at(-1)!.ids)

  it('shows an answer while it streams, and sends the conversation with the next message', async () => {
    const it = await open({ tiny: 'one two three four five' })
    const { page, engine, complaints } = it
    engine.msPerToken = 150
    await page.getByText('Ready: tiny.').waitFor()
    await box(page).fill('Hello there')
    await page.getByRole('button', { name: 'Send' }).click()
    await soon(async () => (await turns(page, 'tiny'))[1]).toMatch(/^one.*/)
    expect(await turns(page, 'tiny')).not.toContain('one two three four five')
    expect(await log(page, 'tiny').getAttribute('aria-busy')).toBe('true')
    await page.getByText('Done.').waitFor()
    expect(await turns(page, 'tiny')).toEqual(['Hello there', 'one two three four five'])
    expect(await log(page, 'tiny').getAttribute('aria-busy')).toBe('false')

    await box(page).fill('And more')
    await box(page).press('Enter')
    await soon(() => turns(page, 'tiny')).toHaveLength(4)
    await page.getByText('Done.').waitFor()
    const prompt = sent(it)
    const order = ['Hello there', 'one two three four five', 'And more'].map((text) =>
      prompt.indexOf(text),
    )
    expect(order).toEqual([...order].sort((a, b) => a - b))
    expect(order[0]).toBeGreaterThanOrEqual(0)
    expect(complaints).toEqual([])
  })

  it('is used by the keyboard alone: Enter sends, Shift+Enter is a new line, Esc stops, the box has the focus', async () => {
    const it = await open({ tiny: 'word '.repeat(40) })
    const { page, engine, complaints } = it
    engine.msPerToken = 30
    await page.getByText('Ready: tiny.').waitFor()
    expect(await focused(page)).toBe('message')
    await page.keyboard.type('first')
    await page.keyboard.press('Shift+Enter')
    await page.keyboard.type('second')
    expect(engine.requests).toHaveLength(0)
    await page.keyboard.press('Enter')
    await soon(async () => (await turns(page, 'tiny'))[1] ?? '').toContain('word')
    await page.keyboard.press('Escape')
    await page.getByText('Stopped.').first().waitFor()
    await until(() => engine.aborted === 1 && engine.active === 0) // the server stopped computing, too
    expect((await turns(page, 'tiny'))[0]).toBe('first\nsecond')
    expect(await turns(page, 'tiny')).toContain('Stopped.')
    expect(await focused(page)).toBe('message')

    engine.says = []
    await page.keyboard.type('go on')
    await page.keyboard.press('Enter')
    await page.getByText('Done.').waitFor()
    expect(sent(it)).toContain('first\nsecond')
    expect(sent(it)).toMatch(/word.*go on/s) // what was said before the stop counts

    // The order of the focus is that of the page.
    const order: (string | null)[] = []
    await page.getByLabel('Model', { exact: true }).focus()
    for (let i = 0; i < 5; i++) {
      order.push(await focused(page))
      await page.keyboard.press('Tab')
    }
    expect(order).toEqual(['model-a', 'new', 'summary', 'log', 'message'])
    expect(complaints).toEqual([])
  })

  it('the stop button stops, and gives the focus back to the box', async () => {
    const { page, engine } = await open({ tiny: 'word '.repeat(40) })
    engine.msPerToken = 30
    await page.getByText('Ready: tiny.').waitFor()
    expect(await page.getByRole('button', { name: 'Stop' }).isDisabled()).toBe(true)
    await box(page).fill('go')
    await box(page).press('Enter')
    await page.getByRole('button', { name: 'Stop' }).click()
    await page.getByText('Stopped.').first().waitFor()
    await until(() => engine.active === 0)
    expect(await focused(page)).toBe('message')
    expect(await page.getByRole('button', { name: 'Send' }).isEnabled()).toBe(true)
  })

  it('two models answer the same messages at the same time, each with its own conversation', async () => {
    const { page, engines, tokenizer, complaints } = await open({
      sft: 'plain answer',
      dpo: 'better answer',
    })
    const [sft, dpo] = engines
    sft!.msPerToken = dpo!.msPerToken = 60
    await page.getByText('Ready: sft, dpo.').waitFor()
    await page.getByRole('checkbox', { name: 'Compare' }).check()
    expect(await page.getByLabel('with', { exact: true }).inputValue()).toBe('dpo')
    await box(page).fill('the question')
    await box(page).press('Enter')
    await until(() => sft!.active === 1 && dpo!.active === 1)
    await page.getByText('Done.').waitFor()
    expect(await turns(page, 'sft')).toEqual(['the question', 'plain answer'])
    expect(await turns(page, 'dpo')).toEqual(['the question', 'better answer'])
    await box(page).fill('again')
    await box(page).press('Enter')
    await until(() => sft!.requests.length === 2 && dpo!.requests.length === 2)
    const prompts = engines.map((engine) => tokenizer.decode(engine.requests[1]!.ids))
    expect(prompts[0]).toContain('plain answer')
    expect(prompts[0]).not.toContain('better')
    expect(prompts[1]).toContain('better answer')
    expect(complaints).toEqual([])
  })

  it('sends the settings and the system prompt, and begins a new conversation', async () => {
    const it = await open({ tiny: 'yes' })
    const { page, engine } = it
    await page.getByText('Ready: tiny.').waitFor()
    await page.getByText('Settings').click()
    await page.getByLabel('Temperature').fill('0.3')
    await page.getByLabel('Max tokens').fill('7')
    await page.getByLabel('Seed').fill('11')
    await page.getByLabel('System prompt').fill('Be brief.')
    await box(page).fill('old')
    await box(page).press('Enter')
    await page.getByText('Done.').waitFor()
    expect(engine.requests[0]).toMatchObject({ temperature: 0.3, maxNewTokens: 7, seed: 11 })
    expect(sent(it)).toContain('Be brief.')
    await page.getByRole('button', { name: 'New conversation' }).click()
    expect(await turns(page, 'tiny')).toEqual([])
    expect(await focused(page)).toBe('message')
    await page.keyboard.type('new')
    await page.keyboard.press('Enter')
    await page.getByText('Done.').waitFor()
    expect(sent(it)).not.toContain('old')

    await page.getByLabel('Temperature').fill('-1')
    await box(page).fill('never sent')
    await box(page).press('Enter')
    expect(await focused(page)).toBe('temperature')
    expect(engine.requests).toHaveLength(2)
  })

  it('says errors in words with what to do, and leaves the message in the box', async () => {
    const { page, engine, app, serving, gate } = await open(
      { tiny: 'fine' },
      { maxQueue: 0, places: 1 },
    )
    const alert = page.getByRole('alert')
    await page.getByText('Ready: tiny.').waitFor()
    await box(page).fill('x'.repeat(3000))
    await box(page).press('Enter')
    await expect
      .poll(() => alert.textContent())
      .toMatch(/too long for this model.*New conversation|new conversation/s)
    expect(await box(page).inputValue()).toHaveLength(3000)

    await gate.enter(new AbortController().signal, true)
    await box(page).fill('hi')
    await box(page).press('Enter')
    await expect
      .poll(() => alert.textContent())
      .toMatch(/^The server is busy: .* Send again in \d+ s\.$/)
    gate.leave()

    engine.failure = { before: 2, error: new Error('a fault') }
    engine.says = [...engine.says, ...engine.says, ...engine.says]
    await box(page).press('Enter')
    await soon(() => alert.textContent()).toMatch(/^The (answer broke off|server failed): /)
    expect(await box(page).inputValue()).toBe('hi')
    engine.failure = undefined

    await box(page).press('Enter')
    await page.getByText('Done.').waitFor()
    expect(await alert.isVisible()).toBe(false)
    expect(engine.requests.at(-1)!.ids.length).toBeLessThan(60) // what failed is no part of the conversation

    await serving.drain(0)
    await app.close()
    await box(page).fill('anyone?')
    await box(page).press('Enter')
    await expect
      .poll(() => alert.textContent())
      .toMatch(/does not answer. Look whether westwind serve still runs/)
  })

  it('asks for an API key only where the server wants one', async () => {
    const { page, engine } = await open({ tiny: 'open' }, { apiKey: 'secret' })
    await soon(() => status(page).textContent()).toMatch(/needs an API key/)
    const key = page.getByLabel('API key')
    expect(await focused(page)).toBe('key')
    await page.keyboard.type('wrong')
    await page.keyboard.press('Enter')
    await soon(() => status(page).textContent()).toMatch(/not the one of this server/)
    await key.fill('secret')
    await key.press('Enter')
    await page.getByText('Ready: tiny.').waitFor()
    expect(await key.isVisible()).toBe(false)
    await box(page).fill('hi')
    await box(page).press('Enter')
    await page.getByText('Done.').waitFor()
    expect(engine.requests).toHaveLength(1)

    const { page: without } = await open({ tiny: 'open' })
    await without.getByText('Ready: tiny.').waitFor()
    expect(await without.getByLabel('API key').isVisible()).toBe(false)
  })

  it('waits for a model that is still loading', async () => {
    const { page, serving } = await open({ tiny: 'here' }, { loading: true })
    await page.getByText('The model is still loading.').waitFor()
    serving.state = 'ready'
    await page.getByText('Ready: tiny.').waitFor()
  })

  it('executes nothing that a model or a user says', async () => {
    const hostile = '<img src=x onerror="owned=1"><script>owned=2</script>'
    const { page, complaints } = await open({ tiny: hostile })
    await page.getByText('Ready: tiny.').waitFor()
    await box(page).fill('<b>hi</b>')
    await box(page).press('Enter')
    await page.getByText('Done.').waitFor()
    expect(await turns(page, 'tiny')).toEqual(['<b>hi</b>', hostile])
    expect(await log(page, 'tiny').locator('img, script, b').count()).toBe(0)
    expect(await page.evaluate("'owned' in window")).toBe(false)
    // Nor would it if it became markup: the page takes scripts from files of its own alone.
    expect(await page.evaluate(blocksScripts)).toBe(true)
    expect(complaints.filter((text) => !text.includes('Content Security Policy'))).toEqual([])
  })

  it('has a name and a role for everything, no cookie, and nothing that it keeps', async () => {
    const { page, context } = await open({ sft: 'a', dpo: 'b' })
    await page.getByText('Ready: sft, dpo.').waitFor()
    await page.getByRole('checkbox', { name: 'Compare' }).check()
    await page.getByText('Settings').click()
    const found = await page.evaluate<{ controls: number }>(outline)
    expect(found).toMatchObject({ nameless: [], headings: [1, 2, 2], lang: 'en' })
    expect(found.controls).toBeGreaterThan(10)
    await page.getByRole('main').waitFor()
    await page.getByRole('banner').waitFor()
    for (const name of ['sft', 'dpo']) {
      await page.getByRole('heading', { name, level: 2 }).waitFor()
      expect(await log(page, name).getAttribute('aria-live')).toBe('polite')
    }
    expect(await context.cookies()).toEqual([])
    expect(await page.evaluate('localStorage.length + sessionStorage.length')).toBe(0)
  })

  it.each(['light', 'dark'] as const)(
    'every text has a contrast of at least 4.5, %s',
    async (colorScheme) => {
      const { page } = await open(
        { sft: 'a', dpo: 'b' },
        { context: { colorScheme, reducedMotion: 'reduce' } },
      )
      await page.getByText('Ready: sft, dpo.').waitFor()
      await page.getByText('Settings').click()
      await box(page).fill('hi')
      await box(page).press('Enter')
      await page.getByText('Done.').waitFor()
      expect(await page.evaluate(lowContrast)).toEqual([])
    },
  )
})
