// A clock that the test moves, and a server in memory: what the client does in minutes is tested in milliseconds, and
// that nothing happens for a minute can be known. The clock is that of the whole process: tests that use it must not
// run at the same time as others in the same file.

/** All that follows from one event in memory follows within this many turns of the event loop. */
const TURNS = 20;

/** Lets everything happen that takes no time. */
export async function settle() {
  for (let turns = 0; turns < TURNS; turns++) await new Promise((done) => setImmediate(done));
}

/** Replaces the global timers, `performance.now` and `Date.now` until the test ends. */
export class Clock {
  /** What `performance.now` says. */
  now = 0;
  /** The wall clock: a test may set it. */
  wall = Date.UTC(2026, 10, 27);
  /** @type {Map<number, { at: number, call: () => void }>} */
  #timers = new Map();
  #made = 0;

  /** @param {import("node:test").TestContext} t */
  constructor(t) {
    const set = (/** @type {() => void} */ call, ms = 0) => {
      const number = (this.#made += 1);
      this.#timers.set(number, { at: this.now + Math.max(ms, 1), call });
      return number;
    };
    t.mock.method(globalThis, "setTimeout", /** @type {any} */ (set));
    t.mock.method(globalThis, "clearTimeout", (/** @type {any} */ number) => void this.#timers.delete(number));
    t.mock.method(performance, "now", () => this.now);
    t.mock.method(Date, "now", () => this.wall);
  }

  /** Moves both clocks on; timers fire at their times. @param {number} ms */
  async advance(ms) {
    const end = this.now + ms;
    for (;;) {
      await settle();
      const [first] = [...this.#timers].sort(([a, one], [b, other]) => one.at - other.at || a - b);
      if (!first || first[1].at > end) break;
      const [number, { at, call }] = first;
      this.#timers.delete(number);
      this.#pass(at);
      call();
    }
    this.#pass(end);
  }

  /** Moves on from timer to timer until a condition holds. Returns how long that took, milliseconds.
   * @param {() => unknown} condition @param {number} most */
  async until(condition, most = 24 * 3600_000) {
    const begun = this.now;
    await settle();
    while (!condition()) {
      const next = Math.min(...[...this.#timers.values()].map(({ at }) => at));
      if (next - begun > most) throw new Error(`not within ${most} ms: ${condition}`);
      await this.advance(next - this.now);
    }
    return this.now - begun;
  }

  /** @param {number} at */
  #pass(at) {
    this.wall += Math.max(at - this.now, 0);
    this.now = Math.max(at, this.now);
  }
}

/** The tag of the log that the server in memory has. */
const TAG = "00000001";
/** What the paths of the inbox stand for. @type {Record<string, string>} */
const PATHS = { "/v1/inbox": "poll", "/v1/inbox/sse": "sse", "/v1/inbox/stream": "stream" };

/** A message from ann to bob. @param {number} id */
export const message = (id, body = id) => ({ sequence: "direct", id, prev: id - 1, n: id, from: "ann", to: "bob", at: 1, body });

/** A server whose words are the test's: every connection and request is in `opened`, and waits for them. */
export class MemoryServer {
  /** @type {Exchange[]} */
  opened = [];
  /** What it says to each by itself. @type {(one: Exchange) => void} */
  answer = () => {};

  /** For the client's options. */
  get options() {
    /** @param {Exchange} one */
    const open = (one) => {
      this.opened.push(one);
      queueMicrotask(() => this.answer(one));
    };
    /** @type {typeof fetch} */
    const fetch = (input, init) =>
      new Promise((resolve, reject) => {
        const url = new URL(String(input));
        open(new Exchange(PATHS[url.pathname] ?? "call", url, { resolve, reject, init }));
      });
    class Socket extends Exchange {
      /** @param {string} url */
      constructor(url) {
        super("socket", new URL(url), {});
        open(this);
      }
    }
    return { url: "http://server", token: "t", fetch, WebSocket: Socket };
  }

  /** The newest one. */
  get last() {
    return /** @type {Exchange} */ (this.opened.at(-1));
  }

  /** @param {string} transport */
  count(transport) {
    return this.opened.filter((one) => one.transport === transport).length;
  }
}

/** One request, or one socket: then it is what the client holds. */
class Exchange {
  #request;
  /** @type {ReadableStreamDefaultController | undefined} */
  #stream;
  /** @type {any} */ onmessage;
  /** @type {any} */ onclose;
  /** @type {any} */ onerror;
  /** What a socket was sent. @type {any[]} */
  sent = [];
  /** Whether a socket answers when it is shown a token. */
  alive = false;

  /** @param {string} transport @param {URL} url
   * @param {{ resolve?: (reply: Response) => void, reject?: (error: Error) => void, init?: RequestInit }} request */
  constructor(transport, url, request) {
    this.transport = transport;
    this.url = url;
    this.#request = request;
  }

  get method() {
    return this.#request.init?.method ?? "GET";
  }

  /** Answers. @param {Response} response */
  reply(response) {
    this.#request.resolve?.(response);
  }

  /** A page of messages, or the first sign that the server is there. @param {ReturnType<typeof message>[]} messages */
  page(...messages) {
    const next = `${messages.at(-1)?.id ?? 0}.0.${TAG}`;
    const page = { log: "x", messages, next, more: false };
    if (this.transport === "poll") this.reply(Response.json(page));
    else if (this.transport === "socket") this.onmessage({ data: JSON.stringify(page) });
    else if (this.transport === "stream") this.#write(`${JSON.stringify(page)}\n`);
    else this.#write(messages.map((one) => `id: ${one.id}.0.${TAG}\ndata: ${JSON.stringify(one)}\n\n`).join("") || ":\n");
  }

  /** A sign of life. @param {number} id of the last message */
  beat(id) {
    const page = JSON.stringify({ messages: [], next: `${id}.0.${TAG}` });
    if (this.transport === "socket") this.onmessage({ data: page });
    else this.#write(this.transport === "stream" ? `${page}\n` : ":\n");
  }

  /** Ends it as the server does after ten minutes. */
  over() {
    const end = { code: "stream_over", detail: "long enough", reconnect: true };
    if (this.transport === "socket") return this.onclose({ code: 4000, reason: end.code });
    this.#write(this.transport === "stream" ? `${JSON.stringify({ end })}\n` : `event: end\ndata: ${JSON.stringify(end)}\n\n`);
    this.#stream?.close();
  }

  /** The connection breaks, or there is none. */
  fail() {
    const error = new TypeError("broken");
    if (this.transport === "socket") this.onclose({ code: 1006, reason: "" });
    else if (this.#stream) this.#stream.error(error);
    else this.#request.reject?.(error);
  }

  /** @param {string} text */
  #write(text) {
    if (!this.#stream) {
      const body = new ReadableStream({ start: (controller) => void (this.#stream = controller) });
      const type = this.transport === "sse" ? "text/event-stream" : "application/x-ndjson";
      this.reply(new Response(body, { headers: { "content-type": type } }));
    }
    this.#stream?.enqueue(new TextEncoder().encode(text));
  }

  // What the client calls of a socket.

  /** @param {string} text */
  send(text) {
    const object = JSON.parse(text);
    this.sent.push(object);
    // It takes a token: a silent one does not answer.
    if (object.token && this.alive) queueMicrotask(() => this.onmessage({ data: JSON.stringify({ ref: object.ref }) }));
  }

  close() {
    queueMicrotask(() => this.onclose({ code: 1000, reason: "" }));
  }
}
