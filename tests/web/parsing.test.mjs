// The parts of the client that need no server: parsers, cursors, pauses, bodies.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bodyJson, faultOf } from "../../src/web/client/src/body.js";
import { cursorAfter, cursorMerged, parseCursor } from "../../src/web/client/src/cursor.js";
import { EventStreamParser, LineSplitter } from "../../src/web/client/src/parsers.js";
import { backoff, backoffCeiling } from "../../src/web/client/src/time.js";

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

/** @param {number} depth @param {(inner: unknown) => unknown} wrap */
const nested = (depth, wrap) => Array.from({ length: depth }).reduce(wrap, 1);

test("a body that the server would refuse is refused with a reason, and no other", () => {
  const array = (/** @type {unknown} */ inner) => [inner];
  const object = (/** @type {unknown} */ inner) => ({ inner });
  const good = [
    null,
    "",
    "half \\ud83d as text, a whole \u{1f680}, ]}[{ and \" \\",
    "7".repeat(1000),
    { "[[": "[".repeat(1000), '\\"{': 1 },
    [-1.5e-300, Number.MAX_VALUE, 1 / 3],
    nested(64, array),
    nested(64, object),
    { "": 1, "k\0": 1, ["k".repeat(32 * 1024)]: "\0" },
    Array.from({ length: 1000 }, () => [[]]),
    "x".repeat(96 * 1024 - 2),
  ];
  for (const body of good) assert.equal(bodyJson(body), JSON.stringify(body));
  /** @type {[unknown, string, RegExp][]} */
  const bad = [
    [nested(65, array), "body_not_portable", /64 levels/],
    [nested(1100, object), "body_not_portable", /64 levels/],
    [[1, { a: nested(63, array) }], "body_not_portable", /64 levels/],
    ["cut: \u{1f680}".slice(0, -1), "body_not_portable", /surrogate/],
    [{ deep: [{ text: "\udc00" }] }, "body_not_portable", /surrogate/],
    [{ "name\ud800": 1 }, "body_not_portable", /surrogate/],
    ["\udc00\ud800", "body_not_portable", /surrogate/],
    ["\\\ud800", "body_not_portable", /surrogate/],
    [nested(40_000, array), "body_not_portable", /64 levels/],
    [{ a: [{ "\0key": 1 }] }, "body_not_portable", /U\+0000/],
    [{ ["k".repeat(32 * 1024 + 1)]: 1 }, "body_not_portable", /32768 bytes/],
    ["x".repeat(96 * 1024 - 1), "body_too_large", /98305 bytes/],
    ["\u754c".repeat(40_000), "body_too_large", /120002 bytes/],
  ];
  for (const [body, code, detail] of bad) assert.throws(() => bodyJson(body), { code, detail, status: 0 });
  for (const body of [undefined, () => 1, Symbol("s")]) assert.throws(() => bodyJson(body), /`body` is missing/);
  // Written by `JSON.rawJSON`, where there is one.
  assert.equal(faultOf(`[0.${"9".repeat(398)},"${"9".repeat(500)}","\\ud83d\\ude80"]`), undefined);
  assert.match(faultOf(`{"a":-${"9".repeat(400)}}`) ?? "", /400 characters/);
  assert.match(faultOf(`[1.${"0".repeat(400)}]`) ?? "", /400 characters/);
  assert.match(faultOf("[-1e999]") ?? "", /range of a double/);
  assert.match(faultOf(`["\\uD83D\\u0041"]`) ?? "", /surrogate/);
});
