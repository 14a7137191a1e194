// Programs for the browser, as text: what is looked at there has no types here.

/** Ids of the controls without a label, levels of the headings, language. */
export const outline = `(() => {
  const controls = [...document.querySelectorAll('input, select, textarea, button')]
  const named = (one) => one.matches('button') ? [one] : [...one.labels]
  const nameless = controls.filter((one) => !named(one).some((label) => label.textContent.trim()))
  const headings = [...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.tagName[1]))
  const { lang } = document.documentElement
  return { controls: controls.length, nameless: nameless.map((one) => one.id), headings, lang }
})()`

/** Elements with text of their own whose contrast (WCAG 2.1) with what is behind them is under 4.5. */
export const lowContrast = String.raw`(() => {
  const parse = (colour) => colour.match(/[\d.]+/g).map(Number)
  const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((c) => {
      const s = c / 255
      return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4
    })
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor)
      if (colour[3] !== 0) return colour
    }
    return [255, 255, 255]
  }
  return [...document.querySelectorAll('body *')].flatMap((element) => {
    const own = [...element.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim())
    if (!own || !element.checkVisibility() || element.matches(':disabled, option')) return []
    const [a, b] = [luminance(parse(getComputedStyle(element).color)), luminance(behind(element))]
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    return contrast < 4.5 ? [element.tagName + ' ' + element.textContent + ': ' + contrast] : []
  })
})()`

/** Adds a script to the page; whether the page kept it from running. */
export const blocksScripts = `(() => {
  const script = document.createElement('script')
  script.textContent = 'window.owned = 3'
  document.body.append(script)
  return !('owned' in window)
})()`
