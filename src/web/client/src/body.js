import { HalleyError } from "./errors.js";

// What the server refuses in a body, as some clients could not read it. Here it is found before anything is sent.
const DEPTH_MAX = 64;
const NUMBER_CHARS_MAX = 400;
const KEY_BYTES_MAX = 32 * 1024;
/** The server's own limit is an option; this is the largest that it takes. */
const BODY_BYTES_MAX = 96 * 1024;

const STRINGS = /"[^"\\]*(?:\\.[^"\\]*)*"/g;
const LONG_NUMBER = new RegExp(`[-+.\\w]{${NUMBER_CHARS_MAX + 1}}`);
const LONE_SURROGATE = /\p{Surrogate}/u;
const TOO_DEEP = `arrays and objects are nested more than ${DEPTH_MAX} levels deep`;

/** A body as JSON. Throws if the server would refuse it. @param {unknown} body */
export function bodyJson(body) {
  const json = stringified(body);
  // JSON has no word for it, as for a function.
  if (json === undefined) throw new TypeError("`body` is missing, or is nothing that JSON can hold");
  const bytes = byteLength(json);
  if (bytes > BODY_BYTES_MAX) {
    throw new HalleyError("body_too_large", `the body has ${bytes} bytes of JSON; no server takes more than ${BODY_BYTES_MAX}`);
  }
  const fault = faultOf(json);
  if (fault) throw notPortable(fault);
  return json;
}

/** @param {unknown} body @returns {string | undefined} */
function stringified(body) {
  try {
    return JSON.stringify(body);
  } catch (cause) {
    // It throws a `TypeError` for what JSON cannot hold, and something else when the stack is too short.
    throw cause instanceof TypeError ? cause : notPortable(TOO_DEEP);
  }
}

/** @param {string} fault */
function notPortable(fault) {
  return new HalleyError("body_not_portable", `not every client can read this body: ${fault}`);
}

/** Why some clients could not read a body; nothing if all can. @param {string} json */
export function faultOf(json) {
  // Only `JSON.rawJSON` writes such numbers.
  if (LONG_NUMBER.test(json.replace(STRINGS, ""))) return `a number has more than ${NUMBER_CHARS_MAX} characters: write it as text`;
  return valueFault(JSON.parse(json), 0);
}

/** @param {any} value @param {number} depth of what it is in @returns {string | undefined} */
function valueFault(value, depth) {
  if (typeof value === "string") return textFault(value);
  if (value === Infinity || value === -Infinity) return "a number is beyond the range of a double: write it as text";
  if (typeof value !== "object" || value === null) return undefined;
  if (depth === DEPTH_MAX) return TOO_DEEP;
  for (const [key, inner] of Object.entries(value)) {
    const fault = keyFault(key) ?? valueFault(inner, depth + 1);
    if (fault) return fault;
  }
  return undefined;
}

/** @param {string} text */
function textFault(text) {
  return LONE_SURROGATE.test(text) ? "a text has half of a surrogate pair: it was cut within a character" : undefined;
}

/** @param {string} key */
function keyFault(key) {
  if (key.startsWith("\0")) return "a key begins with U+0000";
  if (byteLength(key) > KEY_BYTES_MAX) return `a key has more than ${KEY_BYTES_MAX} bytes`;
  return textFault(key);
}

/** @param {string} text in UTF-8 */
export function byteLength(text) {
  return new TextEncoder().encode(text).length;
}
