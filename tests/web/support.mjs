// What the tests share: the real server in a directory of its own, the backend's calls to it, a small
// web server for pages, and Debian's Chromium.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { extname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import ws from "ws";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
/** The program. */
export const BINARY = resolve(ROOT, process.env.HALLEY_BIN ?? "target/debug/halley");
const CHROMIUM = process.env.HALLEY_CHROMIUM ?? "/usr/bin/chromium";

/** Where the JavaScript client lies. */
export const CLIENT = join(ROOT, "src/web/client");

/** The WebSocket of this Node, or one of npm where Node has none yet (20). */
export const WebSocket = globalThis.WebSocket ?? ws;

/** For traffic and faults that take their time. What is to be waited for is a condition: `eventually`.
 * @param {number} ms */
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Waits until a condition holds, and looks every so many milliseconds; fails with `what` when it does not in time.
 * @template T
 * @param {() => T | Promise<T>} condition
 * @returns {Promise<T>} the first true value */
export async function eventually(condition, what = "the condition", ms = 30_000, every = 10) {
  const deadline = Date.now() + ms;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${ms} ms: ${what}`);
    await sleep(every);
  }
}

/** A promise's outcome, or a failure with `what` when it does not come in time.
 * @template T @param {Promise<T>} promise @param {string} what @returns {Promise<T>} */
async function inTime(promise, what, ms = 10_000) {
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms);
  });
  try {
    return await Promise.race([promise, /** @type {Promise<never>} */ (late)]);
  } finally {
    clearTimeout(timer);
  }
}

/** A listener on a port, or nothing when the port is taken.
 * @param {number} port @returns {Promise<import("node:net").Server | undefined>} */
const listener = (port) =>
  new Promise((done) => {
    const server = createServer();
    server.once("error", () => done(undefined));
    server.listen(port, "127.0.0.1", () => done(server));
  });

/** Nobody holds the ports of a server that is down, so each process has a block of its own: it listens on
 * the block's first port as long as it lives. */
const BLOCKS = 72;
const BLOCK_PORTS = 300;
/** @type {Promise<number> | undefined} */
let block;
let taken = 0;

async function ownBlock() {
  for (let number = 0; number < BLOCKS; number++) {
    const first = 10_100 + ((process.pid + number) % BLOCKS) * BLOCK_PORTS;
    const guard = await listener(first);
    if (guard === undefined) continue;
    guard.unref();
    return first;
  }
  throw new Error("no block of ports is free");
}

/** A free port below those that the system gives to outgoing connections: a server that restarts finds
 * its port again, and a client that connects meanwhile cannot meet itself. Above 10080, the last that
 * browsers and `fetch` refuse. */
export async function freePort() {
  block ??= ownBlock();
  const first = await block;
  for (let tried = 0; tried < BLOCK_PORTS; tried++) {
    const port = first + 1 + (taken++ % (BLOCK_PORTS - 1));
    const probe = await listener(port);
    if (probe === undefined) continue;
    await new Promise((done) => probe.close(done));
    return port;
  }
  throw new Error("no port of the block is free");
}

/** A running server. It is stopped, and its directory removed, when the test ends.
 * @param {import("node:test").TestContext} t
 * @param {{ args?: string[] }} [options] more flags of `halley serve` */
export async function startServer(t, { args = [] } = {}) {
  const server = new Server(args);
  t.after(() => server.remove());
  await server.start();
  return server;
}

/** All programs of this process, how they are ended, and their folders, so that none outlives it.
 * @type {Map<import("node:child_process").ChildProcess, NodeJS.Signals>} */
const running = new Map();
/** @type {Set<string>} */
const folders = new Set();
process.on("exit", () => {
  running.forEach((signal, child) => child.kill(signal));
  folders.forEach(removeFolder);
});
// So does the test runner end a file that takes too long; without a listener there would be no "exit".
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));

/** A program that does not outlive this process. @template {import("node:child_process").ChildProcess} Child
 * @param {Child} child @param {NodeJS.Signals} signal what ends it @returns {Child} */
export function own(child, signal = "SIGKILL") {
  running.set(child, signal);
  child.once("exit", () => running.delete(child));
  return child;
}

/** @param {string} folder */
const removeFolder = (folder) => rmSync(folder, { recursive: true, force: true, maxRetries: 5 });

export class Server {
  #args;
  #folder = mkdtempSync(join(tmpdir(), "halley-web-"));
  /** @type {[number, number] | undefined} */
  #ports;
  /** @type {import("node:child_process").ChildProcess | undefined} */
  #child;
  log = "";

  /** @param {string[]} args */
  constructor(args) {
    this.#args = args;
    folders.add(this.#folder);
  }

  get data() {
    return join(this.#folder, "data");
  }

  /** The address for clients. */
  get url() {
    return `http://127.0.0.1:${this.clientPort}`;
  }

  /** The address for backends. */
  get admin() {
    return `http://127.0.0.1:${this.#ports?.[1]}`;
  }

  get clientPort() {
    return this.#ports?.[0] ?? 0;
  }

  get key() {
    return readFileSync(join(this.data, "admin.key"), "utf8").trim();
  }

  /** Starts it; after a stop on the same ports and directory. */
  async start() {
    for (let attempt = 0; ; attempt++) {
      // Another test may take a port between the look and the use.
      const ports = this.#ports ?? [await freePort(), await freePort()];
      if (await this.#run(ports)) return;
      if (attempt === 20) throw new Error(`${BINARY} does not start:\n${this.log}`);
      await sleep(50);
    }
  }

  /** @param {number[]} ports */
  async #run([client, admin]) {
    if (!existsSync(BINARY)) throw new Error(`${BINARY} is missing: cargo build, or set HALLEY_BIN`);
    const child = spawn(
      BINARY,
      [
        ...["serve", "--data", this.data],
        ...["--listen", `127.0.0.1:${client}`, "--admin-listen", `127.0.0.1:${admin}`],
        // The machine's own disk is not what is tested.
        ...["--disk-free-min-bytes", "0", ...this.#args],
      ],
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    own(child);
    let shown = "";
    child.stderr.on("data", (text) => (this.log += text));
    child.stdout.on("data", (text) => (shown += text));
    const ended = once(child, "exit").then(() => true);
    const ready = eventually(() => shown.includes("is ready"), `ready\n${this.log}`, 60_000);
    if (await Promise.race([ended, ready.then(() => false)])) {
      ready.catch(() => {});
      shown = "is ready";
      return false;
    }
    this.#ports = [client, admin];
    this.#child = child;
    return true;
  }

  /** Ends it as an operator does, or as a crash does with "SIGKILL". @param {NodeJS.Signals} signal */
  async stop(signal = "SIGTERM") {
    const child = this.#child;
    this.#child = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill(signal);
    await ended;
  }

  /** @param {NodeJS.Signals} signal */
  signal(signal) {
    this.#child?.kill(signal);
  }

  /** @param {NodeJS.Signals} signal */
  async restart(signal = "SIGTERM") {
    await this.stop(signal);
    await this.start();
  }

  async remove() {
    await this.stop("SIGKILL");
    removeFolder(this.#folder);
    folders.delete(this.#folder);
  }

  /** A call of the backend. Throws on a refusal, and when there is no answer: Node 20's own fetch now and then loses a
   * request when the server is killed under it, and never says so.
   * @param {string} method
   * @param {string} path
   * @param {unknown} [body]
   * @param {Record<string, string>} [headers] */
  async call(method, path, body, headers = {}) {
    const what = `${method} ${path}`;
    const asked = fetch(this.admin + path, {
      method,
      headers: { authorization: `Bearer ${this.key}`, ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const reply = await inTime(asked, what);
    const text = await inTime(reply.text(), what);
    if (!reply.ok) throw new Error(`${what}: ${reply.status} ${text}`);
    return text ? JSON.parse(text) : undefined;
  }

  /** A user's token. @param {string} user */
  async token(user, { ttl_s = 3600, send = true } = {}) {
    return (await this.call("POST", "/v1/tokens", { user, ttl_s, send })).token;
  }

  /** Makes a group, or sets its members. @param {string} name @param {string[]} members */
  group(name, members) {
    return this.call("PUT", `/v1/groups/${encodeURIComponent(name)}`, { members });
  }

  /** Pushes up to 1,000 messages: `{to or group, from, body}`. @param {object[]} messages */
  async push(...messages) {
    const { results } = await this.call("POST", "/v1/messages", messages);
    const refused = results.find((/** @type {any} */ result) => result.error);
    if (refused) throw new Error(JSON.stringify(refused));
    return results;
  }

  /** A request that a user holds open until the test ends, or until the function is called that this gives.
   * @param {import("node:test").TestContext} t @param {"stream" | "sse"} transport @param {string} user
   * @returns {Promise<() => void>} */
  async hold(t, transport, user) {
    const stop = new AbortController();
    const reply = await fetch(`${this.url}/v1/inbox/${transport}?after=now`, {
      headers: { authorization: `Bearer ${await this.token(user)}` },
      signal: stop.signal,
    });
    // Node closes a reply that nobody refers to any more: this keeps it.
    const end = () => stop.abort(reply.status);
    t.after(end);
    return end;
  }

  /** Everything that a user may see, read by the backend. @param {string} user */
  async inbox(user) {
    const messages = [];
    let after = "0";
    for (;;) {
      const page = await this.call(
        "GET",
        `/v1/users/${encodeURIComponent(user)}/inbox?after=${after}&limit=1000`,
      );
      messages.push(...page.messages);
      after = page.next;
      if (!page.more) return messages;
    }
  }
}

/** A browser; closed when the test ends, if one is given. It takes seconds to start: tests of one file may
 * share it, each with a context of its own. @param {import("node:test").TestContext} [t] */
export async function openBrowser(t) {
  if (!existsSync(CHROMIUM)) {
    throw new Error(`${CHROMIUM} is missing: apt-get install chromium, or set HALLEY_CHROMIUM`);
  }
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    // Chromium refuses to run as root inside its own sandbox.
    args: process.getuid?.() === 0 ? ["--no-sandbox"] : [],
  });
  t?.after(() => browser.close());
  return browser;
}

/** @type {Record<string, string>} */
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };

/** Serves pages on an origin of its own: a path stands for a text, or for a file if it is a `URL`.
 * @param {import("node:test").TestContext} t
 * @param {Record<string, string | URL>} pages
 * @returns {Promise<string>} the origin */
export async function servePages(t, pages) {
  const server = createHttpServer((request, reply) => {
    const page = pages[request.url ?? ""];
    if (page === undefined) return void reply.writeHead(404).end();
    const type = TYPES[extname(request.url ?? "")] ?? "text/html";
    reply.writeHead(200, { "content-type": `${type}; charset=utf-8` });
    reply.end(page instanceof URL ? readFileSync(page) : page);
  });
  const port = await freePort();
  await new Promise((done) => server.listen(port, "127.0.0.1", () => done(undefined)));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${port}`;
}
