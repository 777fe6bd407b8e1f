/** @import { Server } from "./server.js" */
/** @import { Socket } from "./socket.js" */

import { now } from "./time.js";

/** One connection to the server: what its transport needs, and what it reports. */
export class Connection {
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
