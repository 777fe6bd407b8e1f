/** @import { Options } from "../halley.d.ts" */

import { HalleyError } from "./errors.js";
import { inTime, now, unlessAborted } from "./time.js";

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
export class Tokens {
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
