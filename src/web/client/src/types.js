// Types that several modules share. Nothing of this file is in `halley.js`.

/** @import { Message } from "../halley.d.ts" */

/**
 * What a transport yields: messages, and the cursor after them.
 * @typedef {{ messages: Message[], next?: string, more?: boolean }} Page
 */
/**
 * Why the server ends a stream.
 * @typedef {{ code: string, detail?: string, reconnect?: boolean, next?: string }} Ending
 */
/** @typedef {"direct" | "group"} Sequence */
/** @typedef {{ direct: number, group: number, tag?: string }} Position */
/** @typedef {{ id: number, n?: number }} ChainEnd the last message of a conversation or group; where only an id is known
 * behind which nothing was seen, it has no number */
/** @typedef {Record<string, string | number | undefined>} Query */
/** @typedef {{ user?: string, group?: string }} Place where messages go to and are kept */

export {};
