// A TCP proxy that does to connections what networks do to them: cuts them in the middle of bytes, holds
// bytes back and gives them in one piece, falls silent without a word, refuses, and answers connections in
// another order than they came. What it does depends on a seed. It has a process of its own, which is killed:
// Node 20 can wait, busy and for ever, for the handles of sockets that were reset when it is to end.

import { fork } from "node:child_process";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { fileURLToPath } from "node:url";
import { freePort } from "./support.mjs";

const FILE = fileURLToPath(import.meta.url);

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

/** A proxy for a test. @param {import("node:test").TestContext} t
 * @param {number} seed @param {number} target the server's port */
export async function startFaultProxy(t, seed, target) {
  const child = fork(FILE, [String(seed), String(target)]);
  t.after(() => child.kill("SIGKILL"));
  const [port] = await once(child, "message");
  return {
    url: `http://127.0.0.1:${port}`,
    /** Cuts everything that is open. */
    cutAll: () => void child.send("cut"),
    /** How often each fault was done. */
    async done() {
      child.send("report");
      return /** @type {Record<string, number>} */ ((await once(child, "message"))[0]);
    },
  };
}

/** @typedef {"none" | "cut" | "delay" | "buffer" | "silent" | "refuse" | "late"} Fault */
/** @type {Fault[]} */
const FAULTS = ["none", "none", "cut", "cut", "delay", "buffer", "silent", "refuse", "late"];

class FaultProxy {
  #random;
  #target;
  /** @type {Set<import("node:net").Socket>} */
  #sockets = new Set();
  /** How often each fault was done. @type {Record<string, number>} */
  done = {};

  /** @param {number} seed @param {number} target */
  constructor(seed, target) {
    this.#random = random(seed);
    this.#target = target;
  }

  /** @returns {Promise<number>} its port */
  async listen() {
    const port = await freePort();
    const server = createServer((client) => this.#accept(client));
    await new Promise((done) => server.listen(port, "127.0.0.1", () => done(undefined)));
    return port;
  }

  cutAll() {
    for (const socket of this.#sockets) socket.destroy();
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
    const fault = this.#random.pick(FAULTS);
    this.done[fault] = (this.done[fault] ?? 0) + 1;
    if (fault === "refuse") return void client.resetAndDestroy();
    // Late ones reach the server after others that came later.
    if (fault === "late") setTimeout(() => this.#join(client, "none"), this.#random.below(400));
    else this.#join(client, fault);
  }

  /** @param {import("node:net").Socket} client @param {Fault} fault */
  #join(client, fault) {
    if (client.destroyed) return;
    const server = this.#own(connect(this.#target, "127.0.0.1"));
    const gone = () => {
      // As a broken connection ends, not as one that was closed in order.
      if (!client.destroyed) client.resetAndDestroy();
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
        return void setTimeout(gone, 20_000);
      }
      held = [];
      const release = () => {
        write(Buffer.concat(held ?? []));
        held = undefined;
        left = this.#random.below(5000);
      };
      setTimeout(release, 20 + this.#random.below(fault === "buffer" ? 1500 : 150));
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

if (process.argv[1] === FILE) {
  const proxy = new FaultProxy(Number(process.argv[2]), Number(process.argv[3]));
  process.on("message", (wish) => void (wish === "cut" ? proxy.cutAll() : process.send?.(proxy.done)));
  // Who started it is gone.
  process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
  process.send?.(await proxy.listen());
}
