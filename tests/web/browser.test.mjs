// In a real browser, with pages of another origin than the server: what browsers have of their own
// (EventSource, fetch, WebSocket), and the client over every transport.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { assertExact, TRANSPORTS } from "./clients.mjs";
import { CLIENT, eventually, openBrowser, servePages, startServer } from "./support.mjs";

const PAGES = {
  "/": "<!doctype html><title>Halley</title>",
  "/halley.js": pathToFileURL(`${CLIENT}/halley.js`),
};

/** @type {import("playwright-core").Browser} */
let browser;
before(async () => (browser = await openBrowser()));
after(() => browser?.close());

/** A page of an origin that the server knows, and the server.
 * @param {import("node:test").TestContext} t @param {string[]} [args] more flags for it */
async function stage(t, args = []) {
  const origin = await servePages(t, PAGES);
  const server = await startServer(t, { args: ["--cors-origin", origin, ...args] });
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  /** @type {string[]} */
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  await page.goto(origin);
  /** What the page has collected in `window.given`. @returns {Promise<any[]>} */
  const given = () => page.evaluate(() => /** @type {any} */ (globalThis).given);
  return { origin, server, context, page, given, faults };
}

/** Messages before, during and after restarts of the server.
 * @param {import("./support.mjs").Server} server @param {() => Promise<any[]>} given what the page has
 * @param {() => Promise<unknown>} noticed whether the page knows that the server is gone */
async function traffic(server, given, noticed) {
  let body = 0;
  const push = () => server.push({ to: "bob", from: "ann", body: body++ }, { group: "team", from: "ann", body: body++ });
  for (const signal of /** @type {const} */ (["SIGTERM", "SIGKILL"])) {
    for (let n = 0; n < 5; n++) {
      await push();
      const { length } = await server.inbox("bob");
      // The last ones may be on their way when the server goes.
      if (n < 4) await eventually(async () => (await given()).length >= length, "what was pushed", 30_000);
    }
    await server.stop(signal);
    await eventually(noticed, "the page notices");
    await server.start();
    await push();
  }
  await push();
}

describe("in Chromium", { concurrency: 4 }, () => {
  test("an EventSource reconnects by itself and misses nothing", async (t) => {
    const { server, page, given } = await stage(t);
    await server.group("team", ["bob"]);
    await server.push({ to: "bob", from: "ann", body: "before" });
    await page.evaluate((url) => {
      const window = /** @type {any} */ (globalThis);
      window.given = [];
      const source = (window.source = new EventSource(url));
      source.onmessage = (event) => window.given.push(JSON.parse(event.data));
    }, `${server.url}/v1/inbox/sse?heartbeat=5&token=${await server.token("bob")}`);
    await eventually(async () => (await given()).length === 1);
    const away = () => page.evaluate(() => /** @type {any} */ (globalThis).source.readyState !== EventSource.OPEN);
    await traffic(server, given, away);
    const truth = await server.inbox("bob");
    // It waits as long as the server told it, up to 5 s.
    await eventually(async () => (await given()).length >= truth.length, "all events", 30_000);
    assertExact(await given(), truth);
  });

  test("a WebSocket gets pages of another origin, sends, and learns why it ends", async (t) => {
    const { server, page } = await stage(t);
    await server.push({ to: "bob", from: "ann", body: "before" });
    const url = `${server.url.replace("http", "ws")}/v1/inbox/ws?token=${await server.token("bob")}`;
    await page.evaluate((url) => {
      const window = /** @type {any} */ (globalThis);
      window.got = [];
      window.socket = new WebSocket(url);
      window.socket.onmessage = (/** @type {any} */ event) => window.got.push(JSON.parse(event.data));
      window.socket.onclose = (/** @type {any} */ { code, reason }) => (window.ended = [code, reason]);
    }, url);
    const frames = () => page.evaluate(() => /** @type {any} */ (globalThis).got);
    await eventually(async () => (await frames()).some((/** @type {any} */ frame) => frame.messages?.length === 1));
    await page.evaluate(() =>
      /** @type {any} */ (globalThis).socket.send('{"send":{"to":"ann","body":1},"ref":"a"}'),
    );
    await eventually(async () => (await frames()).some((/** @type {any} */ frame) => frame.ref === "a"));
    await server.stop();
    const ended = () => page.evaluate(() => /** @type {any} */ (globalThis).ended);
    assert.deepEqual(await eventually(ended), [1001, "closing"]);
  });

  test("a poll from an origin that the server does not know fails", async (t) => {
    const { page } = await stage(t);
    const other = await startServer(t, { args: ["--cors-origin", "https://elsewhere.example"] });
    const outcome = await page.evaluate(
      async ([url, token]) =>
        fetch(`${url}/v1/inbox?wait=0`, { headers: { authorization: `Bearer ${token}` } }).catch(String),
      [other.url, await other.token("bob")],
    );
    assert.match(String(outcome), /TypeError/);
  });

  for (const transport of /** @type {const} */ ([...TRANSPORTS, "auto"])) {
    test(`${transport}: the client goes through restarts and sends`, async (t) => {
      const { server, page, given, faults } = await stage(t);
      await server.group("team", ["bob"]);
      await page.exposeFunction("token", () => server.token("bob"));
      const start = () =>
        page.evaluate(
          async ([url, transport]) => {
            const window = /** @type {any} */ (globalThis);
            // @ts-ignore: of the page
            const { Halley } = await import("/halley.js");
            window.given = [];
            window.halley = new Halley({ url, token: window.token, transport, storage: localStorage, wait: 5, timing: { better: 1000 } });
            window.halley.on("message", (/** @type {any} */ message) => window.given.push(message));
            window.halley.start();
          },
          [server.url, transport],
        );
      await start();
      await traffic(server, given, () => page.evaluate(() => /** @type {any} */ (globalThis).halley.state !== "live"));
      const receipt = await page.evaluate(() =>
        /** @type {any} */ (globalThis).halley.send({ to: "ann", body: { hello: "ü" } }),
      );
      assert.equal(receipt.duplicate, false);
      let truth = await server.inbox("bob");
      await eventually(async () => (await given()).length >= truth.length, "all messages", 30_000);
      const first = await given();
      assertExact(first, truth);
      // Where the server was stopped twice under its first words, `auto` comes back to the socket a little later.
      const used = () => page.evaluate(() => /** @type {any} */ (globalThis).halley.transport);
      const best = transport === "auto" ? "socket" : transport;
      await eventually(async () => (await used()) === best, `the transport ${best}`);
      // Another visit goes on from the cursor in `localStorage`.
      await page.reload();
      await server.push({ to: "bob", from: "ann", body: "next" });
      await start();
      await server.push({ to: "bob", from: "ann", body: "last" });
      truth = await server.inbox("bob");
      // What was there before would have come before it.
      await eventually(async () => (await given()).at(-1)?.body === "last");
      assertExact([...first, ...(await given())], truth);
      await page.evaluate(() => /** @type {any} */ (globalThis).halley.stop());
      assert.deepEqual(faults, []);
    });
  }

  test("the client waits while the network is off, and goes on at once when it is back", async (t) => {
    const { server, context, page, given } = await stage(t);
    await page.evaluate(
      async ([url, token]) => {
        const window = /** @type {any} */ (globalThis);
        // @ts-ignore: of the page
        const { Halley } = await import("/halley.js");
        window.given = [];
        window.states = [];
        window.halley = new Halley({ url, token, transport: "sse" });
        window.halley.on("message", (/** @type {any} */ message) => window.given.push(message));
        window.halley.on("state", (/** @type {any} */ { state, error }) => window.states.push([state, error?.code]));
        window.halley.start();
      },
      [server.url, await server.token("bob")],
    );
    const states = () => page.evaluate(() => /** @type {any} */ (globalThis).states);
    await eventually(async () => (await states()).length === 2);
    await context.setOffline(true);
    await eventually(async () => (await states()).at(-1)[0] === "waiting");
    await server.push({ to: "bob", from: "ann", body: 1 });
    await context.setOffline(false);
    await eventually(async () => (await given()).length === 1, "the message");
    const [first, second, third, ...others] = await states();
    assert.deepEqual([first, second], [["connecting", undefined], ["live", undefined]]);
    // Whether the page hears first that it is offline or that its connection broke is left to Chromium.
    assert.ok(["offline", "connection_lost", "network"].includes(third[1]), third[1]);
    assert.equal(others.at(-1)[0], "live");
  });

  for (const transport of TRANSPORTS) {
    test(`${transport}: after a sleep of the machine the client connects anew when the page is looked at`, async (t) => {
      const { server, page } = await stage(t);
      await page.evaluate(
        async ([url, token, transport]) => {
          const window = /** @type {any} */ (globalThis);
          // @ts-ignore: of the page
          const { Halley } = await import("/halley.js");
          window.states = [];
          window.halley = new Halley({ url, token, transport });
          window.halley.on("state", (/** @type {any} */ { state }) => window.states.push(state));
          window.halley.on("message", (/** @type {any} */ { body }) => window.states.push(body));
          window.halley.start();
        },
        [server.url, await server.token("bob"), transport],
      );
      const states = () => page.evaluate(() => /** @type {any} */ (globalThis).states.join(" "));
      await eventually(async () => (await states()) === "connecting live");
      // One that has just spoken is left alone: the message comes over it.
      await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
      await server.push({ to: "bob", from: "ann", body: "message" });
      await eventually(async () => (await states()).includes("message"));
      assert.equal(await states(), "connecting live message");
      await page.evaluate(() => {
        const now = Date.now;
        Date.now = () => now() + 36_000;
        document.dispatchEvent(new Event("visibilitychange"));
      });
      await eventually(async () => (await states()) === "connecting live message connecting live");
    });
  }

  test("each tab has a cursor of its own: what one shows while another is closed is seen in that one too", async (t) => {
    const { origin, server, context, page } = await stage(t);
    const token = await server.token("bob");
    let pushed = 0;
    const push = () => server.push({ to: "bob", from: "ann", body: (pushed += 1) });
    const bodies = (/** @type {any} */ tab) => tab.evaluate(() => /** @type {any} */ (globalThis).given.join(" "));
    /** Starts the client in a tab, and waits until it shows that. */
    const start = async (/** @type {any} */ tab, /** @type {string} */ shows) => {
      await tab.evaluate(
        async ([url, token]) => {
          const window = /** @type {any} */ (globalThis);
          // @ts-ignore: of the page
          const { Halley } = await import("/halley.js");
          window.given = [];
          window.halley = new Halley({ url, token, storage: localStorage });
          window.halley.on("message", (/** @type {any} */ { body }) => void window.given.push(body));
          window.halley.start();
        },
        [server.url, token],
      );
      await show(tab, shows);
    };
    /** The cursor that is stored is behind what is shown. */
    const show = async (/** @type {any} */ tab, /** @type {string} */ shows) => {
      await eventually(async () => (await bodies(tab)) === shows, `it shows ${shows}`);
    };
    const open = async () => {
      const tab = await context.newPage();
      await tab.goto(origin);
      return tab;
    };
    /** A tab that was closed or reloaded goes on for a while, and may still take a message: until its lock is free.
     * @param {any} tab one that is there @param {number} open */
    const slots = (tab, open) => {
      const held = () => tab.evaluate(async () => (await navigator.locks.query()).held?.length);
      return eventually(async () => (await held()) === open, `${open} tabs hold a slot`);
    };
    await push();
    await start(page, "1");
    const second = await open();
    await start(second, "1");
    await push();
    await show(page, "1 2");
    await show(second, "1 2");
    await second.close();
    await slots(page, 1);
    await push();
    await show(page, "1 2 3");
    const again = await open();
    await start(again, "3");
    // A reload keeps a tab's own cursor, and so does a stop in between.
    await page.reload();
    await slots(page, 1);
    await push();
    await start(page, "4");
    await again.evaluate(() => /** @type {any} */ (globalThis).halley.stop());
    await push();
    await again.evaluate(() => /** @type {any} */ (globalThis).halley.start());
    await show(page, "4 5");
    await show(again, "3 4 5");
    // A duplicated tab begins with the memory of the first, but is another.
    const [copy] = await Promise.all([context.waitForEvent("page"), page.evaluate(() => void window.open(location.href))]);
    await copy.waitForURL(`${origin}/`);
    await start(copy, "1 2 3 4 5");
    const keys = await page.evaluate(() => Object.keys(localStorage).sort());
    const name = `halley:${new URL(server.url).host}/:bob`;
    assert.deepEqual(keys, [name, `${name}:2`, `${name}:3`]);
    // A tab keeps its cursor over a reload also when one before it is free by then.
    await copy.close();
    await page.close();
    await slots(again, 1);
    await push();
    await show(again, "3 4 5 6");
    await again.reload();
    await slots(again, 0);
    await push();
    await start(again, "7");
    await again.close();
    // The next tab is the first again: it gets what came since the first was there.
    const next = await open();
    await slots(next, 0);
    await start(next, "6 7");
  });

  test("a page of another origin can read how long it should wait", async (t) => {
    const { server, page } = await stage(t, ["--waiters-per-user-max", "1"]);
    const token = await server.token("bob");
    const [status, after] = await page.evaluate(
      async ([url, token]) => {
        const init = { headers: { authorization: `Bearer ${token}` } };
        const held = await fetch(`${url}/v1/inbox/stream`, init);
        const reply = await fetch(`${url}/v1/inbox?wait=30`, init);
        // A reply that nobody refers to any more may be closed.
        await held.body?.cancel();
        return [reply.status, reply.headers.get("retry-after")];
      },
      [server.url, token],
    );
    assert.deepEqual([status, after], [429, "1"]);
  });

  test("the page of the client's README works as it is written, also when its backend fails for a moment", async (t) => {
    const { origin, server, page, faults } = await stage(t);
    const readme = readFileSync(`${CLIENT}/README.md`, "utf8");
    const text = /** @type {string} */ (/```html\n([^]*?)```/.exec(readme)?.[1]);
    await server.push({ to: "ann", from: "bob", body: "Hello" });
    const token = await server.token("ann");
    let asked = 0;
    await page.route(`${origin}/halley-token`, (route) =>
      asked++ < 3 ? route.fulfill({ status: 502, body: "<h1>Bad gateway</h1>" }) : route.fulfill({ body: token }),
    );
    const body = text.replace("https://push.example/halley.js", "/halley.js").replaceAll("https://push.example", server.url);
    /** @type {string[]} */
    const said = [];
    page.on("console", (message) => void (message.type() === "log" && said.push(message.text())));
    await page.setContent(body);
    await eventually(() => said.length === 2, "both messages");
    assert.deepEqual(said, ["bob Hello", "ann {text: hi}"]);
    assert.equal(await page.title(), "live");
    assert.equal((await server.inbox("bob")).length, 2);
    assert.deepEqual(faults, []);
  });

  test("a page learns why its WebSocket is refused", async (t) => {
    const { server, page } = await stage(t);
    const error = await page.evaluate(
      async ([url, token]) => {
        // @ts-ignore: of the page
        const { Halley } = await import("/halley.js");
        const halley = new Halley({ url, token, transport: "socket" });
        try {
          for await (const _ of halley.messages());
        } catch (error) {
          const { code, status, fatal } = /** @type {any} */ (error);
          return [code, status, fatal];
        }
      },
      [server.url, "wrong"],
    );
    assert.deepEqual(error, ["unauthorized", 401, true]);
  });
});
