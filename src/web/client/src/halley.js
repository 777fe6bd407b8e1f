/**
 * Client of Halley: receives a user's messages over WebSocket, SSE, a stream of lines or polls, each message once and
 * in order, across network failures and restarts of the server; sends messages and reads history.
 * One ES module for browsers and Node 20, without dependencies. `halley.d.ts` describes the interface.
 *
 * How it works: a *transport* is a generator of pages (`{messages, next}`) for one connection. It returns when it
 * should be opened again at once, and throws when something is wrong. `Halley` opens one after another, delivers
 * the messages, and only then moves the cursor. Every connection begins at the cursor, so it does not matter when
 * and how one ends.
 */

export { Halley } from "./client.js";
export { HalleyError } from "./errors.js";
