// A TCP proxy that does to connections what networks do to them: cuts them in the middle of bytes, holds
// bytes back and gives them in one piece, falls silent without a word, refuses, and answers connections in
// another order than they came. What it does depends on a seed.

import { connect, createServer } from "node:net";
import { freePort } from "./support.mjs";

/** Numbers from a seed, the same each time: mulberry32. @param {number} seed */
export function random(seed) {
  let state = seed >>> 0;
  const unit = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  /** From 0 to below `end`. @param {number} end */
  const below = (end) => Math.floor(unit() * end);
  /** @template T @param {T[]} choices */
  const pick = (choices) => choices[below(choices.length)];
  return { unit, below, pick };
}

/** The seed of this run: `HALLEY_TEST_SEED`, or another each time. It is printed, so that a failure can be
 * had again. @param {import("node:test").TestContext} t */
export function seedOf(t) {
  const seed = Number(process.env.HALLEY_TEST_SEED ?? Math.floor(Math.random() * 2 ** 32));
  t.diagnostic(`HALLEY_TEST_SEED=${seed}`);
  console.log(`${t.name}: HALLEY_TEST_SEED=${seed}`);
  return seed;
}

/** Breaks a connection off. One that is being ended is not reset: Node 20 loses the handle of such a one, and waits for
 * it, busy and for ever, when the process is to end. @param {import("node:net").Socket} socket */
function reset(socket) {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

/** @typedef {"none" | "cut" | "delay" | "buffer" | "silent" | "refuse" | "late"} Fault */
/** @type {Fault[]} */
const FAULTS = ["none", "none", "cut", "cut", "delay", "buffer", "silent", "refuse", "late"];

export class FaultProxy {
  #random;
  #target;
  /** @type {import("node:net").Server | undefined} */
  #server;
  /** @type {Set<import("node:net").Socket>} */
  #sockets = new Set();
  /** @type {Set<ReturnType<typeof setTimeout>>} */
  #timers = new Set();
  port = 0;
  /** While it is set, connections are treated well. */
  calm = false;
  /** How often each fault was done. @type {Record<string, number>} */
  done = {};

  /** @param {number} seed @param {() => number} target the server's port */
  constructor(seed, target) {
    this.#random = random(seed);
    this.#target = target;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  async listen() {
    this.port = await freePort();
    const server = createServer((client) => this.#accept(client));
    this.#server = server;
    await new Promise((done) => server.listen(this.port, "127.0.0.1", () => done(undefined)));
  }

  /** Cuts everything that is open. */
  cutAll() {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close() {
    this.#timers.forEach((timer) => clearTimeout(timer));
    const closed = new Promise((done) => this.#server?.close(done));
    this.cutAll();
    await closed;
  }

  /** @param {number} ms @param {() => void} then */
  #later(ms, then) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      then();
    }, ms);
    this.#timers.add(timer);
  }

  /** @param {import("node:net").Socket} socket */
  #own(socket) {
    this.#sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => this.#sockets.delete(socket));
    return socket;
  }

  /** @param {import("node:net").Socket} client */
  #accept(client) {
    this.#own(client);
    const fault = this.calm ? "none" : this.#random.pick(FAULTS);
    this.done[fault] = (this.done[fault] ?? 0) + 1;
    if (fault === "refuse") return reset(client);
    // Late ones reach the server after others that came later.
    if (fault === "late") this.#later(this.#random.below(400), () => this.#join(client, "none"));
    else this.#join(client, fault);
  }

  /** @param {import("node:net").Socket} client @param {Fault} fault */
  #join(client, fault) {
    if (client.destroyed) return;
    const server = this.#own(connect(this.#target(), "127.0.0.1"));
    const gone = () => {
      // As a broken connection ends, not as one that was closed in order.
      if (!client.destroyed) reset(client);
      server.destroy();
    };
    server.on("error", gone);
    client.on("error", gone);
    this.#pipe(client, server, fault, gone);
    this.#pipe(server, client, fault, gone);
  }

  /** Passes bytes on, and does the fault when its turn comes.
   * @param {import("node:net").Socket} from @param {import("node:net").Socket} to
   * @param {Fault} fault @param {() => void} gone */
  #pipe(from, to, fault, gone) {
    // Heads of requests and replies have a few hundred bytes, pages a few thousand.
    let left = fault === "none" ? Infinity : this.#random.below(this.#random.pick([50, 500, 3000, 10_000]));
    /** @type {Buffer[] | undefined} */
    let held;
    let silent = false;
    const write = (/** @type {Buffer} */ bytes) => void (to.writable && to.write(bytes));
    const trouble = () => {
      if (fault === "cut") return gone();
      if (fault === "silent") {
        silent = true;
        // For ever would be longer than the test: but longer than the client's patience.
        return this.#later(20_000, gone);
      }
      held = [];
      this.#later(20 + this.#random.below(fault === "buffer" ? 1500 : 150), () => {
        write(Buffer.concat(held ?? []));
        held = undefined;
        left = this.#random.below(5000);
      });
    };
    from.on("data", (bytes) => {
      if (silent) return;
      if (held) return void held.push(bytes);
      const now = bytes.subarray(0, left);
      left -= now.length;
      write(now);
      if (left > 0) return;
      trouble();
      if (held && now.length < bytes.length) held.push(bytes.subarray(now.length));
    });
    from.on("end", () => silent || this.#ended(held, to));
    from.on("close", () => silent || to.destroy());
  }

  /** @param {Buffer[] | undefined} held @param {import("node:net").Socket} to */
  #ended(held, to) {
    if (held) to.write(Buffer.concat(held.splice(0)));
    to.end();
  }
}
