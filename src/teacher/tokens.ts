import type { Message } from '../data/conversation.js'

/**
 * Tokens of a conversation, estimated where the endpoint did not say: a token per 4 bytes of UTF-8, and
 * 4 per message for its header.
 */
export function estimateTokens(messages: readonly Message[]): number {
  return messages.reduce((sum, { content }) => sum + estimateText(content) + 4, 0)
}

/** A token per 4 bytes of UTF-8. */
export function estimateText(text: string): number {
  return Math.ceil(Buffer.byteLength(text) / 4)
}
