/** @import { Position, Sequence } from "./types.js" */

/** Reads `D.G` or `D.G.L`. Anything else, such as `now`, is no position yet.
 * @param {string | undefined} cursor @returns {Position | undefined} */
export function parseCursor(cursor) {
  if (cursor === undefined || cursor === "0") return { direct: 0, group: 0 };
  const parts = /^(\d+)\.(\d+)(?:\.([0-9a-f]{8}))?$/i.exec(cursor);
  if (!parts) return undefined;
  return { direct: Number(parts[1]), group: Number(parts[2]), tag: parts[3] };
}

/** @param {Position} position */
function cursorText({ direct, group, tag }) {
  return tag === undefined ? `${direct}.${group}` : `${direct}.${group}.${tag}`;
}

/** The cursor after one message of a page that ends with `next`: its own sequence moves, the other stays.
 * @param {string | undefined} cursor @param {{ sequence: Sequence, id: number }} message
 * @param {string | undefined} next */
export function cursorAfter(cursor, message, next) {
  const position = parseCursor(cursor);
  // `now` has no number to move; the end of the page has one.
  if (!position) return cursor;
  const tag = parseCursor(next)?.tag ?? position.tag;
  const id = Math.max(position[message.sequence], message.id);
  return cursorText({ ...position, [message.sequence]: id, tag });
}

/** The end of a page, but never back: what was delivered stays delivered.
 * @param {string | undefined} cursor @param {string | undefined} next */
export function cursorMerged(cursor, next) {
  const from = parseCursor(cursor);
  const to = parseCursor(next);
  if (!to) return cursor;
  if (!from) return next;
  return cursorText({
    direct: Math.max(from.direct, to.direct),
    group: Math.max(from.group, to.group),
    tag: to.tag ?? from.tag,
  });
}
