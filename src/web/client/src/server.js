/** @import { Options, Timing, WebSocketConstructor } from "../halley.d.ts" */
/** @import { Place, Query } from "./types.js" */

import { asError, HalleyError, problemError, timedOut } from "./errors.js";
import { parseJson } from "./parsers.js";
import { Limit } from "./time.js";
import { Tokens } from "./tokens.js";

/** The server as one client reaches it: its addresses, the user's token, and the limits of time. */
export class Server {
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
export function isType(reply, type) {
  return (reply.headers.get("content-type") ?? "").toLowerCase().startsWith(type);
}

/** The error; a timeout, if it is only that the limit ended. @param {unknown} cause @param {Limit} limit */
export function errorOf(cause, limit) {
  const error = asError(cause);
  const known = cause instanceof HalleyError && error.code !== "stopped";
  return limit.late && !known ? timedOut() : error;
}

/** The path of a conversation or group. @param {Place} place */
export function pathOf({ user, group }) {
  if ((user === undefined) === (group === undefined)) {
    throw new TypeError("give either a user or a group");
  }
  return user === undefined ? `groups/${encodeURIComponent(group ?? "")}` : `direct/${encodeURIComponent(user)}`;
}
