/** @import { Transport } from "../halley.d.ts" */
/** @import { Connection } from "./connection.js" */
/** @import { Server } from "./server.js" */
/** @import { Page } from "./types.js" */

import { answered, asError, HalleyError } from "./errors.js";
import { pollOnce, polls } from "./polls.js";
import { frames } from "./socket.js";
import { events, lines } from "./streams.js";
import { now } from "./time.js";

/** @typedef {(connection: Connection) => AsyncGenerator<Page, void>} Open */

/** Those that `auto` chooses from, best first. @type {Transport[]} */
const AUTO = ["socket", "sse", "poll"];

/** @type {Record<Transport, Open>} */
export const OPEN = {
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
export class TransportChoice {
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
