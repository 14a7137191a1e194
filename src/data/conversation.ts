/** One turn of a conversation. Roles are the template's business: usually system, user and assistant. */
export interface Message {
  role: string
  content: string
}
