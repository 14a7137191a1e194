import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, it } from 'vitest'
import { report } from '../../src/report/report.js'
import { chromiumPath, openBrowser } from '../support/browser.js'
import { lowContrast } from '../support/page-checks.js'

const title = chromiumPath
  ? 'in Chromium, without JavaScript,'
  : '(skipped: no Chromium; install it, or name it in CHROMIUM)'

it.skipIf(!chromiumPath)(
  `${title} all of a report is there, by keyboard, with contrast, and from no other file`,
  async () => {
    const dir = await mkdtemp(join(tmpdir(), 'westwind-report-browser-'))
    const browser = await openBrowser()
    try {
      const lines = [12, 7.5, 3].map((loss, i) => JSON.stringify({ step: i + 1, loss }))
      await writeFile(join(dir, 'metrics.jsonl'), `${lines.join('\n')}\n`)
      await report({ runs: [dir], out: join(dir, 'report.html') })
      for (const colorScheme of ['light', 'dark'] as const) {
        const page = await browser.newPage({ colorScheme, javaScriptEnabled: false })
        const asked: string[] = []
        page.on('request', (request) => asked.push(request.url()))
        const url = pathToFileURL(join(dir, 'report.html')).href
        await page.goto(url)
        await page.getByRole('img', { name: 'training: loss' }).waitFor()
        expect(await page.getByRole('table').count()).toBe(2) // the values of the chart are folded
        await page.keyboard.press('Tab')
        await page.keyboard.press('Enter')
        const values = page.getByRole('table', { name: 'Values of training: loss' })
        expect(await values.getByRole('cell').allTextContents()).toEqual(['12', '7.5', '3'])
        expect(await values.getByRole('rowheader').allTextContents()).toEqual(['1', '2', '3'])
        expect(await page.evaluate(lowContrast)).toEqual([])
        expect(asked).toEqual([url])
      }
    } finally {
      await browser.close()
      await rm(dir, { recursive: true, force: true })
    }
  },
)
