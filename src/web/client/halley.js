// @ts-check
/**
 * Client of Halley: gets a user's messages over WebSocket, SSE, a stream of lines or polls, each message
 * once and in order, through breaks of the network and restarts of the server; sends, and reads history.
 * One ES module for browsers and Node 20, without dependencies. `halley.d.ts` describes the interface.
 *
 * How it is built: a *transport* is a generator of pages (`{messages, next}`) for one connection; it returns
 * when it should be opened again at once, and throws when something is wrong. `Halley` opens one after
 * another, hands the messages over and only then moves the cursor. As every connection begins at the
 * cursor, it does not matter when and how one ends.
 */

/** @typedef {import("./halley.d.ts").Message} Message */
/** @typedef {import("./halley.d.ts").Receipt} Receipt */
/** @typedef {import("./halley.d.ts").Transport} Transport */
/** @typedef {import("./halley.d.ts").State} State */
/** @typedef {import("./halley.d.ts").StateChange} StateChange */
/** @typedef {import("./halley.d.ts").Reset} Reset */
/** @typedef {import("./halley.d.ts").Gap} Gap */
/** @typedef {import("./halley.d.ts").Events} Events */
/** @typedef {import("./halley.d.ts").Options} Options */
/** @typedef {import("./halley.d.ts").Timing} Timing */
/** @typedef {import("./halley.d.ts").CallOptions} CallOptions */
/** @typedef {import("./halley.d.ts").SendOptions} SendOptions */
/** @typedef {import("./halley.d.ts").HistoryOptions} HistoryOptions */

/**
 * What a transport gives: messages, and the cursor after them.
 * @typedef {{ messages: Message[], next?: string, more?: boolean }} Page
 */
/**
 * Why the server ends a stream.
 * @typedef {{ code: string, detail?: string, reconnect?: boolean, next?: string }} Ending
 */
/** @typedef {"direct" | "group"} Sequence */
/** @typedef {{ direct: number, group: number, tag?: string }} Position */

/** Those that `auto` chooses from, best first. */
const AUTO = /** @type {const} */ (["socket", "sse", "poll"]);
const TRANSPORTS = /** @type {const} */ (["socket", "sse", "stream", "poll"]);

/** What is longer goes by POST, where a refusal costs no connection. However short the bodies are that a server
 * takes, its frames have room for this and a `ref`. */
const SOCKET_SEND_BYTES_MAX = 15 * 1024;
/** What a socket may hold for an application that is slower than the server. */
const SOCKET_QUEUE_CHARS_MAX = 8 * 1024 * 1024;
/** A line longer than this is not Halley's. */
const LINE_CHARS_MAX = 64 * 1024 * 1024;
/** Conversations and groups whose last id is remembered. */
const CHAINS_MAX = 10_000;
/** The server takes pages of this size by its own default. */
const HISTORY_PAGE = 100;
/** A token function whose tokens are refused so often in a row will not do better. */
const REFUSALS_MAX = 3;
/** A renewal of a token, at the soonest. */
const RENEW_MS_MIN = 200;
/** The longest time that a timer can have. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** Faults after which asking again may help. */
const RETRY_STATUS = new Set([408, 425, 429]);

// ------------------------------------------------------------------------------------------------ errors

export class HalleyError extends Error {
  /**
   * @param {string} code
   * @param {string} detail
   * @param {{ status?: number, fatal?: boolean, retryAfter?: number, key?: string,
   *   problem?: Record<string, any>, cause?: unknown }} [more]
   */
  constructor(code, detail, { status = 0, fatal = false, retryAfter, key, problem, cause } = {}) {
    super(`${code}: ${detail}`, cause === undefined ? undefined : { cause });
    this.name = "HalleyError";
    this.code = code;
    this.detail = detail;
    this.status = status;
    this.fatal = fatal;
    this.retryAfter = retryAfter;
    this.key = key;
    this.problem = problem;
  }

  /** The same with something added. @param {{ fatal?: boolean, key?: string }} more */
  with(more) {
    const { code, detail, status, fatal, retryAfter, key, problem, cause } = this;
    return new HalleyError(code, detail, { status, fatal, retryAfter, key, problem, cause, ...more });
  }
}

/** @param {unknown} cause @returns {HalleyError} */
function asError(cause) {
  if (cause instanceof HalleyError) return cause;
  const inner = cause instanceof Error && cause.cause instanceof Error ? ` (${cause.cause.message})` : "";
  const text = cause instanceof Error ? cause.message : String(cause);
  return new HalleyError("network", `the server cannot be reached: ${text}${inner}`, { cause });
}

const lost = () => new HalleyError("connection_lost", "the connection broke");
const late = () => new HalleyError("timeout", "the server was silent for too long");
const stopped = () => new HalleyError("stopped", "the client was stopped");

/** An error from a problem object, as it is in replies and in answers on the socket.
 * @param {Record<string, any>} problem @param {number} [retryAfter] */
function problemError(problem, retryAfter) {
  const { code, detail, title, status } = problem;
  return new HalleyError(code, detail ?? title ?? "", { status, retryAfter, problem });
}

/** The error that a refusal stands for. @param {Response} reply @param {Limit} limit */
async function refusal(reply, limit) {
  const seconds = Number(reply.headers.get("retry-after") ?? NaN);
  const retryAfter = Number.isFinite(seconds) ? seconds : undefined;
  const text = await limit.race(reply.text());
  if (isType(reply, "application/problem+json")) {
    const problem = parseJson(text);
    if (typeof problem?.code === "string") return problemError({ status: reply.status, ...problem }, retryAfter);
  }
  // Not Halley's: a proxy between, or another server.
  return new HalleyError("http_error", `status ${reply.status} instead of an answer of Halley`, {
    status: reply.status,
    retryAfter,
  });
}

/** @param {Response} reply @param {string} type */
function isType(reply, type) {
  return (reply.headers.get("content-type") ?? "").toLowerCase().startsWith(type);
}

/** @param {string} text @returns {any} */
function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new HalleyError("bad_reply", "what came is not JSON", { cause });
  }
}

/** Whether the server itself answered, so that the way to it is open. @param {HalleyError} error */
const answered = (error) => error.problem !== undefined;

/** Whether the same request may succeed later. @param {HalleyError} error */
function mayPass(error) {
  if (error.fatal) return false;
  return error.status < 400 || error.status >= 500 || RETRY_STATUS.has(error.status);
}

// ----------------------------------------------------------------------------------------------- cursors

/** Reads `D.G` or `D.G.L`. Anything else, such as `now`, is no position yet.
 * @param {string | undefined} cursor @returns {Position | undefined} @internal */
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
 * @param {string | undefined} next @internal */
export function cursorAfter(cursor, message, next) {
  const position = parseCursor(cursor);
  // From `now` there is nothing to move; the page's end tells.
  if (!position) return cursor;
  const tag = parseCursor(next)?.tag ?? position.tag;
  const id = Math.max(position[message.sequence], message.id);
  return cursorText({ ...position, [message.sequence]: id, tag });
}

/** The end of a page, but never back: what was handed over stays so.
 * @param {string | undefined} cursor @param {string | undefined} next @internal */
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

// ------------------------------------------------------------------------------------------- time and waiting

/** The ceiling of the pause after so many failures. @param {number} failures @param {Timing} timing @internal */
export function backoffCeiling(failures, { backoffMin, backoffMax }) {
  return Math.min(backoffMax, backoffMin * 2 ** Math.min(failures, 30));
}

/** A pause of full jitter, so that those who lost the server together do not come back together.
 * @param {number} failures @param {Timing} timing @internal */
export function backoff(failures, timing) {
  return Math.random() * backoffCeiling(failures, timing);
}

/** Waits, or less if it is aborted. @param {number} ms @param {AbortSignal} signal @returns {Promise<void>} */
function sleep(ms, signal) {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, Math.min(ms, TIMER_MS_MAX));
    signal.addEventListener("abort", done);
  });
}

/** A promise's outcome, or a rejection when it is aborted before.
 * @template T @param {Promise<T>} promise @param {AbortSignal} signal @returns {Promise<T>} */
function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => reject(stopped());
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

/** An abort signal below another that can also run out of time. */
class Limit {
  #controller = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {(() => void)[]} */
  #unlink = [];
  /** It ended because of the time. */
  late = false;

  /** @param {(AbortSignal | undefined)[]} parents */
  constructor(...parents) {
    for (const parent of parents) if (parent) this.#link(parent);
  }

  /** @param {AbortSignal} parent */
  #link(parent) {
    const abort = () => this.#controller.abort();
    if (parent.aborted) abort();
    parent.addEventListener("abort", abort);
    this.#unlink.push(() => parent.removeEventListener("abort", abort));
  }

  get signal() {
    return this.#controller.signal;
  }

  /** A promise's outcome, or a rejection when this ends before. `fetch` and what it gives take the signal too, but
   * Node 20 at times tells them nothing.
   * @template T @param {Promise<T>} promise @returns {Promise<T>} */
  race(promise) {
    return unlessAborted(promise, this.signal);
  }

  /** Something must happen within this time. @param {number} ms */
  expect(ms) {
    this.relax();
    this.#timer = setTimeout(
      () => {
        this.late = true;
        this.#controller.abort();
      },
      Math.min(ms, TIMER_MS_MAX),
    );
  }

  relax() {
    clearTimeout(this.#timer);
  }

  /** Ends what still uses the signal. */
  close() {
    this.relax();
    this.#unlink.forEach((unlink) => unlink());
    this.#controller.abort();
  }
}

/** What a function of the application gives, unless it takes longer than that.
 * @template T @param {() => T | Promise<T>} call @param {number} ms @param {AbortSignal} [signal] @returns {Promise<T>} */
async function inTime(call, ms, signal) {
  const limit = new Limit(signal);
  limit.expect(ms);
  try {
    return await limit.race(Promise.resolve(call()));
  } catch (cause) {
    throw limit.late ? new Error(`it has not answered within ${ms} ms`) : cause;
  } finally {
    limit.close();
  }
}

// ---------------------------------------------------------------------------------------------- parsing

/** Cuts bytes into lines; they may be cut anywhere, also within a character or between CR and LF.
 * @internal */
export class LineSplitter {
  #decoder = new TextDecoder(); // takes the byte order mark away
  #ends;
  #rest = "";
  #afterReturn = false;

  /** @param {RegExp} ends what ends a line */
  constructor(ends = /\r\n|\r|\n/) {
    this.#ends = ends;
  }

  /** @param {Uint8Array} bytes @returns {string[]} the lines that are whole now */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return [];
    // The CR ended a line already; this LF belongs to it.
    if (this.#afterReturn && text.startsWith("\n")) text = text.slice(1);
    this.#afterReturn = text.endsWith("\r") && this.#ends.test("\r");
    const lines = (this.#rest + text).split(this.#ends);
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > LINE_CHARS_MAX) throw new HalleyError("bad_reply", "a line does not end");
    return lines;
  }
}

/**
 * Reads `text/event-stream`. A block is given also if it has no data: an `id` alone moves the cursor.
 * @typedef {{ event?: string, data?: string, id?: string }} Block
 */
/** @internal */
export class EventStreamParser {
  #lines = new LineSplitter();
  /** @type {Block} */
  #block = {};

  /** @param {Uint8Array} bytes @returns {Block[]} the blocks that are whole now */
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

/** What a token says of itself; nothing if it is no JWT. @param {string} token @returns {{ sub?: string, exp?: number }} */
function claims(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(part), (char) => char.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
  } catch {
    return {};
  }
}

// ----------------------------------------------------------------------------------------------- tokens

/** The user's token: asked for once for all who need it, and again before it expires. */
class Tokens {
  #source;
  #patience;
  /** @type {string | undefined} */
  #token;
  /** The user whose token it is, or was: while a token is asked for, messages still come.
   * @type {string | undefined} */
  user;
  /** @type {string | undefined} */
  #refused;
  #refusals = 0;
  #staleAt = Infinity;
  /** @type {Promise<string> | undefined} */
  #pending;

  /** @param {Options["token"]} source @param {number} patience milliseconds that it may take */
  constructor(source, patience) {
    this.#source = source;
    this.#patience = patience;
  }

  /** @param {AbortSignal} signal @returns {Promise<string>} */
  get(signal) {
    if (this.#token !== undefined && Date.now() < this.#staleAt) return Promise.resolve(this.#token);
    this.#pending ??= this.#ask().finally(() => (this.#pending = undefined));
    return unlessAborted(this.#pending, signal);
  }

  /** Milliseconds until the next should be asked for. */
  get freshFor() {
    return this.#staleAt - Date.now();
  }

  async #ask() {
    const token = await this.#askSource();
    if (!token) {
      throw new HalleyError("no_token", "there is no token for the user", { fatal: true });
    }
    if (token === this.#refused) throw this.#hopeless("the token that was refused is given again");
    const { exp, sub } = claims(token);
    // The cursor is that of the first one.
    if (this.user !== undefined && sub !== this.user) {
      const detail = `the token is one of ${sub}, but this client is that of ${this.user}: make another for another user`;
      throw new HalleyError("user_changed", detail, { fatal: true });
    }
    this.user = sub;
    this.#token = token;
    const lifetime = (exp ?? Infinity) * 1000 - Date.now();
    // A token that is new and expired at once shows that our clock is wrong; then the server will say.
    this.#staleAt =
      lifetime > 0 && typeof this.#source === "function"
        ? Date.now() + lifetime - Math.min(30_000, lifetime / 5)
        : Infinity;
    return token;
  }

  async #askSource() {
    const source = this.#source;
    if (typeof source !== "function") return source;
    try {
      return await inTime(source, this.#patience);
    } catch (cause) {
      throw new HalleyError("token_failed", `the token function failed: ${cause}`, { cause });
    }
  }

  accepted() {
    this.#refusals = 0;
  }

  /** It has expired: the next `get` asks for another. @param {string | undefined} token */
  expired(token) {
    if (token === this.#token && typeof this.#source === "function") this.#token = undefined;
  }

  /** The server refused it: another is needed, if there can be one.
   * @param {string | undefined} token @param {HalleyError} error */
  refuse(token, error) {
    // Meanwhile somebody else got another.
    if (token !== this.#token) return;
    if (typeof this.#source !== "function") throw error.with({ fatal: true });
    this.#refusals += 1;
    if (this.#refusals >= REFUSALS_MAX) throw this.#hopeless(error.detail);
    this.#refused = token;
    this.#token = undefined;
  }

  /** @param {string} detail */
  #hopeless(detail) {
    // The user may start again, with a better source.
    this.#refusals = 0;
    this.#refused = undefined;
    this.#token = undefined;
    return new HalleyError("unauthorized", detail, { status: 401, fatal: true });
  }
}

// --------------------------------------------------------------------------------------------- transports

/**
 * What a transport must know: one for each connection.
 * @typedef {object} Link
 * @property {AbortSignal} signal ends the connection
 * @property {string | undefined} cursor where it begins
 * @property {() => string | undefined} now where the client stands by now
 * @property {Tokens} tokens
 * @property {string} [token] the one in use
 * @property {number} heartbeat seconds
 * @property {number} wait seconds
 * @property {Timing} timing
 * @property {typeof globalThis.fetch} fetch
 * @property {any} WebSocket
 * @property {(path: string, query?: Record<string, string | number | undefined>) => URL} address
 * @property {() => void} live the server has spoken
 * @property {boolean} spoken
 * @property {number} heardAt when something came from it
 * @property {(closed: Promise<void>) => void} opened something that `stop()` must wait for
 * @property {(socket: Socket | undefined) => void} socket what `send` may use
 */

/** One request on behalf of a connection or of a call. The reply's body is under the same limit.
 * @param {Pick<Link, "tokens" | "fetch" | "token">} link @param {URL} url @param {Limit} limit
 * @param {RequestInit} [init] */
async function ask(link, url, limit, init = {}) {
  link.token = await link.tokens.get(limit.signal);
  const asked = link.fetch(url, {
    ...init,
    headers: { ...init.headers, authorization: `Bearer ${link.token}` },
    cache: "no-store",
    signal: limit.signal,
  });
  const reply = await limit.race(asked);
  if (!reply.ok) throw await refusal(reply, limit);
  link.tokens.accepted();
  return reply;
}

/** The same, and what the reply holds.
 * @param {Parameters<typeof ask>[0]} link @param {URL} url @param {Limit} limit @param {RequestInit} [init]
 * @returns {Promise<any>} */
async function askJson(link, url, limit, init) {
  const reply = await ask(link, url, limit, init);
  return parseJson(await limit.race(reply.text()));
}

/** What went wrong, if it was the time. @param {unknown} error @param {Limit} limit */
function timely(error, limit) {
  return limit.late ? late() : asError(error);
}

/** One poll. @param {Link} link @param {number} wait @returns {Promise<Page>} */
async function pollOnce(link, wait) {
  const limit = new Limit(link.signal);
  limit.expect(wait * 1000 + link.timing.request);
  try {
    const url = link.address("v1/inbox", { after: link.now(), wait });
    const page = await askJson(link, url, limit);
    link.heardAt = Date.now();
    return page;
  } catch (error) {
    throw timely(error, limit);
  } finally {
    limit.close();
  }
}

/** @param {Link} link @returns {AsyncGenerator<Page, void>} */
async function* polls(link) {
  // The first is answered at once, and shows that the server is there.
  let wait = 0;
  for (;;) {
    const begun = Date.now();
    const page = await pollOnce(link, wait);
    link.live();
    yield page;
    // Not held although asked for: something is ending. Do not ask in a circle.
    const hasty = wait > 0 && page.messages.length === 0 && Date.now() - begun < 200;
    if (hasty) await sleep(200 + Math.random() * 800, link.signal);
    wait = page.more ? 0 : link.wait;
  }
}

/** The bytes of an endless reply. @param {Link} link @param {string} path @param {string} type
 * @returns {AsyncGenerator<Uint8Array, void>} */
async function* bytes(link, path, type) {
  const limit = new Limit(link.signal);
  limit.expect(link.timing.connect);
  try {
    const url = link.address(path, { after: link.cursor, heartbeat: link.heartbeat });
    const reply = await ask(link, url, limit, { headers: { accept: type } });
    if (!isType(reply, type) || !reply.body) throw new HalleyError("bad_reply", `the reply is not ${type}`);
    const reader = reply.body.getReader();
    for (;;) {
      const { done, value } = await limit.race(reader.read());
      // While the application works, nobody waits for the server.
      limit.relax();
      if (done) throw lost();
      link.heardAt = Date.now();
      yield value;
      limit.expect(link.spoken ? link.timing.silence : link.timing.connect);
    }
  } catch (error) {
    throw timely(error, limit);
  } finally {
    limit.close();
  }
}

/** @param {Link} link @returns {AsyncGenerator<Page, void>} */
async function* events(link) {
  const parser = new EventStreamParser();
  for await (const chunk of bytes(link, "v1/inbox/sse", "text/event-stream")) {
    for (const { event, data, id } of parser.push(chunk)) {
      link.live();
      const object = data === undefined ? undefined : parseJson(data);
      if (event === "end") {
        yield { messages: [], next: id };
        return ended(link, object);
      }
      const named = event !== undefined && event !== "message";
      yield { messages: object === undefined || named ? [] : [object], next: id };
    }
  }
}

/** @param {Link} link @returns {AsyncGenerator<Page, void>} */
async function* lines(link) {
  const splitter = new LineSplitter(/\n/);
  for await (const chunk of bytes(link, "v1/inbox/stream", "application/x-ndjson")) {
    for (const line of splitter.push(chunk)) {
      if (line === "") continue;
      const object = parseJson(line);
      link.live();
      if (object.end) {
        yield { messages: [], next: object.end.next };
        return ended(link, object.end);
      }
      yield object;
    }
  }
}

/** The server ended it: in order, or because something is wrong. @param {Link} link @param {Ending} ending */
function ended(link, { code, detail = "" }) {
  if (code === "stream_over") return;
  if (code === "token_expired") return link.tokens.expired(link.token);
  throw new HalleyError(code, detail);
}

/** @param {Link} link @returns {AsyncGenerator<Page, void>} */
async function* frames(link) {
  link.token = await link.tokens.get(link.signal);
  const socket = new Socket(link);
  link.opened(socket.closed);
  try {
    for (;;) {
      const page = await socket.next();
      if (!page) return ended(link, socket.ending ?? { code: "connection_lost" });
      if (!link.spoken) {
        link.tokens.accepted();
        link.socket(socket);
        link.live();
      }
      yield page;
    }
  } finally {
    link.socket(undefined);
    socket.close();
  }
}

/** What the codes of close frames stand for. @type {Record<number, string>} */
const CLOSE_CODES = {
  1001: "closing",
  1009: "body_too_large",
  1011: "internal",
  4000: "stream_over",
  4001: "token_expired",
  4008: "silent",
};

/** A WebSocket: pages wait in a queue until they are asked for, answers go to who asked. */
class Socket {
  #socket;
  #link;
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
  #probing = false;
  #abort = () => this.#end({ code: "stopped" });
  /** @type {() => void} */
  #gone = () => {};
  /** Resolves when nothing is left of it. @type {Promise<void>} */
  closed = new Promise((resolve) => (this.#gone = resolve));
  /** Why it ended. @type {Ending | undefined} */
  ending;

  /** @param {Link} link */
  constructor(link) {
    this.#link = link;
    const url = link.address("v1/inbox/ws", {
      after: link.cursor,
      heartbeat: link.heartbeat,
      token: link.token, // a browser cannot set headers here
    });
    url.protocol = url.protocol.replace("http", "ws");
    this.#socket = new link.WebSocket(url.href);
    this.#socket.onmessage = (/** @type {{ data: unknown }} */ event) => this.#take(event.data);
    this.#socket.onerror = () => {}; // `onclose` follows
    this.#socket.onclose = (/** @type {{ code: number, reason: string }} */ { code, reason }) => {
      this.#end({ code: CLOSE_CODES[code] ?? "connection_lost", detail: `closed with ${code} ${reason}` });
      this.#gone();
    };
    link.signal.addEventListener("abort", this.#abort);
    this.#watchSoon();
    this.#renewLater();
    // Last, as it ends what was begun above.
    if (link.signal.aborted) this.#abort();
  }

  get token() {
    return this.#link.token;
  }

  /** The next page; none when it has ended and all is given. @returns {Promise<Page | undefined>} */
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
    if (this.ending) throw lost();
    const ref = `r${(this.#asks += 1)}`;
    try {
      const answer = new Promise((resolve, reject) => this.#asked.set(ref, { resolve, reject }));
      // It may be rejected before anybody waits.
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
    this.#link.heardAt = Date.now();
    try {
      const object = parseJson(String(data));
      if (object.messages) this.#enqueue(object, String(data).length);
      else this.#answer(object);
    } catch {
      this.#end({ code: "bad_reply", detail: "a frame is not JSON as expected" });
    }
  }

  /** @param {Page} page @param {number} chars */
  #enqueue(page, chars) {
    this.#queue.push({ page, chars });
    this.#queuedChars += chars;
    this.#wake?.();
    // Browsers read on however slow the application is. What is cut off here comes again.
    if (this.#queuedChars > SOCKET_QUEUE_CHARS_MAX) {
      this.#end({ code: "too_slow", detail: "messages come faster than the application takes them" });
    }
  }

  /** @param {any} answer */
  #answer(answer) {
    const asked = this.#asked.get(answer.ref);
    if (answer.error) asked?.reject(problemError(answer.error));
    else asked?.resolve(answer);
  }

  /** Looks whether the server still speaks. Its pings are invisible to a page, so that after a silence
   * the page asks something itself. */
  #watchSoon() {
    const { connect, silence } = this.#link.timing;
    this.#watch = setTimeout(
      () => {
        const quiet = Date.now() - this.#link.heardAt;
        const patience = this.#link.spoken ? silence : connect;
        if (quiet >= patience) return this.#end({ code: "timeout", detail: late().detail });
        if (this.#link.spoken && quiet >= this.#link.heartbeat * 1000) void this.#present();
        this.#watchSoon();
      },
      (this.#link.spoken ? Math.min(silence, this.#link.heartbeat * 1000) : connect) / 4,
    );
  }

  #renewLater() {
    const ms = Math.min(Math.max(this.#link.tokens.freshFor, RENEW_MS_MIN), TIMER_MS_MAX);
    this.#renewal = setTimeout(() => {
      if (this.#link.tokens.freshFor > 0) return this.#renewLater();
      void this.#present().then(() => this.ending || this.#renewLater());
    }, ms);
  }

  /** Shows the token again, or a fresh one: the connection then lasts as long as that. If this fails, the
   * server ends the connection when the old one expires, and the next begins with another. */
  async #present() {
    if (this.#probing) return;
    this.#probing = true;
    const limit = new Limit(this.#link.signal);
    limit.expect(this.#link.timing.silence);
    try {
      const token = await this.#link.tokens.get(limit.signal);
      if (!this.#link.spoken) return;
      await this.ask({ token }, limit.signal);
      this.#link.token = token;
    } catch {
      await sleep(1000, limit.signal);
    } finally {
      limit.close();
      this.#probing = false;
    }
  }

  /** @param {Ending} ending */
  #end(ending) {
    if (this.ending) return;
    this.ending = ending;
    clearTimeout(this.#watch);
    clearTimeout(this.#renewal);
    this.#link.signal.removeEventListener("abort", this.#abort);
    this.#asked.forEach(({ reject }) => reject(lost()));
    this.#wake?.();
    this.#hangUp();
  }

  /** Says goodbye; but a peer that is gone does not answer. */
  #hangUp() {
    const timer = setTimeout(() => {
      this.#socket.terminate?.();
      this.#gone();
    }, 500);
    void this.closed.then(() => clearTimeout(timer));
    try {
      this.#socket.close(1000);
    } catch {
      this.#gone();
    }
  }
}

/** A transport that, when it fails before the server has spoken, asks in the plainest way why. Only so a
 * page learns why a WebSocket was refused, and `auto` that something between does not let it through.
 * @param {(link: Link) => AsyncGenerator<Page, void>} open
 * @returns {(link: Link) => AsyncGenerator<Page, void>} */
function explained(open) {
  return async function* (link) {
    for (let failures = 1; ; failures++) {
      try {
        return yield* open(link);
      } catch (error) {
        const known = asError(error);
        if (link.spoken || link.signal.aborted || answered(known) || !isOfTheWay(known)) throw known;
        yield await pollOnce(link, 0);
        // A server that was just starting is there by now; what takes its time to fail is not tried again.
        if (failures === 2 || known.code === "timeout") {
          throw new HalleyError("transport_blocked", `polls get through, but not this: ${known.detail}`, {
            cause: known,
          });
        }
        link.cursor = link.now();
      }
    }
  };
}

/** Whether an error may be one of the network between. @param {HalleyError} error */
function isOfTheWay({ code, fatal }) {
  return !fatal && code !== "token_failed" && code !== "stopped";
}

/** @type {Record<Transport, (link: Link) => AsyncGenerator<Page, void>>} */
const OPEN = {
  socket: explained(frames),
  sse: explained(events),
  stream: explained(lines),
  poll: polls,
};

// ------------------------------------------------------------------------------------------------ chains

/** The last id of each conversation and group, as far as this client has seen them. */
class Chains {
  /** @type {Map<string, number>} */
  #last = new Map();
  /** Of a conversation that is not above nothing behind this id was seen. Of a group this says nothing: its members
   * come and go. @type {number | undefined} */
  #begun;

  /** @param {Message} message */
  static #name({ sequence, group, from, to }) {
    return JSON.stringify(sequence === "group" ? [sequence, group] : [sequence, ...[from, to].sort()]);
  }

  /** @param {string} name @returns {Sequence} */
  static #sequence(name) {
    return JSON.parse(name)[0];
  }

  /** @param {Message} message */
  last(message) {
    const id = this.#last.get(Chains.#name(message));
    return id === undefined && message.sequence === "direct" ? this.#begun : id;
  }

  /** What comes from here on is seen. @param {Position | undefined} position */
  begin(position) {
    this.#begun ??= position?.direct;
  }

  /** @param {Message} message */
  seen(message) {
    const name = Chains.#name(message);
    // The one that moved is the last to be forgotten.
    this.#last.delete(name);
    this.#last.set(name, message.id);
    if (this.#last.size > CHAINS_MAX) this.#forget();
  }

  /** The one that moved before all others. */
  #forget() {
    const [[name, id]] = this.#last;
    this.#last.delete(name);
    if (this.#begun !== undefined && Chains.#sequence(name) === "direct") this.#begun = Math.max(this.#begun, id);
  }

  /** The server's history is another from here on. @param {Position | undefined} position */
  cut(position) {
    this.#begun = undefined;
    for (const [name, id] of this.#last) {
      if (!position || id > position[Chains.#sequence(name)]) this.#last.delete(name);
    }
  }
}

// ------------------------------------------------------------------------------------------------ readers

/** One message on its way to several readers: it is handed over when the last of them is done. */
class Handover {
  #left;
  #commit;
  /** @type {() => void} */
  #finish = () => {};
  whole = new Promise((resolve) => (this.#finish = () => resolve(undefined)));

  /** @param {number} readers @param {() => Promise<void>} commit */
  constructor(readers, commit) {
    this.#left = readers;
    this.#commit = commit;
  }

  async done() {
    this.#left -= 1;
    if (this.#left > 0) return;
    await this.#commit();
    this.#finish();
  }
}

/** What `messages()` gives: no queue, the client waits until the loop asks again. */
class Reader {
  #leave;
  /** @type {{ message: Message, handover: Handover } | undefined} */
  #offer;
  /** @type {Handover | undefined} */
  #current;
  /** @type {(() => void) | undefined} */
  #wake;
  #over = false;
  /** @type {HalleyError | undefined} */
  #error;
  /** The last `next`: one begins when the one before it has its message. @type {Promise<unknown>} */
  #turn = Promise.resolve();

  /** @param {(reader: Reader, current: Handover | undefined) => Promise<void>} leave */
  constructor(leave) {
    this.#leave = leave;
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** @param {Message} message @param {Handover} handover */
  give(message, handover) {
    this.#offer = { message, handover };
    this.#wake?.();
  }

  /** No more comes. @param {HalleyError} [error] */
  end(error) {
    this.#over = true;
    this.#error = error;
    this.#offer = undefined;
    this.#wake?.();
  }

  /** @returns {Promise<IteratorResult<Message, undefined>>} */
  next() {
    const turn = this.#turn.then(() => this.#next());
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** @returns {Promise<IteratorResult<Message, undefined>>} */
  async #next() {
    // Asking for the next says that the last one is done with; also after the end.
    const current = this.#current;
    this.#current = undefined;
    await current?.done();
    while (!this.#offer && !this.#over) {
      await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
    }
    const offer = this.#offer;
    if (!offer) {
      const error = this.#error;
      this.#error = undefined;
      if (error) throw error;
      return { done: true, value: undefined };
    }
    this.#offer = undefined;
    this.#current = offer.handover;
    return { done: false, value: offer.message };
  }

  /** The loop was left. @returns {Promise<IteratorResult<Message, undefined>>} */
  async return() {
    const current = this.#current ?? this.#offer?.handover;
    this.#current = undefined;
    this.end();
    await this.#leave(this, current);
    return { done: true, value: undefined };
  }
}

// ------------------------------------------------------------------------------------------------- client

/** From `start()` to `stop()`. */
class Run {
  #controller = new AbortController();
  #release = new AbortController();
  /** @type {Promise<void>} */
  finished = Promise.resolve();
  failures = 0;
  /** @type {Set<Reader>} */
  readers = new Set();

  get signal() {
    return this.#controller.signal;
  }

  /** Nobody should be waited for any more. A signal, as a promise would keep something of every message that was
   * raced against it. */
  get released() {
    return this.#release.signal;
  }

  stop() {
    this.#controller.abort();
  }

  release() {
    this.#release.abort();
  }
}

export class Halley {
  #url;
  #tokens;
  #options;
  /** @type {Timing} */
  #timing;
  /** @type {Transport | "auto"} */
  #wanted;
  /** @type {Transport | undefined} */
  #transport;
  /** @type {State} */
  #state = "idle";
  /** @type {string | undefined} */
  #cursor;
  #restored = false;
  /** Rises when the cursor is set back: what was on its way before moves it no more. */
  #epoch = 0;
  #chains = new Chains();
  /** @type {{ [Name in keyof Events]: Set<Events[Name]> }} */
  #listeners = {
    message: new Set(),
    state: new Set(),
    cursor: new Set(),
    reset: new Set(),
    gap: new Set(),
    error: new Set(),
  };
  /** @type {Run | undefined} */
  #run;
  /** Ends the connection or the pause of the moment. */
  #interrupt = new AbortController();
  /** The connection of the moment. @type {Link | undefined} */
  #connection;
  /** @type {Socket | undefined} */
  #socket;
  /** @type {Set<Promise<void>>} */
  #closing = new Set();
  /** Somebody takes messages now. */
  #joined = () => {};
  /** Listeners that are at work. @type {Promise<void> | undefined} */
  #listening;
  /** Calls that are under way. @type {Set<Limit>} */
  #calls = new Set();
  /** When `auto` may try a transport again, and how long it was put off. @type {Map<Transport, { until: number, ms: number }>} */
  #blocked = new Map();

  /** @param {Options} options */
  constructor(options = /** @type {any} */ ({})) {
    const { url = globalThis.location?.origin, token, heartbeat = 30, transport = "auto", after } = options;
    if (url === undefined) throw new TypeError("`url` is missing");
    if (token === undefined) throw new TypeError("`token` is missing");
    this.#url = new URL(String(url), globalThis.location?.href);
    // What is appended would otherwise take the place of the last part.
    if (!this.#url.pathname.endsWith("/")) this.#url.pathname += "/";
    this.#options = { ...options, heartbeat, wait: options.wait ?? 30 };
    this.#timing = {
      backoffMin: 500,
      backoffMax: 30_000,
      connect: 15_000,
      silence: 2 * heartbeat * 1000 + 5000,
      request: 15_000,
      better: 60_000,
      grace: 5000,
      ...options.timing,
    };
    this.#tokens = new Tokens(token, this.#timing.request);
    this.#cursor = after;
    this.#wanted = this.#possible(transport);
  }

  get state() {
    return this.#state;
  }

  get transport() {
    return this.#transport;
  }

  get cursor() {
    return this.#cursor;
  }

  start() {
    this.#running();
  }

  #running() {
    const before = this.#run;
    if (before && !before.signal.aborted) return before;
    const run = new Run();
    this.#run = run;
    // One that is being stopped comes to its end first.
    run.finished = this.#work(run, before?.finished);
    return run;
  }

  async stop() {
    const run = this.#run;
    for (const call of this.#calls) call.close();
    if (run) {
      run.stop();
      await this.#listenersDone();
      run.release();
      await run.finished;
    }
    await Promise.all(this.#closing);
    if (!this.#run) this.#become("stopped");
  }

  /** @param {Transport | "auto"} transport */
  setTransport(transport) {
    const wanted = this.#possible(transport);
    this.#blocked.clear();
    if (wanted === this.#wanted) return;
    this.#wanted = wanted;
    if (this.#run) this.#interrupt.abort();
  }

  /** @template {keyof Events} Name @param {Name} event @param {Events[Name]} listener */
  on(event, listener) {
    const listeners = this.#listeners[event];
    if (!listeners) throw new TypeError(`there is no event ${JSON.stringify(event)}`);
    listeners.add(listener);
    if (event === "message") this.#joined();
    return () => this.off(event, listener);
  }

  /** @template {keyof Events} Name @param {Name} event @param {Events[Name]} listener */
  off(event, listener) {
    this.#listeners[event]?.delete(listener);
  }

  /** @returns {AsyncIterableIterator<any>} */
  messages() {
    const before = this.#run;
    const run = this.#running();
    const reader = new Reader(async (reader, current) => {
      run.readers.delete(reader);
      // Others go on: then what this one leaves behind counts as handed over.
      if (run === before) await current?.done();
      else if (this.#run === run) await this.stop();
    });
    run.readers.add(reader);
    this.#joined();
    return reader;
  }

  // ---- calls

  /** @param {SendOptions} options @returns {Promise<Receipt>} */
  async send({ to, group, body, key = randomKey(), timeout = 60, signal }) {
    const path = `v1/${place({ user: to, group })}/messages`;
    const text = JSON.stringify({ body });
    // What JSON has no word for, such as a function, would be left out.
    if (JSON.stringify(body) === undefined) throw new TypeError("`body` is missing");
    const draft = { send: { ...(group === undefined ? { to } : { group }), body, idempotency_key: key } };
    try {
      return await this.#call({ timeout, signal }, async (limit) => {
        const short = new TextEncoder().encode(JSON.stringify(draft)).length <= SOCKET_SEND_BYTES_MAX;
        const receipt = short ? await this.#sendOverSocket(draft, limit) : undefined;
        return receipt ?? this.#request(limit, path, {}, {
          method: "POST",
          headers: { "content-type": "application/json", "idempotency-key": key },
          body: text,
        });
      });
    } catch (error) {
      throw error instanceof HalleyError ? error.with({ key }) : error;
    }
  }

  /** The receipt; none where no socket is open, or only one whose token has run out.
   * @param {object} draft @param {Limit} limit @returns {Promise<Receipt | undefined>} */
  async #sendOverSocket(draft, limit) {
    const socket = this.#socket;
    if (!socket || socket.ending) return undefined;
    try {
      return (await socket.ask(draft, limit.signal)).receipt;
    } catch (error) {
      if (!(error instanceof HalleyError) || error.status !== 401) throw error;
      this.#tokens.expired(socket.token);
      return undefined;
    }
  }

  /** @param {HistoryOptions} options */
  async history({ with: user, group, before, after, limit, ...call }) {
    const path = `v1/${place({ user, group })}/messages`;
    return this.#call(call, (time) => this.#request(time, path, { before, after, limit }));
  }

  /** @param {CallOptions & { before?: string, limit?: number }} [options] */
  conversations({ before, limit, ...call } = {}) {
    return this.#call(call, (time) => this.#request(time, "v1/conversations", { before, limit }));
  }

  /** Makes a call until it succeeds, is refused for good, or time is over.
   * @template T @param {CallOptions} options @param {(limit: Limit) => Promise<T>} attempt @returns {Promise<T>} */
  async #call({ timeout = 30, signal }, attempt) {
    const all = new Limit(signal);
    this.#calls.add(all);
    const deadline = Date.now() + timeout * 1000;
    try {
      for (let failures = 0; ; failures++) {
        const limit = new Limit(all.signal);
        limit.expect(Math.min(this.#timing.request, Math.max(deadline - Date.now(), 1)));
        try {
          return await attempt(limit);
        } catch (cause) {
          signal?.throwIfAborted();
          if (all.signal.aborted) throw stopped();
          const error = timely(cause, limit);
          // Another token will be asked for; `Tokens` knows when that has no end.
          const renewed = error.status === 401 && !error.fatal;
          const pause = Math.max(backoff(failures, this.#timing), (error.retryAfter ?? 0) * 1000);
          if (!(renewed || mayPass(error)) || Date.now() + pause >= deadline) throw error;
          await sleep(renewed && failures === 0 ? 0 : pause, all.signal);
        } finally {
          limit.close();
        }
      }
    } finally {
      this.#calls.delete(all);
      all.close();
    }
  }

  /** @param {Limit} limit @param {string} path @param {Record<string, string | number | undefined>} query
   * @param {RequestInit} [init] @returns {Promise<any>} */
  async #request(limit, path, query, init) {
    /** @type {Pick<Link, "tokens" | "fetch" | "token">} */
    const link = { tokens: this.#tokens, fetch: this.#fetch };
    try {
      return await askJson(link, this.#address(path, query), limit, init);
    } catch (cause) {
      if (cause instanceof HalleyError && cause.status === 401) this.#tokens.refuse(link.token, cause);
      throw cause;
    }
  }

  // ---- the work

  /** Connects again and again. It never rejects. @param {Run} run @param {Promise<void>} [before] */
  async #work(run, before) {
    // In any case later, so that the caller of `start()` can add listeners.
    await before;
    const unlisten = this.#watchBrowser(run);
    /** @type {HalleyError | undefined} */
    let error;
    try {
      // What listeners are still at work on would come to them again.
      await unlessAborted(this.#listenersDone(), run.signal);
      while (!run.signal.aborted) await this.#oneConnection(run);
    } catch (cause) {
      error = asError(cause);
    }
    unlisten();
    if (this.#run === run) this.#run = undefined;
    if (!error || run.signal.aborted) error = undefined;
    error = error?.with({ fatal: true });
    this.#become("stopped", { error });
    if (error) this.#emit("error", error);
    for (const reader of run.readers) reader.end(error);
    // A client that stops without a word is hard to find.
    const heard = this.#listeners.error.size + run.readers.size > 0;
    if (error && !heard) console.error("halley:", error);
  }

  /** One connection, and the pause after it. Throws what cannot be helped. @param {Run} run */
  async #oneConnection(run) {
    const interrupt = (this.#interrupt = new AbortController());
    const limit = new Limit(run.signal, interrupt.signal);
    const begun = Date.now();
    try {
      await this.#untilOnline(limit.signal);
      if (limit.signal.aborted) return;
      const link = this.#link(limit.signal, this.#choose());
      this.#connection = link;
      // Whatever transport it is, it makes room for a better one. What is cut off comes again.
      const better = this.#betterAt(/** @type {Transport} */ (this.#transport));
      if (better < Infinity) limit.expect(better - Date.now());
      const error = await this.#follow(run, link);
      limit.relax();
      if (limit.signal.aborted) return;
      const ms = await this.#judge(run, link, error, Date.now() - begun);
      if (ms === 0 || limit.signal.aborted) return;
      this.#become("waiting", { error, retryInMs: ms });
      await sleep(ms, limit.signal);
    } finally {
      limit.close();
    }
  }

  /** Takes pages until the connection ends; gives the reason unless it ended in order.
   * @param {Run} run @param {Link} link @returns {Promise<HalleyError | undefined>} */
  async #follow(run, link) {
    this.#become("connecting");
    try {
      await this.#restore(link);
      link.cursor = this.#cursor;
      const open = OPEN[/** @type {Transport} */ (this.#transport)];
      for await (const page of open(link)) await this.#take(run, link, page);
      return undefined;
    } catch (error) {
      return asError(error);
    }
  }

  /** How long to wait before the next connection, milliseconds.
   * @param {Run} run @param {Link} link @param {HalleyError | undefined} error @param {number} lastedMs */
  async #judge(run, link, error, lastedMs) {
    if (lastedMs > backoffCeiling(run.failures, this.#timing) && link.spoken) run.failures = 0;
    // One that ends in order at once, again and again, must not become a circle.
    if (!error) return lastedMs > 1000 ? 0 : backoff(run.failures++, this.#timing);
    if (error.fatal) throw error;
    if (error.code === "transport_blocked" && this.#wanted === "auto") {
      this.#putOff(/** @type {Transport} */ (this.#transport));
      this.#emit("error", error);
      return 0;
    }
    if (error.status === 401) {
      this.#tokens.refuse(link.token, error);
      return 0;
    }
    if (error.problem?.restart !== undefined || error.problem?.first !== undefined) {
      await this.#reset(run, error);
      return backoff(run.failures++, this.#timing);
    }
    if (answered(error) && !mayPass(error)) throw error;
    this.#emit("error", error);
    // All its clients lost a server that stops at the same moment.
    if (error.code === "closing") run.failures = Math.max(run.failures, 1);
    return Math.max(backoff(run.failures++, this.#timing), (error.retryAfter ?? 0) * 1000);
  }

  /** Hands a page over. @param {Run} run @param {Link} link @param {Page} page */
  async #take(run, link, page) {
    this.#chains.begin(parseCursor(this.#cursor));
    for (const message of page.messages) {
      if (link.signal.aborted) return;
      if (this.#isRepeat(message)) continue;
      await this.#fillGap(run, link, message);
      if (link.signal.aborted) return;
      await this.#hand(run, message, cursorAfter(this.#cursor, message, page.next));
    }
    if (!link.signal.aborted) await this.#move(cursorMerged(this.#cursor, page.next));
  }

  /** @param {Message} message */
  #isRepeat(message) {
    const given = parseCursor(this.#cursor)?.[message.sequence] ?? 0;
    return message.id <= Math.max(given, this.#chains.last(message) ?? 0);
  }

  /** Gives a message to all; the cursor moves when they are done.
   * @param {Run} run @param {Message} message @param {string | undefined} cursor */
  async #hand(run, message, cursor) {
    await unlessAborted(this.#handNow(run, message, cursor), run.released);
  }

  /** @param {Run} run @param {Message} message @param {string | undefined} cursor */
  async #handNow(run, message, cursor) {
    const epoch = this.#epoch;
    await this.#someoneListens(run);
    if (run.signal.aborted) return;
    const listening = (this.#listening = this.#tellListeners(message, cursor));
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
    await handover.whole;
  }

  /** A message that nobody takes would be lost: so it waits. @param {Run} run */
  async #someoneListens(run) {
    while (this.#listeners.message.size + run.readers.size === 0 && !run.signal.aborted) {
      await new Promise((resolve) => (this.#joined = () => resolve(undefined)));
    }
  }

  /** @param {Message} message @param {string | undefined} cursor */
  async #tellListeners(message, cursor) {
    for (const listener of [...this.#listeners.message]) {
      try {
        await listener(message, cursor ?? "");
      } catch (cause) {
        const name = `${message.sequence} ${message.id}`;
        this.#emit("error", new HalleyError("listener_failed", `a listener failed at ${name}: ${cause}`, { cause }));
      }
    }
  }

  /** Until the listeners at work are done; but one of them may be waiting for this very stop. */
  async #listenersDone() {
    const listening = this.#listening;
    if (!listening) return;
    const grace = new Limit();
    void listening.then(() => grace.close());
    await sleep(this.#timing.grace, grace.signal);
  }

  /** @param {string | undefined} cursor */
  async #move(cursor) {
    if (cursor === undefined || cursor === this.#cursor) return;
    this.#cursor = cursor;
    this.#emit("cursor", cursor);
    const { storage } = this.#options;
    if (!storage) return;
    try {
      await inTime(() => storage.setItem(this.#storageKey(), cursor), this.#timing.request);
    } catch (cause) {
      this.#emit("error", new HalleyError("storage_failed", `the cursor was not stored: ${cause}`, { cause }));
    }
  }

  /** Reads the stored cursor, once. @param {Link} link */
  async #restore(link) {
    if (this.#restored) return;
    const { storage } = this.#options;
    if (storage) {
      // The name of the place has the user's name in it, which is in the token.
      link.token = await this.#tokens.get(link.signal);
      const stored = await this.#stored(storage, link.signal);
      if (stored && parseCursor(stored)) this.#cursor = stored;
    }
    this.#restored = true;
  }

  /** @param {import("./halley.d.ts").CursorStorage} storage @param {AbortSignal} signal */
  async #stored(storage, signal) {
    try {
      return await inTime(() => storage.getItem(this.#storageKey()), this.#timing.request, signal);
    } catch (cause) {
      throw new HalleyError("storage_failed", `the cursor was not read: ${cause}`, { cause });
    }
  }

  #storageKey() {
    // Cursors of two users look alike, but one of them would miss messages with the other's.
    return this.#options.storageKey ?? `halley:${this.#url.host}${this.#url.pathname}:${this.#tokens.user}`;
  }

  /** If the chain of the message's conversation is broken, gives what is missing first.
   * @param {Run} run @param {Link} link @param {Message} message */
  async #fillGap(run, link, message) {
    const after = this.#chains.last(message);
    if (after === undefined || message.prev <= after) return;
    const user = this.#tokens.user;
    const peer = message.from === user ? message.to : message.from;
    const where = message.group === undefined ? { user: peer } : { group: message.group };
    /** @type {Message[]} */
    const messages = [];
    let last = after;
    let complete = true;
    for await (const missing of this.#between(link, where, after, message.id)) {
      if (link.signal.aborted) return;
      complete &&= missing.prev <= last;
      last = missing.id;
      messages.push(missing);
      // It may be beyond other messages that are still to come: the cursor stays.
      await this.#hand(run, missing, this.#cursor);
    }
    complete &&= message.prev <= last;
    const { sequence, id: before, group } = message;
    const place = group === undefined ? { with: peer } : { group };
    this.#emit("gap", { sequence, ...place, after, before, messages, complete });
  }

  /** History between two ids. A refusal ends it: what the user may not see cannot be filled in.
   * @param {Link} link @param {{ user?: string, group?: string }} where @param {number} after
   * @param {number} before @returns {AsyncGenerator<Message, void>} */
  async *#between(link, where, after, before) {
    for (;;) {
      const page = await this.#historyPage(link, where, after);
      for (const message of page.messages) {
        if (message.id >= before) return;
        yield message;
        after = message.id;
      }
      if (!page.more || page.messages.length === 0) return;
    }
  }

  /** @param {Link} link @param {{ user?: string, group?: string }} where @param {number} after
   * @returns {Promise<{ messages: Message[], more: boolean }>} */
  async #historyPage(link, where, after) {
    const limit = new Limit(link.signal);
    limit.expect(this.#timing.request);
    try {
      const url = this.#address(`v1/${place(where)}/messages`, { after, limit: HISTORY_PAGE });
      return await askJson(link, url, limit);
    } catch (cause) {
      const error = timely(cause, limit);
      if (!answered(error) || mayPass(error) || error.status === 401) throw error;
      return { messages: [], more: false };
    } finally {
      limit.close();
    }
  }

  /** The server cannot go on from the cursor. @param {Run} run @param {HalleyError} error */
  async #reset(run, error) {
    const restart = String(error.problem?.restart ?? error.problem?.first);
    const code = /** @type {Reset["code"]} */ (error.code);
    const reset = { code, restart, cursor: this.#cursor, detail: error.detail };
    this.#emit("reset", reset);
    if ((await this.#decision(run, reset)) === "stop") throw error.with({ fatal: true });
    this.#epoch += 1;
    this.#chains.cut(code === "log_unknown" ? undefined : parseCursor(restart));
    await this.#move(restart);
  }

  /** What the application wants then. It may ask its user, who takes his time. @param {Run} run @param {Reset} reset */
  async #decision(run, reset) {
    try {
      return await unlessAborted(Promise.resolve(this.#options.onReset?.(reset)), run.signal);
    } catch (cause) {
      throw new HalleyError("listener_failed", `\`onReset\` failed: ${cause}`, { cause });
    }
  }

  // ---- smaller things

  /** @param {AbortSignal} signal @param {Transport} transport @returns {Link} */
  #link(signal, transport) {
    this.#transport = transport;
    const { heartbeat, wait } = this.#options;
    /** @type {Link} */
    const link = {
      signal,
      cursor: this.#cursor,
      now: () => this.#cursor,
      tokens: this.#tokens,
      heartbeat,
      wait,
      timing: this.#timing,
      fetch: this.#fetch,
      WebSocket: this.#WebSocket,
      address: (path, query) => this.#address(path, query),
      spoken: false,
      heardAt: Date.now(),
      live: () => {
        if (!link.spoken) this.#blocked.delete(transport);
        link.spoken = true;
        this.#become("live");
      },
      opened: (closed) => {
        this.#closing.add(closed);
        void closed.then(() => this.#closing.delete(closed));
      },
      socket: (socket) => (this.#socket = socket),
    };
    return link;
  }

  /** @returns {typeof globalThis.fetch} */
  get #fetch() {
    // Taken each time, so that a page may put its own in the place; and never as a method of ours.
    const own = this.#options.fetch;
    return own ? (...call) => own(...call) : (...call) => globalThis.fetch(...call);
  }

  get #WebSocket() {
    return this.#options.WebSocket ?? globalThis.WebSocket;
  }

  /** @param {Transport | "auto"} transport */
  #possible(transport) {
    if (transport !== "auto" && !TRANSPORTS.includes(transport)) {
      throw new TypeError(`there is no transport ${JSON.stringify(transport)}`);
    }
    if (transport === "socket" && !this.#WebSocket) {
      throw new TypeError("there is no WebSocket here: give a constructor as the option `WebSocket`");
    }
    return transport;
  }

  /** @returns {Transport} */
  #choose() {
    if (this.#wanted !== "auto") return this.#wanted;
    const now = Date.now();
    const open = AUTO.find((transport) => this.#exists(transport) && this.#offUntil(transport) <= now);
    return open ?? "poll";
  }

  /** @param {Transport} transport */
  #exists(transport) {
    return transport !== "socket" || Boolean(this.#WebSocket);
  }

  /** @param {Transport} transport */
  #offUntil(transport) {
    return this.#blocked.get(transport)?.until ?? 0;
  }

  /** @param {Transport} transport */
  #putOff(transport) {
    const before = this.#blocked.get(transport)?.ms;
    const { better } = this.#timing;
    const ms = before === undefined ? better : Math.min(before * 2, better * 10);
    this.#blocked.set(transport, { until: Date.now() + ms, ms });
  }

  /** When a transport should make room for a better one. @param {Transport} transport */
  #betterAt(transport) {
    if (this.#wanted !== "auto") return Infinity;
    const better = AUTO.slice(0, AUTO.indexOf(/** @type {any} */ (transport)));
    return Math.min(Infinity, ...better.filter((one) => this.#exists(one)).map((one) => this.#offUntil(one)));
  }

  /** @param {string} path @param {Record<string, string | number | undefined>} [query] */
  #address(path, query = {}) {
    const url = new URL(path, this.#url);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    return url;
  }

  /** @param {State} state @param {Partial<StateChange>} [more] */
  #become(state, more = {}) {
    if (state === this.#state) return;
    this.#state = state;
    this.#emit("state", { state, transport: this.#transport, ...more });
  }

  /** Tells listeners. One that fails is no reason for the others or for the client to fail.
   * @template {keyof Events} Name @param {Name} event @param {Parameters<Events[Name]>} values */
  #emit(event, ...values) {
    for (const listener of [...this.#listeners[event]]) {
      try {
        const outcome = /** @type {(...values: unknown[]) => unknown} */ (listener)(...values);
        Promise.resolve(outcome).catch((cause) => this.#listenerFailed(event, cause));
      } catch (cause) {
        this.#listenerFailed(event, cause);
      }
    }
  }

  /** @param {string} event @param {unknown} cause */
  #listenerFailed(event, cause) {
    // A failing `error` listener cannot be told to itself.
    if (event === "error") return console.error("halley: an error listener failed:", cause);
    this.#emit("error", new HalleyError("listener_failed", `a listener of ${event} failed: ${cause}`, { cause }));
  }

  /** A browser says when the network goes and comes, and when the user looks again. @param {Run} run */
  #watchBrowser(run) {
    if (typeof globalThis.addEventListener !== "function") return () => {};
    const again = () => {
      run.failures = 0;
      this.#interrupt.abort();
    };
    const online = () => this.#state === "live" || again();
    const offline = () => this.#interrupt.abort();
    const looks = () => globalThis.document?.visibilityState === "visible" && this.#isDoubtful() && again();
    globalThis.addEventListener("online", online);
    globalThis.addEventListener("offline", offline);
    globalThis.document?.addEventListener("visibilitychange", looks);
    return () => {
      globalThis.removeEventListener("online", online);
      globalThis.removeEventListener("offline", offline);
      globalThis.document?.removeEventListener("visibilitychange", looks);
    };
  }

  /** Whether the connection may have died while the machine slept, when timers stood still too. */
  #isDoubtful() {
    if (this.#state === "waiting") return true;
    const { heartbeat, wait = 0 } = this.#options;
    const patience = Math.max(heartbeat, this.#transport === "poll" ? wait : 0) * 1000 + 5000;
    return this.#state === "live" && Date.now() - (this.#connection?.heardAt ?? 0) > patience;
  }

  /** Waits while the browser says that there is no network; not for ever, as it may be wrong.
   * @param {AbortSignal} signal */
  async #untilOnline(signal) {
    if (globalThis.navigator?.onLine !== false) return;
    const ms = this.#timing.backoffMax;
    this.#become("waiting", { error: new HalleyError("offline", "there is no network"), retryInMs: ms });
    await sleep(ms, signal);
  }
}

/** Where messages go to and lie. @param {{ user?: string, group?: string }} receiver */
function place({ user, group }) {
  if ((user === undefined) === (group === undefined)) {
    throw new TypeError("exactly one of a user and a group is needed");
  }
  return user === undefined ? `groups/${encodeURIComponent(group ?? "")}` : `direct/${encodeURIComponent(user)}`;
}

/** Not `randomUUID`, which pages without TLS lack. */
function randomKey() {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
