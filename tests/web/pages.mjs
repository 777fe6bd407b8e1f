// What the tests of the pages share: a demo server, pages that tell all that goes wrong in them, and axe.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, request as httpRequest } from "node:http";
import { createRequire } from "node:module";
import { BINARY, eventually, freePort, own } from "./support.mjs";

/** @typedef {import("playwright-core").Page} Page */

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** `halley demo`, as it says where it is. @param {import("node:test").TestContext} t */
export async function startDemo(t) {
  const ports = [await freePort(), await freePort()];
  const [listen, adminListen] = ports.map((port) => `127.0.0.1:${port}`);
  const args = ["demo", "--listen", listen, "--admin-listen", adminListen];
  let stop = async () => {};
  t.after(() => stop());
  const start = async () => {
    const child = spawn(BINARY, [...args, "--disk-free-min-bytes", "0", "--log", "warn"]);
    // It removes its own folder.
    own(child, "SIGTERM");
    const ended = once(child, "exit");
    stop = async () => {
      child.kill("SIGTERM");
      await ended;
    };
    let shown = "";
    let log = "";
    child.stdout.on("data", (text) => (shown += text));
    child.stderr.on("data", (text) => (log += text));
    return eventually(
      () => /chat +(\S+)\/[^]*admin +(\S+)\/[^]*key: (\w+)[^]*\ncurl .*\n/.exec(shown),
      `the demo starts: ${log}`,
      30_000,
    );
  };
  let [, url, admin, key] = await start();
  return {
    url,
    admin,
    key,
    /** Ends it, and starts another one at the same addresses. */
    async restart() {
      await stop();
      [, url, admin, key] = await start();
    },
    /** A call of the backend. @param {string} method @param {string} path @param {unknown} [body] @returns {Promise<any>} */
    async call(method, path, body) {
      const headers = { authorization: `Bearer ${key}` };
      const reply = await fetch(admin + path, { method, headers, body: JSON.stringify(body) });
      assert.ok(reply.ok, `${method} ${path}: ${reply.status}`);
      return reply.json();
    },
    /** Pushes any number of messages, in order. @param {object[]} messages */
    async push(messages) {
      const { results } = await this.call("POST", "/v1/messages", messages);
      assert.deepEqual(results.filter((/** @type {any} */ result) => result.error), []);
    },
  };
}

export const DESKTOP = { width: 1280, height: 800 };
export const PHONE = { width: 360, height: 740 };

/** A page on which nothing may go wrong: errors in the console, exceptions, what the policy forbids. The test
 * ends with a look at them.
 * @param {import("node:test").TestContext} t
 * @param {import("playwright-core").Browser} browser
 * @param {import("playwright-core").BrowserContextOptions & { allowed?: RegExp }} [options] */
export async function openPage(t, browser, { allowed, ...options } = {}) {
  const context = await browser.newContext({ viewport: DESKTOP, ...options });
  await context.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => {
      console.error(`forbidden: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  const page = await context.newPage();
  /** @type {string[]} */
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(String(error.stack ?? error)));
  page.on("console", (message) => {
    if (message.type() === "error" && !allowed?.test(message.text())) wrong.push(message.text());
  });
  t.after(() => assert.deepEqual(wrong, [], "nothing went wrong on the page"));
  // A client that lost its server waits up to 30 s before it tries again.
  page.setDefaultTimeout(60_000);
  return page;
}

/** Fails with what axe finds. @param {Page} page @param {string} where */
export async function checkAccess(page, where) {
  // Not as a script element, which the page's own policy would forbid.
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const { violations } = await /** @type {any} */ (globalThis).axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    });
    return violations.map((/** @type {any} */ rule) => `${rule.id}: ${rule.nodes.map((/** @type {any} */ node) => `${node.html} ${node.failureSummary}`).join("\n")}`);
  });
  assert.deepEqual(found, [], where);
}

/** Nothing is wider than the screen. @param {Page} page @param {string} where */
export async function checkWidth(page, where) {
  const [needed, there] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(needed <= there, `${where}: ${needed} px on a screen of ${there}`);
}

// The chat page

/** The page of a user who has joined.
 * @param {import("node:test").TestContext} t
 * @param {import("playwright-core").Browser} browser
 * @param {{ url: string }} demo
 * @param {string} user */
export async function join(t, browser, demo, user, options = {}) {
  const page = await openPage(t, browser, options);
  await page.goto(`${demo.url}/?user=${encodeURIComponent(user)}`);
  await page.locator("#state[data-state=live]").waitFor();
  return page;
}

/** @param {Page} page @param {string} name */
export const chat = (page, name) => page.locator(".chat", { has: page.locator(".chat-name").getByText(name, { exact: true }) });

/** @param {Page} page @param {string} text */
export const message = (page, text) => page.locator("#messages .text").getByText(text, { exact: true });

/** @param {Page} page */
export const texts = (page) => page.locator("#messages .text").allTextContents();

/** @param {Page} page @param {string} text */
export async function write(page, text) {
  await page.locator("#text").fill(text);
  await page.locator("#text").press("Enter");
}

/** @param {Page} page @param {string} name */
export async function startChat(page, name) {
  await page.locator("#new-chat").click();
  await page.locator("#new-name").fill(name);
  await page.locator("#new-name").press("Enter");
}

/** The color and the background of a placeholder, as a ratio of contrast. @param {import("playwright-core").Locator} field */
export const placeholderContrast = (field) =>
  field.evaluate((node) => {
    const luminance = (/** @type {string} */ color) => {
      const [red, green, blue] = (color.match(/[\d.]+/g) ?? []).map((part) => {
        const value = Number(part) / 255;
        return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const both = [getComputedStyle(node, "::placeholder").color, getComputedStyle(node).backgroundColor].map(luminance);
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
  });

/** A reverse proxy that has a server below a prefix, as nginx does with `location /push/ { proxy_pass http://server/; }`.
 * @param {import("node:test").TestContext} t @param {string} prefix @param {string} target
 * @returns {Promise<string>} the address of the server below the prefix */
export async function startPrefixProxy(t, prefix, target) {
  const { port, hostname } = new URL(target);
  /** @param {import("node:http").IncomingMessage} asked */
  const forward = (asked) =>
    httpRequest({ port, hostname, method: asked.method, path: `/${asked.url?.slice(prefix.length)}`, headers: asked.headers });
  const server = createServer((asked, reply) => {
    if (!asked.url?.startsWith(prefix)) return void reply.writeHead(404).end();
    const request = forward(asked);
    request.on("response", (answer) => {
      reply.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(reply);
    });
    request.on("error", () => reply.destroy());
    reply.on("close", () => request.destroy());
    asked.pipe(request);
  });
  server.on("upgrade", (asked, socket) => {
    if (!asked.url?.startsWith(prefix)) return void socket.destroy();
    const request = forward(asked);
    request.on("upgrade", (answer, other, first) => {
      const lines = Object.entries(answer.headers).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join("")}\r\n`);
      socket.write(first);
      socket.pipe(other).pipe(socket);
      socket.on("error", () => other.destroy());
      other.on("error", () => socket.destroy());
    });
    request.on("response", () => socket.destroy());
    request.on("error", () => socket.destroy());
    request.end();
  });
  const own = await freePort();
  await new Promise((done) => server.listen(own, "127.0.0.1", () => done(undefined)));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${own}${prefix}`;
}
