// What the tests of the JavaScript client share.

import assert from "node:assert/strict";
import { Halley } from "../../src/web/client/halley.js";
import { WebSocket } from "./support.mjs";

/** @typedef {import("../../src/web/client/halley.js").Message} Message */
/** @typedef {import("../../src/web/client/halley.js").Options} Options */

/** @type {import("../../src/web/client/halley.js").Transport[]} */
export const TRANSPORTS = ["poll", "stream", "sse", "socket"];

/** Times that suit a test. */
export const QUICK = { backoffMin: 20, backoffMax: 400, connect: 5000, request: 5000, grace: 1000 };

/** A place for a cursor, as `localStorage`. */
export class Storage {
  /** @type {Map<string, string>} */
  items = new Map();

  /** @param {string} key */
  getItem(key) {
    return this.items.get(key) ?? null;
  }

  /** @param {string} key @param {string} value */
  setItem(key, value) {
    this.items.set(key, value);
  }
}

/** A client that is stopped when the test ends.
 * @param {import("node:test").TestContext} t @param {Options} options */
export function client(t, options) {
  const halley = new Halley({ WebSocket, ...options, timing: { ...QUICK, ...options.timing } });
  t.after(() => halley.stop());
  return halley;
}

/** Keeps what a client hands over and reports. @param {Halley} halley */
export function recorded(halley) {
  const record = {
    /** @type {Message[]} */ messages: [],
    /** @type {import("../../src/web/client/halley.js").HalleyError[]} */ errors: [],
    /** @type {any[]} */ states: [],
    /** @type {any[]} */ resets: [],
    /** @type {any[]} */ gaps: [],
    get bodies() {
      return this.messages.map((message) => message.body);
    },
  };
  halley.on("message", (message) => void record.messages.push(message));
  halley.on("error", (error) => void record.errors.push(error));
  halley.on("state", (change) => void record.states.push(change));
  halley.on("reset", (reset) => void record.resets.push(reset));
  halley.on("gap", (gap) => void record.gaps.push(gap));
  return record;
}

/** Every message of the truth, once, in the order of each sequence, as it was stored.
 * @param {Message[]} given @param {Message[]} truth */
export function assertExact(given, truth) {
  for (const sequence of ["direct", "group"]) {
    const of = (/** @type {Message[]} */ messages) => messages.filter((one) => one.sequence === sequence);
    const ids = of(given).map((message) => message.id);
    assert.deepEqual(ids, of(truth).map((message) => message.id), `the ids of ${sequence}`);
    assert.deepEqual(of(given), of(truth));
  }
  assertChains(given);
}

/** Every message names the one before it in its conversation, and has the next number. @param {Message[]} given */
export function assertChains(given) {
  const ends = new Map();
  for (const { id, prev, n, group, from, to } of given) {
    const chain = group ?? [from, to].sort().join("|");
    const [last, number] = ends.get(chain) ?? [0, 0];
    assert.deepEqual([prev, n], [last, number + 1], `the chain ${chain} at ${id}`);
    ends.set(chain, [id, n]);
  }
}
