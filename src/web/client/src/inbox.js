/** @import { Gap, Message, Options, Reset } from "../halley.d.ts" */
/** @import { Connection } from "./connection.js" */
/** @import { Emitter } from "./emitter.js" */
/** @import { Run } from "./run.js" */
/** @import { Server } from "./server.js" */
/** @import { Page, Place } from "./types.js" */

import { Chains } from "./chains.js";
import { cursorAfter, cursorMerged, parseCursor } from "./cursor.js";
import { answered, asError, HalleyError, isTransient } from "./errors.js";
import { Handover } from "./readers.js";
import { errorOf, pathOf } from "./server.js";
import { StoredCursor } from "./stored-cursor.js";
import { Limit, sleep, unlessAborted } from "./time.js";

/** The server's own default. */
const HISTORY_PAGE = 100;

/** Delivers messages once and in order, and moves the cursor behind them. */
export class Inbox {
  #server;
  #emitter;
  #onReset;
  /** @type {StoredCursor | undefined} */
  #stored;
  /** @type {string | undefined} */
  #cursor;
  #restored = false;
  /** Rises when the cursor is set back: messages that were on their way before do not move it any more. */
  #epoch = 0;
  #chains = new Chains();
  /** Listeners that are at work. @type {Promise<void> | undefined} */
  #listening;
  #joined = () => {};

  /** @param {Server} server @param {Emitter} emitter @param {Options} options */
  constructor(server, emitter, { after, storage, storageKey, onReset }) {
    this.#server = server;
    this.#emitter = emitter;
    this.#cursor = after;
    this.#onReset = onReset;
    // The default name has the user in it: with another user's cursor, messages would be missed.
    const name = () => storageKey ?? `halley:${server.name}:${server.tokens.user}`;
    if (storage) this.#stored = new StoredCursor(storage, name, server.timing.request);
  }

  get cursor() {
    return this.#cursor;
  }

  /** Somebody takes messages now. */
  joined() {
    this.#joined();
  }

  /** Reads the stored cursor, once. @param {Connection} connection */
  async restore(connection) {
    const { signal } = connection;
    if (this.#stored) {
      // The user's name, which is in the token.
      connection.token = await this.#server.tokens.get(signal);
      await this.#stored.hold(signal);
      const stored = this.#restored ? undefined : await this.#stored.read(signal);
      if (stored && parseCursor(stored)) this.#cursor = stored;
    }
    this.#restored = true;
  }

  /** Another client may use the stored cursor. */
  release() {
    this.#stored?.release();
  }

  /** Delivers a page. @param {Run} run @param {Connection} connection @param {Page} page */
  async take(run, connection, page) {
    const { signal } = connection;
    this.#chains.begin(parseCursor(this.#cursor));
    for (const message of page.messages) {
      if (signal.aborted) return;
      if (this.#isRepeat(message)) continue;
      await this.#fillGap(run, connection, message);
      if (signal.aborted) return;
      await this.#deliver(run, message, cursorAfter(this.#cursor, message, page.next));
    }
    if (!signal.aborted) await this.#move(cursorMerged(this.#cursor, page.next));
  }

  /** @param {Message} message */
  #isRepeat(message) {
    const delivered = parseCursor(this.#cursor)?.[message.sequence] ?? 0;
    return message.id <= Math.max(delivered, this.#chains.end(message)?.id ?? 0);
  }

  /** Gives a message to all; the cursor moves when they are done.
   * @param {Run} run @param {Message} message @param {string | undefined} cursor */
  async #deliver(run, message, cursor) {
    await unlessAborted(this.#deliverNow(run, message, cursor), run.released);
  }

  /** @param {Run} run @param {Message} message @param {string | undefined} cursor */
  async #deliverNow(run, message, cursor) {
    const epoch = this.#epoch;
    await this.#someoneListens(run);
    if (run.signal.aborted) return;
    const listening = (this.#listening = this.#callListeners(message, cursor));
    await listening;
    if (this.#listening === listening) this.#listening = undefined;
    const commit = async () => {
      if (epoch !== this.#epoch) return;
      this.#chains.seen(message);
      await this.#move(cursorMerged(this.#cursor, cursor));
    };
    const readers = [...run.readers];
    if (readers.length === 0) return commit();
    const handover = new Handover(readers.length, commit);
    for (const reader of readers) reader.give(message, handover);
    await handover.complete;
  }

  /** A message that nobody takes would be lost, so it waits. @param {Run} run */
  async #someoneListens(run) {
    while (this.#emitter.of("message").size + run.readers.size === 0 && !run.signal.aborted) {
      await new Promise((resolve) => (this.#joined = () => resolve(undefined)));
    }
  }

  /** @param {Message} message @param {string | undefined} cursor */
  async #callListeners(message, cursor) {
    for (const listener of [...this.#emitter.of("message")]) {
      try {
        await listener(message, cursor ?? "");
      } catch (cause) {
        const name = `${message.sequence} ${message.id}`;
        const detail = `a listener of message failed at ${name}: ${cause}`;
        this.#emitter.emit("error", new HalleyError("listener_failed", detail, { cause }));
      }
    }
  }

  /** Waits for listeners that are at work; not for ever, as one of them may be waiting for this very stop. */
  async listenersDone() {
    const listening = this.#listening;
    if (!listening) return;
    const grace = new Limit();
    void listening.then(() => grace.close());
    await sleep(this.#server.timing.grace, grace.signal);
  }

  /** @param {string | undefined} cursor */
  async #move(cursor) {
    if (cursor === undefined || cursor === this.#cursor) return;
    this.#cursor = cursor;
    this.#emitter.emit("cursor", cursor);
    try {
      await this.#stored?.write(cursor);
    } catch (error) {
      this.#emitter.emit("error", asError(error));
    }
  }

  /** If messages are missing before this one in its conversation or group, delivers them first.
   * @param {Run} run @param {Connection} connection @param {Message} message */
  async #fillGap(run, connection, message) {
    const known = this.#chains.end(message);
    if (!known || Chains.follows(known, message)) return;
    const after = known.id;
    const { sequence, id: before } = message;
    const place = this.#placeOf(message);
    /** @type {Message[]} */
    const messages = [];
    let end = known;
    let complete = true;
    for await (const missing of this.#between(connection, place, after, before)) {
      if (connection.signal.aborted) return;
      complete &&= Chains.follows(end, missing);
      end = missing;
      messages.push(missing);
      // The cursor stays: other messages that are still to come may lie before this one.
      await this.#deliver(run, missing, this.#cursor);
    }
    complete &&= Chains.follows(end, message);
    const gap = { sequence, with: place.user, group: place.group, after, before, messages, complete };
    this.#emitter.emit("gap", /** @type {Gap} */ (gap));
  }

  /** @param {Message} message @returns {Place} */
  #placeOf({ group, from, to }) {
    if (group !== undefined) return { group };
    return { user: from === this.#server.tokens.user ? to : from };
  }

  /** History between two ids. A refusal ends it: what the user may not see cannot be filled in.
   * @param {Connection} connection @param {Place} place @param {number} after @param {number} before
   * @returns {AsyncGenerator<Message, void>} */
  async *#between(connection, place, after, before) {
    for (;;) {
      const page = await this.#historyPage(connection, place, after);
      for (const message of page.messages) {
        if (message.id >= before) return;
        yield message;
        after = message.id;
      }
      if (!page.more || page.messages.length === 0) return;
    }
  }

  /** @param {Connection} connection @param {Place} place @param {number} after
   * @returns {Promise<{ messages: Message[], more: boolean }>} */
  async #historyPage(connection, place, after) {
    const limit = new Limit(connection.signal);
    limit.expect(this.#server.timing.request);
    try {
      const url = this.#server.address(`v1/${pathOf(place)}/messages`, { after, limit: HISTORY_PAGE });
      return await this.#server.requestJson(connection, url, limit);
    } catch (cause) {
      const error = errorOf(cause, limit);
      if (!answered(error) || isTransient(error) || error.status === 401) throw error;
      return { messages: [], more: false };
    } finally {
      limit.close();
    }
  }

  /** The server cannot continue from the cursor. @param {Run} run @param {HalleyError} error */
  async reset(run, error) {
    const restart = String(error.problem?.restart ?? error.problem?.first);
    const code = /** @type {Reset["code"]} */ (error.code);
    const reset = { code, restart, cursor: this.#cursor, detail: error.detail };
    this.#emitter.emit("reset", reset);
    if ((await this.#decision(run, reset)) === "stop") throw error.with({ fatal: true });
    this.#epoch += 1;
    this.#chains.cut(code === "log_unknown" ? undefined : parseCursor(restart));
    await this.#move(restart);
  }

  /** What the application wants then. It may ask its user, which takes time. @param {Run} run @param {Reset} reset */
  async #decision(run, reset) {
    try {
      return await unlessAborted(Promise.resolve(this.#onReset?.(reset)), run.signal);
    } catch (cause) {
      throw new HalleyError("listener_failed", `\`onReset\` failed: ${cause}`, { cause });
    }
  }
}
