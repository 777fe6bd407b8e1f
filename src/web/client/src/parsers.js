import { HalleyError } from "./errors.js";

/** No line of Halley's is longer. */
const LINE_CHARS_MAX = 64 * 1024 * 1024;

/** @param {string} text @returns {any} */
export function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new HalleyError("bad_reply", "the reply is not JSON", { cause });
  }
}

/** Splits bytes into lines. The bytes may be cut anywhere, also within a character or between CR and LF. */
export class LineSplitter {
  #decoder = new TextDecoder(); // removes the byte order mark
  #ends;
  #rest = "";
  #afterReturn = false;

  /** @param {RegExp} ends what ends a line */
  constructor(ends = /\r\n|\r|\n/) {
    this.#ends = ends;
  }

  /** @param {Uint8Array} bytes @returns {string[]} the lines that are complete now */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return [];
    // The CR ended a line already; this LF belongs to it.
    if (this.#afterReturn && text.startsWith("\n")) text = text.slice(1);
    this.#afterReturn = text.endsWith("\r") && this.#ends.test("\r");
    const lines = (this.#rest + text).split(this.#ends);
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > LINE_CHARS_MAX) {
      throw new HalleyError("bad_reply", `a line of the reply is longer than ${LINE_CHARS_MAX} characters`);
    }
    return lines;
  }
}

/**
 * Reads `text/event-stream`. Blocks without data are returned too: an `id` alone moves the cursor.
 * @typedef {{ event?: string, data?: string, id?: string }} Block
 */
export class EventStreamParser {
  #lines = new LineSplitter();
  /** @type {Block} */
  #block = {};

  /** @param {Uint8Array} bytes @returns {Block[]} the blocks that are complete now */
  push(bytes) {
    const blocks = [];
    for (const line of this.#lines.push(bytes)) {
      if (line === "") {
        blocks.push(this.#block);
        this.#block = {};
      } else {
        this.#field(line);
      }
    }
    return blocks;
  }

  /** @param {string} line */
  #field(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    const block = this.#block;
    if (name === "data") block.data = block.data === undefined ? value : `${block.data}\n${value}`;
    else if (name === "event") block.event = value;
    else if (name === "id" && !value.includes("\0")) block.id = value;
    // A comment has no name. `retry` is for EventSource: this client has its own pauses.
  }
}
