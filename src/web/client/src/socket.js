/** @import { WebSocketLike } from "../halley.d.ts" */
/** @import { Connection } from "./connection.js" */
/** @import { Ending, Page } from "./types.js" */

import { connectionLost, problemError, timedOut } from "./errors.js";
import { parseJson } from "./parsers.js";
import { ended } from "./streams.js";
import { Limit, sleep, TIMER_MS_MAX, unlessAborted } from "./time.js";

/** What a socket may hold for an application that is slower than the server. */
const QUEUE_CHARS_MAX = 8 * 1024 * 1024;
/** Between two renewals of a token, at least. */
const RENEW_MS_MIN = 200;
/** How long the peer may take to answer a close frame. */
const GOODBYE_MS = 500;

/** What the codes of close frames stand for. @type {Record<number, string>} */
const CLOSE_CODES = {
  1001: "closing",
  1008: "too_many_frames",
  1009: "body_too_large",
  1011: "internal",
  4000: "stream_over",
  4001: "token_expired",
  4008: "silent",
};

/** @param {Connection} connection @returns {AsyncGenerator<Page, void>} */
export async function* frames(connection) {
  const { tokens } = connection.server;
  connection.token = await tokens.get(connection.signal);
  const socket = new Socket(connection);
  connection.closing(socket.closed);
  try {
    for (;;) {
      const page = await socket.next();
      if (!page) return ended(connection, socket.ending ?? { code: "connection_lost" });
      if (!connection.spoken) {
        tokens.accepted();
        connection.offerSocket(socket);
        connection.live();
      }
      yield page;
    }
  } finally {
    connection.offerSocket(undefined);
    socket.close();
  }
}

/** A WebSocket: pages wait in a queue until they are taken, answers go to their callers. */
export class Socket {
  /** @type {WebSocketLike} */
  #socket;
  #connection;
  /** @type {{ page: Page, chars: number }[]} */
  #queue = [];
  #queuedChars = 0;
  /** @type {(() => void) | undefined} */
  #wake;
  /** @type {Map<string, { resolve: (answer: any) => void, reject: (error: Error) => void }>} */
  #asked = new Map();
  #asks = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #watch;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #renewal;
  #presenting = false;
  #abort = () => this.#end({ code: "stopped" });
  /** @type {() => void} */
  #gone = () => {};
  /** Resolves when nothing is left of it. @type {Promise<void>} */
  closed = new Promise((resolve) => (this.#gone = resolve));
  /** Why it ended. @type {Ending | undefined} */
  ending;

  /** @param {Connection} connection */
  constructor(connection) {
    this.#connection = connection;
    const { server, signal } = connection;
    const url = server.address("v1/inbox/ws", {
      after: connection.cursor,
      heartbeat: server.heartbeat,
      token: connection.token, // a browser cannot set headers here
    });
    url.protocol = url.protocol.replace("http", "ws");
    if (!server.WebSocket) throw new TypeError("there is no WebSocket");
    this.#socket = new server.WebSocket(url.href);
    this.#listen();
    signal.addEventListener("abort", this.#abort);
    this.#watchSoon();
    this.#renewLater();
    // Last, as it ends what was begun above.
    if (signal.aborted) this.#abort();
  }

  #listen() {
    this.#socket.onmessage = (/** @type {{ data: unknown }} */ event) => this.#take(event.data);
    this.#socket.onclose = (/** @type {{ code: number, reason: string }} */ { code, reason }) => {
      this.#end({ code: CLOSE_CODES[code] ?? "connection_lost", detail: `the socket was closed with ${code} ${reason}` });
      this.#gone();
    };
    // A socket fires this only when it has failed. In browsers `onclose` follows, without a reason; in Node 22 it does
    // not when the server refused the connection.
    this.#socket.onerror = (/** @type {{ message?: string }} */ { message = "" } = {}) => {
      this.#end({ code: "connection_lost", detail: `the socket failed ${message}`.trim() });
      this.#gone();
    };
  }

  get token() {
    return this.#connection.token;
  }

  /** The next page; none when it has ended and everything was taken. @returns {Promise<Page | undefined>} */
  async next() {
    while (this.#queue.length === 0 && !this.ending) {
      await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
    }
    const first = this.#queue.shift();
    if (first) this.#queuedChars -= first.chars;
    return first?.page;
  }

  /** Sends an object and waits for its answer.
   * @param {object} object @param {AbortSignal} signal @returns {Promise<any>} */
  async ask(object, signal) {
    if (this.ending) throw connectionLost();
    const ref = `r${(this.#asks += 1)}`;
    try {
      const answer = new Promise((resolve, reject) => this.#asked.set(ref, { resolve, reject }));
      // It may be rejected before anybody waits for it.
      answer.catch(() => {});
      this.#socket.send(JSON.stringify({ ...object, ref }));
      return await unlessAborted(answer, signal);
    } finally {
      this.#asked.delete(ref);
    }
  }

  close() {
    this.#end({ code: "stopped" });
  }

  /** @param {unknown} data */
  #take(data) {
    if (this.ending) return;
    this.#connection.heard();
    try {
      const object = parseJson(String(data));
      if (object.messages) this.#enqueue(object, String(data).length);
      else this.#answer(object);
    } catch {
      this.#end({ code: "bad_reply", detail: "a frame is not the expected JSON" });
    }
  }

  /** @param {Page} page @param {number} chars */
  #enqueue(page, chars) {
    this.#queue.push({ page, chars });
    this.#queuedChars += chars;
    this.#wake?.();
    // Browsers keep reading however slow the application is. What is cut off here comes again.
    if (this.#queuedChars > QUEUE_CHARS_MAX) {
      this.#end({ code: "too_slow", detail: `more than ${QUEUE_CHARS_MAX} characters of messages wait for the application` });
    }
  }

  /** @param {any} answer */
  #answer(answer) {
    const asked = this.#asked.get(answer.ref);
    if (answer.error) asked?.reject(problemError(answer.error));
    else asked?.resolve(answer);
  }

  /** Checks that the server still speaks. A page does not see its pings, so after a silence the client asks
   * something itself. */
  #watchSoon() {
    const connection = this.#connection;
    const { heartbeat, timing } = connection.server;
    this.#watch = setTimeout(
      () => {
        const quiet = connection.silentMs;
        const patience = connection.spoken ? timing.silence : timing.connect;
        if (quiet >= patience) return this.#end({ code: "timeout", detail: timedOut().detail });
        if (connection.spoken && quiet >= heartbeat * 1000) void this.#present();
        this.#watchSoon();
      },
      (connection.spoken ? Math.min(timing.silence, heartbeat * 1000) : timing.connect) / 4,
    );
  }

  #renewLater() {
    const { tokens } = this.#connection.server;
    const ms = Math.min(Math.max(tokens.freshFor, RENEW_MS_MIN), TIMER_MS_MAX);
    this.#renewal = setTimeout(() => {
      if (tokens.freshFor > 0) return this.#renewLater();
      void this.#present().then(() => this.ending || this.#renewLater());
    }, ms);
  }

  /** Shows the token again, or a new one: the connection then lasts as long as that one. If this fails, the server
   * ends the connection when the old token expires, and the next one begins with another. */
  async #present() {
    if (this.#presenting) return;
    this.#presenting = true;
    const { server, signal } = this.#connection;
    const limit = new Limit(signal);
    limit.expect(server.timing.silence);
    try {
      const token = await server.tokens.get(limit.signal);
      if (!this.#connection.spoken) return;
      await this.ask({ token }, limit.signal);
      this.#connection.token = token;
    } catch {
      await sleep(1000, limit.signal);
    } finally {
      limit.close();
      this.#presenting = false;
    }
  }

  /** @param {Ending} ending */
  #end(ending) {
    if (this.ending) return;
    this.ending = ending;
    clearTimeout(this.#watch);
    clearTimeout(this.#renewal);
    this.#connection.signal.removeEventListener("abort", this.#abort);
    this.#asked.forEach(({ reject }) => reject(connectionLost()));
    this.#wake?.();
    this.#hangUp();
  }

  /** Says goodbye; but a peer that is gone does not answer. */
  #hangUp() {
    const timer = setTimeout(() => {
      this.#socket.terminate?.();
      this.#gone();
    }, GOODBYE_MS);
    void this.closed.then(() => clearTimeout(timer));
    try {
      this.#socket.close(1000);
    } catch {
      this.#gone();
    }
  }
}
