/**
 * Client of Halley: receives a user's messages over WebSocket, SSE, a stream of lines or polls, each message once and
 * in order, across network failures and restarts of the server; sends messages and reads history.
 * One ES module for browsers and Node 20, without dependencies. `halley.d.ts` describes the interface.
 *
 * How it works: a *transport* is a generator of pages (`{messages, next}`) for one connection. It returns when it
 * should be opened again at once, and throws when something is wrong. `Halley` opens one after another, delivers
 * the messages, and only then moves the cursor. Every connection begins at the cursor, so it does not matter when
 * and how one ends.
 */
// Joined from src/ by join.mjs: change it there.

// ---- errors.js

/** Statuses after which the same request may succeed later. */
const RETRY_STATUS = new Set([408, 425, 429]);

class HalleyError extends Error {
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

  /** A copy with changes. @param {{ fatal?: boolean, key?: string }} more */
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
  return new HalleyError("network", `cannot reach the server: ${text}${inner}`, { cause });
}

const connectionLost = () => new HalleyError("connection_lost", "the connection broke");
const timedOut = () => new HalleyError("timeout", "no answer from the server in time");
const stopped = () => new HalleyError("stopped", "the client was stopped");

/** An error from a problem object, as replies and answers on the socket carry it.
 * @param {Record<string, any>} problem @param {number} [retryAfter] */
function problemError(problem, retryAfter) {
  const { code, detail, title, status } = problem;
  return new HalleyError(code, detail ?? title ?? "", { status, retryAfter, problem });
}

/** Whether the server itself answered, so the way to it is open. @param {HalleyError} error */
const answered = (error) => error.problem !== undefined;

/** Whether the same request may succeed later. @param {HalleyError} error */
function isTransient(error) {
  if (error.fatal) return false;
  return error.status < 400 || error.status >= 500 || RETRY_STATUS.has(error.status);
}

// ---- body.js

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
function bodyJson(body) {
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
function faultOf(json) {
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
function byteLength(text) {
  return new TextEncoder().encode(text).length;
}

// ---- parsers.js

/** No line of Halley's is longer. */
const LINE_CHARS_MAX = 64 * 1024 * 1024;

/** @param {string} text @returns {any} */
function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new HalleyError("bad_reply", "the reply is not JSON", { cause });
  }
}

/** Splits bytes into lines. The bytes may be cut anywhere, also within a character or between CR and LF. */
class LineSplitter {
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
class EventStreamParser {
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

// ---- time.js

/** The longest delay that `setTimeout` takes. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** Milliseconds on a clock that only goes forward. The wall clock may be set back by an hour, and a connection that
 * has been silent since would look alive all that time; so every duration here is measured with this one. */
const now = () => performance.now();

/** The upper limit of the pause after this many failures. @param {number} failures @param {Timing} timing */
function backoffCeiling(failures, { backoffMin, backoffMax }) {
  return Math.min(backoffMax, backoffMin * 2 ** Math.min(failures, 30));
}

/** A random pause below the limit, so that clients that lost the server together do not return together.
 * @param {number} failures @param {Timing} timing */
function backoff(failures, timing) {
  return Math.random() * backoffCeiling(failures, timing);
}

/** Waits; returns early when aborted. @param {number} ms @param {AbortSignal} signal @returns {Promise<void>} */
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

/** A promise's outcome, or a rejection when it is aborted first.
 * @template T @param {Promise<T>} promise @param {AbortSignal} signal @returns {Promise<T>} */
function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => reject(stopped());
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

/** An abort signal below others that can also run out of time. */
class Limit {
  #controller = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {(() => void)[]} */
  #unlink = [];
  /** It ran out of time. */
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

  /** A promise's outcome, or a rejection when this limit ends first. `fetch` and the bodies of its replies take the
   * signal too, but Node 20 does not always act on it.
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

/** What a function of the application returns, unless it takes longer than allowed.
 * @template T @param {() => T | Promise<T>} call @param {number} ms @param {AbortSignal} [signal] @returns {Promise<T>} */
async function inTime(call, ms, signal) {
  const limit = new Limit(signal);
  limit.expect(ms);
  try {
    return await limit.race(Promise.resolve(call()));
  } catch (cause) {
    throw limit.late ? new Error(`no answer within ${ms} ms`) : cause;
  } finally {
    limit.close();
  }
}

// ---- tokens.js

/** A token function whose tokens are refused this often in a row will not do better. */
const REFUSALS_MAX = 3;
/** A token is renewed this long before it expires, or after four fifths of its life if that is later. */
const RENEW_EARLY_MS = 30_000;

/** The claims of a token; none if it is not a JWT. @param {string} token @returns {{ sub?: string, exp?: number }} */
function claims(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(part), (char) => char.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
  } catch {
    return {};
  }
}

/** How long a token is to be used, milliseconds. `exp` is a date, so this alone reads the wall clock, once for each
 * token. If that clock is wrong, the token looks expired at once or for too long: then the server's word decides.
 * @param {number | undefined} exp Unix seconds */
function freshMs(exp = Infinity) {
  const lifetime = exp * 1000 - Date.now();
  return lifetime > 0 ? lifetime - Math.min(RENEW_EARLY_MS, lifetime / 5) : Infinity;
}

/** The user's token: requested once for all callers that need it, and again before it expires. */
class Tokens {
  #source;
  #patience;
  /** @type {string | undefined} */
  #token;
  /** The user of the current token, or of the one before it: messages still arrive while the next is requested.
   * @type {string | undefined} */
  user;
  /** @type {string | undefined} */
  #refused;
  #refusals = 0;
  /** On the clock of `now()`. */
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
    if (this.#token !== undefined && this.freshFor > 0) return Promise.resolve(this.#token);
    this.#pending ??= this.#request().finally(() => (this.#pending = undefined));
    return unlessAborted(this.#pending, signal);
  }

  /** Milliseconds until the next one should be requested. */
  get freshFor() {
    return this.#staleAt - now();
  }

  async #request() {
    const token = await this.#callSource();
    if (!token) {
      throw new HalleyError("no_token", "the token function returned no token", { fatal: true });
    }
    if (token === this.#refused) throw this.#hopeless("the token function returned the refused token again");
    const { exp, sub } = claims(token);
    // The cursor belongs to the first user.
    if (this.user !== undefined && sub !== this.user) {
      const detail = `the token is for ${sub}, but this client is for ${this.user}: create another client for another user`;
      throw new HalleyError("user_changed", detail, { fatal: true });
    }
    this.user = sub;
    this.#token = token;
    this.#staleAt = typeof this.#source === "function" ? now() + freshMs(exp) : Infinity;
    return token;
  }

  async #callSource() {
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

  /** It has expired: the next `get` requests another. @param {string | undefined} token */
  expired(token) {
    if (token === this.#token && typeof this.#source === "function") this.#token = undefined;
  }

  /** The server refused it: another is needed. Throws if there cannot be one.
   * @param {string | undefined} token @param {HalleyError} error */
  refuse(token, error) {
    // Another caller has got a new one meanwhile.
    if (token !== this.#token) return;
    if (typeof this.#source !== "function") throw error.with({ fatal: true });
    this.#refusals += 1;
    if (this.#refusals >= REFUSALS_MAX) throw this.#hopeless(error.detail);
    this.#refused = token;
    this.#token = undefined;
  }

  /** @param {string} detail */
  #hopeless(detail) {
    // The application may start again with a better source.
    this.#refusals = 0;
    this.#refused = undefined;
    this.#token = undefined;
    return new HalleyError("unauthorized", detail, { status: 401, fatal: true });
  }
}

// ---- server.js

/** The server as one client reaches it: its addresses, the user's token, and the limits of time. */
class Server {
  #url;
  #options;
  /** @type {Timing} */
  timing;
  /** Seconds. */
  heartbeat;
  /** Seconds. */
  wait;
  tokens;

  /** @param {Options} options */
  constructor(options) {
    const { url = globalThis.location?.origin, token, heartbeat = 30, wait = 30 } = options;
    if (url === undefined) throw new TypeError("option `url` is missing");
    if (token === undefined) throw new TypeError("option `token` is missing");
    this.#url = new URL(String(url), globalThis.location?.href);
    // Without the slash, a relative path would replace the last segment.
    if (!this.#url.pathname.endsWith("/")) this.#url.pathname += "/";
    this.#options = options;
    this.heartbeat = heartbeat;
    this.wait = wait;
    this.timing = {
      backoffMin: 500,
      backoffMax: 30_000,
      connect: 15_000,
      silence: 2 * heartbeat * 1000 + 5000,
      request: 15_000,
      better: 60_000,
      grace: 5000,
      ...options.timing,
    };
    this.tokens = new Tokens(token, this.timing.request);
  }

  /** Host and path, for names that tell two servers apart. */
  get name() {
    return `${this.#url.host}${this.#url.pathname}`;
  }

  /** @param {string} path @param {Query} [query] */
  address(path, query = {}) {
    const url = new URL(path, this.#url);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    return url;
  }

  /** @returns {typeof globalThis.fetch} */
  get fetch() {
    // Looked up for each call, so that a page may replace it; and never called as a method of ours.
    const own = this.#options.fetch;
    return own ? (...call) => own(...call) : (...call) => globalThis.fetch(...call);
  }

  /** @returns {WebSocketConstructor | undefined} */
  get WebSocket() {
    return this.#options.WebSocket ?? globalThis.WebSocket;
  }

  /** One request. The body of the reply is under the same limit. `use` remembers the token that was used.
   * @param {{ token?: string }} use @param {URL} url @param {Limit} limit @param {RequestInit} [init] */
  async request(use, url, limit, init = {}) {
    use.token = await this.#token(limit);
    const request = this.fetch(url, {
      ...init,
      headers: { ...init.headers, authorization: `Bearer ${use.token}` },
      cache: "no-store",
      signal: limit.signal,
    });
    const reply = await limit.race(request);
    if (!reply.ok) throw await refusal(reply, limit);
    this.tokens.accepted();
    return reply;
  }

  /** @param {Limit} limit */
  async #token(limit) {
    try {
      return await this.tokens.get(limit.signal);
    } catch (cause) {
      // Not the server was too slow.
      throw limit.late ? new HalleyError("token_failed", "the token function did not answer in time") : cause;
    }
  }

  /** The same, and the JSON in the reply.
   * @param {{ token?: string }} use @param {URL} url @param {Limit} limit @param {RequestInit} [init]
   * @returns {Promise<any>} */
  async requestJson(use, url, limit, init) {
    const reply = await this.request(use, url, limit, init);
    return parseJson(await limit.race(reply.text()));
  }
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
  // From a proxy in between, or another server.
  return new HalleyError("http_error", `status ${reply.status}, and the reply is not from Halley`, {
    status: reply.status,
    retryAfter,
  });
}

/** @param {Response} reply @param {string} type */
function isType(reply, type) {
  return (reply.headers.get("content-type") ?? "").toLowerCase().startsWith(type);
}

/** The error; a timeout, if it is only that the limit ended. @param {unknown} cause @param {Limit} limit */
function errorOf(cause, limit) {
  const error = asError(cause);
  const known = cause instanceof HalleyError && error.code !== "stopped";
  return limit.late && !known ? timedOut() : error;
}

/** The path of a conversation or group. @param {Place} place */
function pathOf({ user, group }) {
  if ((user === undefined) === (group === undefined)) {
    throw new TypeError("give either a user or a group");
  }
  return user === undefined ? `groups/${encodeURIComponent(group ?? "")}` : `direct/${encodeURIComponent(user)}`;
}

// ---- calls.js

/** What is longer is sent by POST, where a refusal costs no connection. However short the bodies are that a server
 * takes, its frames have room for this and a `ref`. */
const SOCKET_SEND_BYTES_MAX = 15 * 1024;

/** Requests of the application: sending, history, conversations. */
class Calls {
  #server;
  /** The open socket, if there is one. @type {Socket | undefined} */
  socket;
  /** Calls in progress. @type {Set<Limit>} */
  #running = new Set();

  /** @param {Server} server */
  constructor(server) {
    this.#server = server;
  }

  stop() {
    for (const call of this.#running) call.close();
  }

  /** @param {SendOptions} options @returns {Promise<Receipt>} */
  async send({ to, group, body, key = randomKey(), timeout = 60, signal }) {
    const path = `v1/${pathOf({ user: to, group })}/messages`;
    const draft = { send: { ...(group === undefined ? { to } : { group }), body, idempotency_key: key } };
    const headers = { "content-type": "application/json", "idempotency-key": key };
    try {
      const init = { method: "POST", headers, body: `{"body":${bodyJson(body)}}` };
      const short = byteLength(JSON.stringify(draft)) <= SOCKET_SEND_BYTES_MAX;
      return await this.#call({ timeout, signal }, async (limit) => {
        const receipt = short ? await this.#sendOverSocket(draft, limit) : undefined;
        return receipt ?? this.#request(limit, path, {}, init);
      });
    } catch (error) {
      throw error instanceof HalleyError ? error.with({ key }) : error;
    }
  }

  /** The receipt; none where no socket is open, or only one whose token has expired.
   * @param {object} draft @param {Limit} limit @returns {Promise<Receipt | undefined>} */
  async #sendOverSocket(draft, limit) {
    const socket = this.socket;
    if (!socket || socket.ending) return undefined;
    try {
      return (await socket.ask(draft, limit.signal)).receipt;
    } catch (error) {
      if (!(error instanceof HalleyError) || error.status !== 401) throw error;
      this.#server.tokens.expired(socket.token);
      return undefined;
    }
  }

  /** @param {HistoryOptions} options */
  async history({ with: user, group, before, after, limit, ...call }) {
    const path = `v1/${pathOf({ user, group })}/messages`;
    return this.#call(call, (time) => this.#request(time, path, { before, after, limit }));
  }

  /** @param {CallOptions & { before?: string, limit?: number }} options */
  conversations({ before, limit, ...call }) {
    return this.#call(call, (time) => this.#request(time, "v1/conversations", { before, limit }));
  }

  /** Repeats a call until it succeeds, is refused for good, or runs out of time.
   * @template T @param {CallOptions} options @param {(limit: Limit) => Promise<T>} attempt @returns {Promise<T>} */
  async #call({ timeout = 30, signal }, attempt) {
    const { timing } = this.#server;
    const all = new Limit(signal);
    this.#running.add(all);
    const deadline = now() + timeout * 1000;
    try {
      for (let failures = 0; ; failures++) {
        const limit = new Limit(all.signal);
        limit.expect(Math.min(timing.request, Math.max(deadline - now(), 1)));
        try {
          return await attempt(limit);
        } catch (cause) {
          signal?.throwIfAborted();
          if (all.signal.aborted) throw stopped();
          const error = errorOf(cause, limit);
          // The next attempt requests another token; `Tokens` ends this when it has no end.
          const renewed = error.status === 401 && !error.fatal;
          const pause = Math.max(backoff(failures, timing), (error.retryAfter ?? 0) * 1000);
          if (!(renewed || isTransient(error)) || now() + pause >= deadline) throw error;
          await sleep(renewed && failures === 0 ? 0 : pause, all.signal);
        } finally {
          limit.close();
        }
      }
    } finally {
      this.#running.delete(all);
      all.close();
    }
  }

  /** @param {Limit} limit @param {string} path @param {Query} query @param {RequestInit} [init] @returns {Promise<any>} */
  async #request(limit, path, query, init) {
    /** @type {{ token?: string }} */
    const use = {};
    try {
      return await this.#server.requestJson(use, this.#server.address(path, query), limit, init);
    } catch (cause) {
      if (cause instanceof HalleyError && cause.status === 401) this.#server.tokens.refuse(use.token, cause);
      throw cause;
    }
  }
}

/** Not `randomUUID`, which pages without TLS lack. */
function randomKey() {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ---- connection.js

/** One connection to the server: what its transport needs, and what it reports. */
class Connection {
  /** Ends the connection. @type {AbortSignal} */
  signal;
  /** @type {Server} */
  server;
  /** Where the connection begins. @type {string | undefined} */
  cursor;
  /** Where the client is by now. @type {() => string | undefined} */
  currentCursor;
  /** The token in use. @type {string | undefined} */
  token;
  /** The server has said something. */
  spoken = false;
  /** When something arrived from the server: on the clock of `now()`, and on the wall clock. */
  heardAt = now();
  #heardAtWall = Date.now();
  #client;

  /** @param {Server} server @param {AbortSignal} signal
   * @param {{ cursor: () => string | undefined, live: (first: boolean) => void, closing: (closed: Promise<void>) => void,
   *   socket: (socket: Socket | undefined) => void }} client what it reports to */
  constructor(server, signal, client) {
    this.server = server;
    this.signal = signal;
    this.currentCursor = client.cursor;
    this.#client = client;
  }

  heard() {
    this.heardAt = now();
    this.#heardAtWall = Date.now();
  }

  /** Milliseconds since something arrived. */
  get silentMs() {
    return now() - this.heardAt;
  }

  /** The same, with the time that the machine slept. In most browsers the clock of `now()` and all timers stand still
   * meanwhile and only the wall clock goes on. It may be wrong: use this only where an early end does no harm. */
  get silentMsWithSleep() {
    return Math.max(this.silentMs, Date.now() - this.#heardAtWall);
  }

  /** The server has spoken: messages arrive as they are sent. */
  live() {
    const first = !this.spoken;
    this.spoken = true;
    this.#client.live(first);
  }

  /** `stop()` waits for this. @param {Promise<void>} closed */
  closing(closed) {
    this.#client.closing(closed);
  }

  /** What `send` may use. @param {Socket | undefined} socket */
  offerSocket(socket) {
    this.#client.socket(socket);
  }
}

// ---- emitter.js

/** The application's listeners. */
class Emitter {
  /** @type {{ [Name in keyof Events]: Set<Events[Name]> }} */
  #listeners = {
    message: new Set(),
    state: new Set(),
    cursor: new Set(),
    reset: new Set(),
    gap: new Set(),
    error: new Set(),
  };

  /** @template {keyof Events} Name @param {Name} event */
  of(event) {
    return this.#listeners[event];
  }

  /** @template {keyof Events} Name @param {Name} event @param {Events[Name]} listener */
  on(event, listener) {
    if (!Object.hasOwn(this.#listeners, event)) throw new TypeError(`unknown event ${JSON.stringify(event)}`);
    this.#listeners[event].add(listener);
  }

  /** @template {keyof Events} Name @param {Name} event @param {Events[Name]} listener */
  off(event, listener) {
    this.#listeners[event]?.delete(listener);
  }

  /** Calls the listeners. One that fails does not make the others or the client fail.
   * @template {keyof Events} Name @param {Name} event @param {Parameters<Events[Name]>} values */
  emit(event, ...values) {
    for (const listener of [...this.#listeners[event]]) {
      try {
        const outcome = /** @type {(...values: unknown[]) => unknown} */ (listener)(...values);
        Promise.resolve(outcome).catch((cause) => this.#failed(event, cause));
      } catch (cause) {
        this.#failed(event, cause);
      }
    }
  }

  /** @param {string} event @param {unknown} cause */
  #failed(event, cause) {
    // A failing `error` listener cannot be told of its own failure.
    if (event === "error") return console.error("halley: a listener of error failed:", cause);
    this.emit("error", new HalleyError("listener_failed", `a listener of ${event} failed: ${cause}`, { cause }));
  }
}

// ---- chains.js

/** Conversations and groups whose end is remembered. */
const CHAINS_MAX = 10_000;

/** The end of each conversation and group, as far as this client has seen them. */
class Chains {
  /** @type {Map<string, ChainEnd>} */
  #ends = new Map();
  /** Direct conversations that are not in `#ends` have shown nothing after this id. It says nothing of groups, whose
   * members come and go. @type {number | undefined} */
  #begun;

  /** @param {Message} message */
  static #name({ sequence, group, from, to }) {
    return JSON.stringify(sequence === "group" ? [sequence, group] : [sequence, ...[from, to].sort()]);
  }

  /** @param {string} name @returns {Sequence} */
  static #sequence(name) {
    return JSON.parse(name)[0];
  }

  /** The end that a message should follow. @param {Message} message @returns {ChainEnd | undefined} */
  end(message) {
    const end = this.#ends.get(Chains.#name(message));
    if (end || message.sequence === "group" || this.#begun === undefined) return end;
    return this.#begun === 0 ? { id: 0, n: 0 } : { id: this.#begun };
  }

  /** Whether nothing is missing between an end and a message. @param {ChainEnd} end @param {Message} message */
  static follows({ id, n }, message) {
    // Both are asked: a number that is right proves nothing where the server names another message before it.
    return n === undefined ? message.prev <= id : message.prev === id && message.n === n + 1;
  }

  /** From here on everything is seen. @param {Position | undefined} position */
  begin(position) {
    this.#begun ??= position?.direct;
  }

  /** @param {Message} message */
  seen(message) {
    const name = Chains.#name(message);
    // Deleted first, so that the map stays in the order of the last change.
    this.#ends.delete(name);
    this.#ends.set(name, { id: message.id, n: message.n });
    if (this.#ends.size > CHAINS_MAX) this.#forget();
  }

  /** The one that has not changed for longest. */
  #forget() {
    const [[name, { id }]] = this.#ends;
    this.#ends.delete(name);
    if (this.#begun !== undefined && Chains.#sequence(name) === "direct") this.#begun = Math.max(this.#begun, id);
  }

  /** From here on the server has another history. @param {Position | undefined} position */
  cut(position) {
    this.#begun = undefined;
    for (const [name, { id }] of this.#ends) {
      if (!position || id > position[Chains.#sequence(name)]) this.#ends.delete(name);
    }
  }
}

// ---- cursor.js

/** Reads `D.G` or `D.G.L`. Anything else, such as `now`, is no position yet.
 * @param {string | undefined} cursor @returns {Position | undefined} */
function parseCursor(cursor) {
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
function cursorAfter(cursor, message, next) {
  const position = parseCursor(cursor);
  // `now` has no number to move; the end of the page has one.
  if (!position) return cursor;
  const tag = parseCursor(next)?.tag ?? position.tag;
  const id = Math.max(position[message.sequence], message.id);
  return cursorText({ ...position, [message.sequence]: id, tag });
}

/** The end of a page, but never back: what was delivered stays delivered.
 * @param {string | undefined} cursor @param {string | undefined} next */
function cursorMerged(cursor, next) {
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

// ---- readers.js

/** One message on its way to several readers: delivered when the last of them is done. */
class Handover {
  #left;
  #commit;
  /** @type {() => void} */
  #finish = () => {};
  complete = new Promise((resolve) => (this.#finish = () => resolve(undefined)));

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

/** What `messages()` returns. It has no queue: the client waits until the loop asks again. */
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
  /** The last `next`: each begins when the one before it has its message. @type {Promise<unknown>} */
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

  /** Nothing more comes. @param {HalleyError} [error] */
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
    // Asking for the next one says that the last one is done; after the end too.
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

// ---- stored-cursor.js

/** How long a tab that was reloaded waits for its own slot. */
const OWN_SLOT_MS = 1000;

/**
 * The cursor as it is kept between visits.
 *
 * Each open tab has one of its own. If all moved the same one, what one tab shows while another is closed would never
 * be seen in the other. So the cursors are in numbered slots: a tab takes the first one that no other tab holds, and
 * keeps it over a reload. With one tab at a time this is always the same slot. Web Locks say which are held: a tab
 * that is gone holds none, however it ended. Pages without TLS do not have them, and share the first slot.
 */
class StoredCursor {
  #storage;
  #name;
  #patience;
  /** @type {Slot | undefined} */
  #slot;

  /** @param {CursorStorage} storage @param {() => string} name of the first slot
   * @param {number} patience milliseconds that one access may take */
  constructor(storage, name, patience) {
    this.#storage = storage;
    this.#name = name;
    this.#patience = patience;
  }

  /** Takes a slot, for as long as the client runs. @param {AbortSignal} signal */
  async hold(signal) {
    this.#slot ??= await takeSlot(this.#name(), signal);
  }

  release() {
    this.#slot?.release();
    this.#slot = undefined;
  }

  get #key() {
    return this.#slot?.key ?? this.#name();
  }

  /** @param {AbortSignal} signal */
  async read(signal) {
    try {
      return await inTime(() => this.#storage.getItem(this.#key), this.#patience, signal);
    } catch (cause) {
      throw new HalleyError("storage_failed", `cannot read the stored cursor: ${cause}`, { cause });
    }
  }

  /** @param {string} cursor */
  async write(cursor) {
    try {
      await inTime(() => this.#storage.setItem(this.#key, cursor), this.#patience);
    } catch (cause) {
      throw new HalleyError("storage_failed", `cannot store the cursor: ${cause}`, { cause });
    }
  }
}

/** @typedef {{ key: string, release: () => void }} Slot */

/** @param {string} name @param {AbortSignal} signal @returns {Promise<Slot>} */
async function takeSlot(name, signal) {
  // Programs have no tabs: their storage is their own.
  const locks = globalThis.document && globalThis.navigator.locks;
  if (!locks) return { key: name, release: () => {} };
  try {
    return (await ownSlot(locks, name, signal)) ?? (await freeSlot(locks, name));
  } catch {
    // The browser does not let this page have locks.
    return { key: name, release: () => {} };
  }
}

/** The slot that this tab had before it was reloaded. The page before may still be on its way out. A tab that was
 * duplicated has the same memory, and waits in vain.
 * @param {LockManager} locks @param {string} name @param {AbortSignal} signal */
async function ownSlot(locks, name, signal) {
  const key = tabMemory()?.getItem(name);
  if (!key) return undefined;
  const limit = new Limit(signal);
  limit.expect(OWN_SLOT_MS);
  try {
    return await lockSlot(locks, key, { signal: limit.signal });
  } catch (error) {
    if (limit.signal.aborted) return undefined;
    throw error;
  } finally {
    // A lock that was granted stays.
    limit.close();
  }
}

/** @param {LockManager} locks @param {string} name @returns {Promise<Slot>} */
async function freeSlot(locks, name) {
  for (let number = 1; ; number++) {
    const key = number === 1 ? name : `${name}:${number}`;
    const slot = await lockSlot(locks, key, { ifAvailable: true });
    if (!slot) continue;
    tabMemory()?.setItem(name, key);
    return slot;
  }
}

/** @param {LockManager} locks @param {string} key @param {LockOptions} options @returns {Promise<Slot | undefined>} */
function lockSlot(locks, key, options) {
  return new Promise((resolve, reject) => {
    /** @param {Lock | null} lock */
    const held = (lock) => {
      if (!lock) return resolve(undefined);
      // The lock is held until this promise resolves.
      return new Promise((release) => resolve({ key, release: () => release(undefined) }));
    };
    locks.request(key, options, held).catch(reject);
  });
}

/** What a tab keeps over a reload, if the browser lets it. */
function tabMemory() {
  try {
    return globalThis.sessionStorage;
  } catch {
    return undefined;
  }
}

// ---- inbox.js

/** The server's own default. */
const HISTORY_PAGE = 100;

/** Delivers messages once and in order, and moves the cursor behind them. */
class Inbox {
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

// ---- run.js

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

  /** Nobody should be waited for any more. A signal, as a promise would keep a part of every message that was raced
   * against it. */
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

// ---- polls.js

/** A held poll without messages that returns sooner than this was not held. */
const HELD_MS_MIN = 200;

/** One poll. @param {Connection} connection @param {number} wait @returns {Promise<Page>} */
async function pollOnce(connection, wait) {
  const { server, signal } = connection;
  const limit = new Limit(signal);
  limit.expect(wait * 1000 + server.timing.request);
  try {
    const url = server.address("v1/inbox", { after: connection.currentCursor(), wait });
    const page = await server.requestJson(connection, url, limit);
    connection.heard();
    return page;
  } catch (error) {
    throw errorOf(error, limit);
  } finally {
    limit.close();
  }
}

/** @param {Connection} connection @returns {AsyncGenerator<Page, void>} */
async function* polls(connection) {
  // The first is answered at once, which shows that the server is there.
  let wait = 0;
  for (;;) {
    const begun = now();
    const page = await pollOnce(connection, wait);
    connection.live();
    yield page;
    // Not held although it was to be: something is ending. Without a pause this would be a busy loop.
    const hasty = wait > 0 && page.messages.length === 0 && now() - begun < HELD_MS_MIN;
    if (hasty) await sleep(HELD_MS_MIN + Math.random() * 800, connection.signal);
    wait = page.more ? 0 : connection.server.wait;
  }
}

// ---- streams.js

/** The bytes of an endless reply. @param {Connection} connection @param {string} path @param {string} type
 * @returns {AsyncGenerator<Uint8Array, void>} */
async function* bytes(connection, path, type) {
  const { server } = connection;
  const limit = new Limit(connection.signal);
  limit.expect(server.timing.connect);
  try {
    const url = server.address(path, { after: connection.cursor, heartbeat: server.heartbeat });
    const reply = await server.request(connection, url, limit, { headers: { accept: type } });
    if (!isType(reply, type) || !reply.body) throw new HalleyError("bad_reply", `the reply is not ${type}`);
    const reader = reply.body.getReader();
    for (;;) {
      const { done, value } = await limit.race(reader.read());
      // While the application works, nobody reads, so the server's silence means nothing.
      limit.relax();
      if (done) throw connectionLost();
      connection.heard();
      yield value;
      limit.expect(connection.spoken ? server.timing.silence : server.timing.connect);
    }
  } catch (error) {
    throw errorOf(error, limit);
  } finally {
    limit.close();
  }
}

/** @param {Connection} connection @returns {AsyncGenerator<Page, void>} */
async function* events(connection) {
  const parser = new EventStreamParser();
  for await (const chunk of bytes(connection, "v1/inbox/sse", "text/event-stream")) {
    // A comment is a sign of life as well, and may be all that comes for long.
    connection.live();
    for (const { event, data, id } of parser.push(chunk)) {
      const object = data === undefined ? undefined : parseJson(data);
      if (event === "end") {
        yield { messages: [], next: id };
        return ended(connection, object);
      }
      const named = event !== undefined && event !== "message";
      yield { messages: object === undefined || named ? [] : [object], next: id };
    }
  }
}

/** @param {Connection} connection @returns {AsyncGenerator<Page, void>} */
async function* lines(connection) {
  const splitter = new LineSplitter(/\n/);
  for await (const chunk of bytes(connection, "v1/inbox/stream", "application/x-ndjson")) {
    for (const line of splitter.push(chunk)) {
      if (line === "") continue;
      const object = parseJson(line);
      connection.live();
      if (object.end) {
        yield { messages: [], next: object.end.next };
        return ended(connection, object.end);
      }
      yield object;
    }
  }
}

/** The server ended it: in order, or because something is wrong.
 * @param {Connection} connection @param {Ending} ending */
function ended({ server, token }, { code, detail = "" }) {
  if (code === "stream_over") return;
  if (code === "token_expired") return server.tokens.expired(token);
  throw new HalleyError(code, detail);
}

// ---- socket.js

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
async function* frames(connection) {
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
class Socket {
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

// ---- transports.js

/** @typedef {(connection: Connection) => AsyncGenerator<Page, void>} Open */

/** Those that `auto` chooses from, best first. @type {Transport[]} */
const AUTO = ["socket", "sse", "poll"];

/** @type {Record<Transport, Open>} */
const OPEN = {
  socket: explained(frames),
  sse: explained(events),
  stream: explained(lines),
  poll: polls,
};

/** A transport that, when it fails before the server has spoken, sends a plain poll to find out why. Only so a page
 * learns why a WebSocket was refused, and `auto` that something in between does not let it through.
 * @param {Open} open @returns {Open} */
function explained(open) {
  return async function* (connection) {
    for (let failures = 1; ; failures++) {
      try {
        return yield* open(connection);
      } catch (error) {
        const known = asError(error);
        if (connection.spoken || connection.signal.aborted || answered(known) || !mayBeTheNetwork(known)) throw known;
        yield await pollOnce(connection, 0);
        // A server that was just starting is there by now; but what failed by a timeout is not tried again.
        if (failures === 2 || known.code === "timeout") {
          throw new HalleyError("transport_blocked", `polls get through, but this transport does not: ${known.detail}`, {
            cause: known,
          });
        }
        connection.cursor = connection.currentCursor();
      }
    }
  };
}

/** Whether an error may come from the network in between. @param {HalleyError} error */
function mayBeTheNetwork({ code, fatal }) {
  return !fatal && code !== "token_failed" && code !== "stopped";
}

/** Chooses the transport of each connection: the one that the application wants, or for `auto` the best one that gets
 * through. */
class TransportChoice {
  #server;
  /** @type {Transport | "auto"} */
  #wanted;
  /** When a blocked transport may be tried again, and how long it was put off. @type {Map<Transport, { until: number, ms: number }>} */
  #blocked = new Map();

  /** @param {Server} server @param {Transport | "auto"} wanted */
  constructor(server, wanted) {
    this.#server = server;
    this.#wanted = this.#checked(wanted);
  }

  /** @param {Transport | "auto"} transport */
  #checked(transport) {
    if (transport !== "auto" && !Object.hasOwn(OPEN, transport)) {
      throw new TypeError(`unknown transport ${JSON.stringify(transport)}`);
    }
    if (transport === "socket" && !this.#server.WebSocket) {
      throw new TypeError("there is no global WebSocket: pass a constructor as option `WebSocket`");
    }
    return transport;
  }

  get isAuto() {
    return this.#wanted === "auto";
  }

  /** What is blocked is tried again. Returns whether the choice differs from the one before.
   * @param {Transport | "auto"} transport */
  want(transport) {
    const wanted = this.#checked(transport);
    this.#blocked.clear();
    const changed = wanted !== this.#wanted;
    this.#wanted = wanted;
    return changed;
  }

  /** @returns {Transport} */
  next() {
    if (this.#wanted !== "auto") return this.#wanted;
    return AUTO.find((transport) => this.#exists(transport) && this.#blockedFor(transport) <= 0) ?? "poll";
  }

  /** @param {Transport} transport */
  #exists(transport) {
    return transport !== "socket" || Boolean(this.#server.WebSocket);
  }

  /** Milliseconds. @param {Transport} transport */
  #blockedFor(transport) {
    return (this.#blocked.get(transport)?.until ?? 0) - now();
  }

  /** It does not get through: not to be tried for a while. @param {Transport} transport */
  block(transport) {
    const before = this.#blocked.get(transport)?.ms;
    const { better } = this.#server.timing;
    const ms = before === undefined ? better : Math.min(before * 2, better * 10);
    this.#blocked.set(transport, { until: now() + ms, ms });
  }

  /** It gets through. @param {Transport} transport */
  unblock(transport) {
    this.#blocked.delete(transport);
  }

  /** Milliseconds until a transport should make room for a better one. @param {Transport} transport */
  betterIn(transport) {
    if (this.#wanted !== "auto") return Infinity;
    const better = AUTO.slice(0, AUTO.indexOf(transport)).filter((one) => this.#exists(one));
    return Math.min(Infinity, ...better.map((one) => Math.max(this.#blockedFor(one), 0)));
  }
}

// ---- client.js

class Halley {
  #server;
  #choice;
  #inbox;
  #calls;
  #emitter = new Emitter();
  /** @type {Transport | undefined} */
  #transport;
  /** @type {State} */
  #state = "idle";
  /** @type {Run | undefined} */
  #run;
  /** Ends the current connection or pause. */
  #interrupt = new AbortController();
  /** @type {Connection | undefined} */
  #connection;
  /** Sockets that are being closed. @type {Set<Promise<void>>} */
  #closing = new Set();

  /** @param {Options} options */
  constructor(options = /** @type {any} */ ({})) {
    this.#server = new Server(options);
    this.#choice = new TransportChoice(this.#server, options.transport ?? "auto");
    this.#inbox = new Inbox(this.#server, this.#emitter, options);
    this.#calls = new Calls(this.#server);
  }

  get state() {
    return this.#state;
  }

  get transport() {
    return this.#transport;
  }

  get cursor() {
    return this.#inbox.cursor;
  }

  start() {
    this.#running();
  }

  #running() {
    const before = this.#run;
    if (before && !before.signal.aborted) return before;
    const run = new Run();
    this.#run = run;
    // One that is being stopped ends first.
    run.finished = this.#work(run, before?.finished);
    return run;
  }

  async stop() {
    const run = this.#run;
    this.#calls.stop();
    if (run) {
      run.stop();
      await this.#inbox.listenersDone();
      run.release();
      await run.finished;
    }
    await Promise.all(this.#closing);
    if (!this.#run) this.#become("stopped");
  }

  /** @param {Transport | "auto"} transport */
  setTransport(transport) {
    if (this.#choice.want(transport) && this.#run) this.#interrupt.abort();
  }

  /** @template {keyof Events} Name @param {Name} event @param {Events[Name]} listener */
  on(event, listener) {
    this.#emitter.on(event, listener);
    if (event === "message") this.#inbox.joined();
    return () => this.off(event, listener);
  }

  /** @template {keyof Events} Name @param {Name} event @param {Events[Name]} listener */
  off(event, listener) {
    this.#emitter.off(event, listener);
  }

  /** @returns {AsyncIterableIterator<any>} */
  messages() {
    const before = this.#run;
    const run = this.#running();
    const reader = new Reader(async (reader, current) => {
      run.readers.delete(reader);
      // The client goes on for others: then what this reader leaves behind counts as delivered.
      if (run === before) await current?.done();
      else if (this.#run === run) await this.stop();
    });
    run.readers.add(reader);
    this.#inbox.joined();
    return reader;
  }

  /** @param {SendOptions} options */
  send(options) {
    return this.#calls.send(options);
  }

  /** @param {HistoryOptions} options */
  history(options) {
    return this.#calls.history(options);
  }

  /** @param {CallOptions & { before?: string, limit?: number }} [options] */
  conversations(options = {}) {
    return this.#calls.conversations(options);
  }

  /** Connects again and again. It never rejects. @param {Run} run @param {Promise<void>} [before] */
  async #work(run, before) {
    // Never at once, so that the caller of `start()` can add listeners.
    await before;
    const unwatch = this.#watchBrowser(run);
    /** @type {HalleyError | undefined} */
    let error;
    try {
      // The messages that listeners are still at work on would be delivered again.
      await unlessAborted(this.#inbox.listenersDone(), run.signal);
      while (!run.signal.aborted) await this.#connectOnce(run);
    } catch (cause) {
      error = asError(cause);
    }
    unwatch();
    this.#inbox.release();
    if (this.#run === run) this.#run = undefined;
    this.#ended(run, run.signal.aborted ? undefined : error?.with({ fatal: true }));
  }

  /** @param {Run} run @param {HalleyError | undefined} error */
  #ended(run, error) {
    this.#become("stopped", { error });
    if (error) this.#emitter.emit("error", error);
    for (const reader of run.readers) reader.end(error);
    // A client that stops without a word is hard to debug.
    const heard = this.#emitter.of("error").size + run.readers.size > 0;
    if (error && !heard) console.error("halley:", error);
  }

  /** One connection, and the pause after it. Throws what ends the client. @param {Run} run */
  async #connectOnce(run) {
    const interrupt = (this.#interrupt = new AbortController());
    const limit = new Limit(run.signal, interrupt.signal);
    const begun = now();
    try {
      await this.#untilOnline(limit.signal);
      if (limit.signal.aborted) return;
      const transport = (this.#transport = this.#choice.next());
      const connection = (this.#connection = this.#open(limit.signal, transport));
      // Any transport makes room for a better one. What is cut off comes again.
      const ms = this.#choice.betterIn(transport);
      if (ms < Infinity) limit.expect(ms);
      const error = await this.#follow(run, connection, transport);
      limit.relax();
      if (limit.signal.aborted) return;
      const pause = await this.#judge(run, connection, transport, error, now() - begun);
      if (pause === 0 || limit.signal.aborted) return;
      this.#become("waiting", { error, retryInMs: pause });
      await sleep(pause, limit.signal);
    } finally {
      limit.close();
    }
  }

  /** @param {AbortSignal} signal @param {Transport} transport */
  #open(signal, transport) {
    return new Connection(this.#server, signal, {
      cursor: () => this.#inbox.cursor,
      live: (first) => {
        if (first) this.#choice.unblock(transport);
        this.#become("live");
      },
      closing: (closed) => {
        this.#closing.add(closed);
        void closed.then(() => this.#closing.delete(closed));
      },
      socket: (socket) => (this.#calls.socket = socket),
    });
  }

  /** Takes pages until the connection ends. Returns the reason, unless it ended in order.
   * @param {Run} run @param {Connection} connection @param {Transport} transport
   * @returns {Promise<HalleyError | undefined>} */
  async #follow(run, connection, transport) {
    this.#become("connecting");
    try {
      await this.#inbox.restore(connection);
      connection.cursor = this.#inbox.cursor;
      for await (const page of OPEN[transport](connection)) await this.#inbox.take(run, connection, page);
      return undefined;
    } catch (error) {
      return asError(error);
    }
  }

  /** How long to wait before the next connection, milliseconds.
   * @param {Run} run @param {Connection} connection @param {Transport} transport
   * @param {HalleyError | undefined} error @param {number} lastedMs */
  async #judge(run, connection, transport, error, lastedMs) {
    const { timing, tokens } = this.#server;
    if (lastedMs > backoffCeiling(run.failures, timing) && connection.spoken) run.failures = 0;
    // Connections that end in order at once, again and again, must not become a busy loop.
    if (!error) return lastedMs > 1000 ? 0 : backoff(run.failures++, timing);
    if (error.fatal) throw error;
    if (error.code === "transport_blocked" && this.#choice.isAuto) {
      this.#choice.block(transport);
      this.#emitter.emit("error", error);
      return 0;
    }
    if (error.status === 401) {
      tokens.refuse(connection.token, error);
      return 0;
    }
    if (error.problem?.restart !== undefined || error.problem?.first !== undefined) {
      await this.#inbox.reset(run, error);
      return backoff(run.failures++, timing);
    }
    if (answered(error) && !isTransient(error)) throw error;
    this.#emitter.emit("error", error);
    // A server that stops loses all its clients at the same moment.
    if (error.code === "closing") run.failures = Math.max(run.failures, 1);
    return Math.max(backoff(run.failures++, timing), (error.retryAfter ?? 0) * 1000);
  }

  /** @param {State} state @param {Partial<StateChange>} [more] */
  #become(state, more = {}) {
    if (state === this.#state) return;
    this.#state = state;
    this.#emitter.emit("state", { state, transport: this.#transport, ...more });
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

  /** Whether the connection may have died while the machine slept. */
  #isDoubtful() {
    if (this.#state === "waiting") return true;
    const { heartbeat, wait } = this.#server;
    const patience = Math.max(heartbeat, this.#transport === "poll" ? wait : 0) * 1000 + 5000;
    return this.#state === "live" && (this.#connection?.silentMsWithSleep ?? Infinity) > patience;
  }

  /** Waits while the browser says that there is no network; not for ever, as it may be wrong.
   * @param {AbortSignal} signal */
  async #untilOnline(signal) {
    if (globalThis.navigator?.onLine !== false) return;
    const ms = this.#server.timing.backoffMax;
    this.#become("waiting", { error: new HalleyError("offline", "the browser has no network"), retryInMs: ms });
    await sleep(ms, signal);
  }
}

export { Halley, HalleyError };
