// The parts of the client that need no server: parsers, cursors, pauses.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  backoff,
  backoffCeiling,
  cursorAfter,
  cursorMerged,
  EventStreamParser,
  LineSplitter,
  parseCursor,
} from "../../src/web/client/halley.js";

const encode = (/** @type {string} */ text) => new TextEncoder().encode(text);

/** What a parser makes of bytes that come in pieces.
 * @template T @param {{ push(bytes: Uint8Array): T[] }} parser @param {Uint8Array} bytes @param {number[]} cuts */
function fed(parser, bytes, cuts) {
  const pieces = [0, ...cuts, bytes.length];
  return pieces.slice(1).flatMap((end, index) => parser.push(bytes.subarray(pieces[index], end)));
}

const STREAM = [
  "\uFEFFretry: 2500\nid: 1.0.0aabe3ff\n\n",
  ": a comment\n:\n\n",
  "id:2.0.0aabe3ff\r\ndata:  two spaces\r\ndata\r\ndata:c:d\r\n\r\n",
  "event: end\rdata: {\"a\":\"ü🚀\"}\rid\r\r",
  "unknown: x\n data: not a field\nid: a\0b\n\n",
  "data: never ended",
].join("");
const BLOCKS = [
  { id: "1.0.0aabe3ff" },
  {},
  { id: "2.0.0aabe3ff", data: " two spaces\n\nc:d" },
  { event: "end", data: '{"a":"ü🚀"}', id: "" },
  {},
];

test("an event stream is the same wherever its bytes are cut", () => {
  const bytes = encode(STREAM);
  assert.deepEqual(fed(new EventStreamParser(), bytes, []), BLOCKS);
  for (let first = 0; first <= bytes.length; first++) {
    assert.deepEqual(fed(new EventStreamParser(), bytes, [first]), BLOCKS, `cut at ${first}`);
    const second = Math.min(first + 1, bytes.length);
    assert.deepEqual(fed(new EventStreamParser(), bytes, [first, second]), BLOCKS, `byte ${first} alone`);
  }
  const each = Array.from(bytes, (_, index) => index);
  assert.deepEqual(fed(new EventStreamParser(), bytes, each), BLOCKS);
});

test("lines of JSON are cut at LF only, and within characters too", () => {
  const bytes = encode('{"a":"\u2028ü"}\n\n{"b":1}\r\n{"c"');
  for (let cut = 0; cut <= bytes.length; cut++) {
    assert.deepEqual(fed(new LineSplitter(/\n/), bytes, [cut]), ['{"a":"\u2028ü"}', "", '{"b":1}\r']);
  }
});

test("a cursor moves in the message's own sequence", () => {
  assert.equal(cursorAfter("3.4.0aabe3ff", { sequence: "direct", id: 9 }, "9.7.0aabe3ff"), "9.4.0aabe3ff");
  assert.equal(cursorAfter("3.4", { sequence: "group", id: 9 }, "3.9.0aabe3ff"), "3.9.0aabe3ff");
  assert.equal(cursorAfter(undefined, { sequence: "group", id: 2 }, undefined), "0.2");
  assert.equal(cursorAfter("now", { sequence: "group", id: 2 }, "5.2.0aabe3ff"), "now");
});

test("a cursor is merged with the end of a page, never back, and takes its log", () => {
  assert.equal(cursorMerged("3.9.00000001", "5.4.00000002"), "5.9.00000002");
  assert.equal(cursorMerged("now", "5.4.00000002"), "5.4.00000002");
  assert.equal(cursorMerged(undefined, "0.0.00000002"), "0.0.00000002");
  assert.equal(cursorMerged("5.4.00000002", undefined), "5.4.00000002");
  assert.equal(cursorMerged("5.4.00000002", ""), "5.4.00000002");
  assert.deepEqual(parseCursor("0"), { direct: 0, group: 0 });
  for (const wrong of ["now", "", "1", "1.2.3", "1.2.xyzxyzxy", "-1.2", "1.2.00000001.4", "undefined"]) {
    assert.equal(parseCursor(wrong), undefined, wrong);
  }
});

test("pauses double up to a limit and are random below it", () => {
  const timing = /** @type {any} */ ({ backoffMin: 500, backoffMax: 30_000 });
  const ceilings = [0, 1, 2, 5, 6, 7, 1000].map((failures) => backoffCeiling(failures, timing));
  assert.deepEqual(ceilings, [500, 1000, 2000, 16_000, 30_000, 30_000, 30_000]);
  const pauses = Array.from({ length: 1000 }, () => backoff(2, timing));
  assert.ok(Math.min(...pauses) >= 0 && Math.max(...pauses) < 2000);
  assert.ok(Math.min(...pauses) < 200 && Math.max(...pauses) > 1800, "the whole range is used");
});
