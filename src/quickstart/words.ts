/** The closed vocabulary of the tasks: words that belong to exactly one category. */
export const categories = {
  animal: 'bear cat deer dog duck fox goat lion owl wolf',
  fruit: 'apple cherry fig grape kiwi lemon mango melon pear plum',
  tool: 'axe brush clamp drill hammer hoe ladder rake saw shovel',
  colour: 'amber black blue brown green grey pink purple red white',
} as const

export type Category = keyof typeof categories

export const categoryNames: readonly Category[] = ['animal', 'fruit', 'tool', 'colour']

const wordsOf = new Map(categoryNames.map((name) => [name, categories[name].split(' ')]))

/** The words of a category. */
export function wordsIn(category: Category): readonly string[] {
  return wordsOf.get(category)!
}

/** All words, in the order of their categories. */
export const allWords: readonly string[] = categoryNames.flatMap((name) => [...wordsIn(name)])

const known = new Set(allWords)

/**
 * What a text says: its words of the vocabulary and its numbers, in order. Everything else is
 * wrapping, so that an answer is right or wrong whatever its style.
 */
export function contentOf(text: string): string[] {
  return (text.toLowerCase().match(/[a-z]+|\d+/g) ?? []).filter(
    (piece) => known.has(piece) || /^\d/.test(piece),
  )
}
