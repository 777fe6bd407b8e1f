/** @import { CallOptions, Events, HistoryOptions, Options, SendOptions, State, StateChange, Transport } from "../halley.d.ts" */

import { Calls } from "./calls.js";
import { Connection } from "./connection.js";
import { Emitter } from "./emitter.js";
import { answered, asError, HalleyError, isTransient } from "./errors.js";
import { Inbox } from "./inbox.js";
import { Reader } from "./readers.js";
import { Run } from "./run.js";
import { Server } from "./server.js";
import { backoff, backoffCeiling, Limit, now, sleep, unlessAborted } from "./time.js";
import { OPEN, TransportChoice } from "./transports.js";

export class Halley {
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
