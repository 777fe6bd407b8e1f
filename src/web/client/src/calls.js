/** @import { CallOptions, HistoryOptions, Receipt, SendOptions } from "../halley.d.ts" */
/** @import { Server } from "./server.js" */
/** @import { Socket } from "./socket.js" */
/** @import { Query } from "./types.js" */

import { bodyJson, byteLength } from "./body.js";
import { HalleyError, isTransient, stopped } from "./errors.js";
import { errorOf, pathOf } from "./server.js";
import { backoff, Limit, now, sleep } from "./time.js";

/** What is longer is sent by POST, where a refusal costs no connection. However short the bodies are that a server
 * takes, its frames have room for this and a `ref`. */
const SOCKET_SEND_BYTES_MAX = 15 * 1024;

/** Requests of the application: sending, history, conversations. */
export class Calls {
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
