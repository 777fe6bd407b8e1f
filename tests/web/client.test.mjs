// The JavaScript client against the real server, with Node.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { Halley } from "../../src/web/client/halley.js";
import { assertExact, client, QUICK, recorded, Storage, TRANSPORTS } from "./clients.mjs";
import { CLIENT, eventually, startServer, WebSocket } from "./support.mjs";

/** Where a request that took too long would be asked once more than the test counts. */
const PATIENT = { request: 60_000, connect: 60_000 };

describe("the client", { concurrency: 6 }, () => {
  for (const transport of TRANSPORTS) {
    describe(transport, { concurrency: 3 }, () => {
      test("what was there and what comes is given once, in order", async (t) => {
        const server = await startServer(t);
        await server.group("team", ["bob"]);
        await server.push({ to: "bob", from: "ann", body: 1 }, { group: "team", from: "ann", body: "ü🚀" });
        const token = await server.token("bob");
        const halley = client(t, { url: server.url, token, transport });
        const record = recorded(halley);
        assert.equal(halley.state, "idle");
        halley.start();
        await eventually(() => record.messages.length === 2);
        await eventually(() => halley.state === "live");
        assert.equal(halley.transport, transport);
        for (let body = 0; body < 20; body++) {
          await server.push(body % 3 ? { to: "bob", from: "ann", body } : { group: "team", from: "cy", body });
        }
        await eventually(() => record.messages.length === 22);
        assertExact(record.messages, await server.inbox("bob"));
        assert.deepEqual(record.errors, []);
        await halley.stop();
        assert.equal(halley.state, "stopped");
        assert.deepEqual(
          record.states.map(({ state }) => state),
          ["connecting", "live", "stopped"],
        );
      });

      test("a client that begins now gets only what comes", async (t) => {
        const server = await startServer(t);
        await server.push({ to: "bob", from: "ann", body: "old" });
        const token = await server.token("bob");
        const halley = client(t, { url: server.url, token, transport, after: "now" });
        const record = recorded(halley);
        halley.start();
        await eventually(() => halley.cursor !== "now");
        await server.push({ to: "bob", from: "ann", body: "new" });
        await eventually(() => record.messages.length > 0);
        assert.deepEqual(record.bodies, ["new"]);
      });

      test("sends, and reads the history", async (t) => {
        const server = await startServer(t);
        await server.group("team / ü", ["bob", "ann"]);
        const halley = client(t, { url: server.url, token: () => server.token("bob"), transport });
        const record = recorded(halley);
        halley.start();
        await eventually(() => halley.state === "live");
        const first = await halley.send({ to: "ann/€", body: { text: "hi" } });
        assert.deepEqual({ ...first, at: 0 }, { sequence: "direct", id: 1, prev: 0, at: 0, duplicate: false });
        const receipt = await halley.send({ group: "team / ü", body: [1], key: "mine" });
        const again = await halley.send({ group: "team / ü", body: [1], key: "mine" });
        assert.deepEqual(again, { ...receipt, duplicate: true });
        await eventually(() => record.messages.length === 2);
        assertExact(record.messages, await server.inbox("bob"));
        const page = await halley.history({ with: "ann/€", limit: 10 });
        assert.deepEqual([page.messages.map(({ body }) => body), page.more], [[{ text: "hi" }], false]);
        assert.equal((await halley.history({ group: "team / ü", before: 1 })).messages.length, 0);
        const { conversations } = await halley.conversations({ limit: 5 });
        assert.deepEqual(
          conversations.map(({ user, group }) => user ?? group),
          ["team / ü", "ann/€"],
        );
        // A body too long for a frame costs no connection.
        for (const body of ["x".repeat(70_000), "界".repeat(25_000)]) {
          await assert.rejects(halley.send({ to: "ann", body }), { status: 413 });
        }
        assert.deepEqual(record.errors, []);
        await assert.rejects(halley.send({ group: "none", body: 1 }), { code: "group_not_found", status: 404 });
        assert.equal(halley.state, "live");
      });

      test("goes on through a stop and a kill of the server", async (t) => {
        const server = await startServer(t);
        const halley = client(t, { url: server.url, token: await server.token("bob"), transport });
        const record = recorded(halley);
        halley.start();
        for (const signal of /** @type {const} */ (["SIGTERM", "SIGKILL"])) {
          await server.push({ to: "bob", from: "ann", body: signal });
          await eventually(() => record.bodies.includes(signal));
          await server.stop(signal);
          await eventually(() => halley.state === "waiting");
          await server.start();
          await server.push({ to: "bob", from: "ann", body: 0 });
        }
        await eventually(() => record.messages.length === 4);
        assertExact(record.messages, await server.inbox("bob"));
        assert.ok(record.errors.length > 0 && record.errors.every((error) => !error.fatal));
      });

      test("short tokens are renewed, and nothing is lost or repeated", async (t) => {
        const server = await startServer(t);
        const begun = performance.now();
        /** @type {string[]} */
        const tokens = [];
        const token = async () => {
          const made = await server.token("bob", { ttl_s: 2 });
          tokens.push(made);
          return made;
        };
        const halley = client(t, { url: server.url, token, transport, wait: 5 });
        const record = recorded(halley);
        halley.start();
        await eventually(() => halley.state === "live");
        let refusals = 0;
        const oldIsRefused = async () => {
          await server.push({ to: "bob", from: "ann", body: record.messages.length });
          const { length } = await server.inbox("bob");
          await eventually(() => record.messages.length === length);
          const reply = await fetch(`${server.url}/v1/inbox?after=now&wait=0`, { headers: { authorization: `Bearer ${tokens[0]}` } });
          await reply.arrayBuffer();
          return reply.status === 401 && (refusals += 1) === 5;
        };
        // The server tolerates clocks that differ by 5 s, and ends a stream after that. Messages come all the time, and
        // a while longer.
        await eventually(oldIsRefused, "the first token is refused", 30_000, 100);
        assertExact(record.messages, await server.inbox("bob"));
        const seconds = (performance.now() - begun) / 1000;
        assert.ok(tokens.length >= 2 && tokens.length <= 2 * seconds, `asked ${tokens.length} times in ${seconds} s`);
        assert.deepEqual(record.errors, []);
      });

      test("401 with a fixed token ends it, with another token it goes on", async (t) => {
        const server = await startServer(t);
        const good = await server.token("bob");
        const fixed = client(t, { url: server.url, token: `${good}x`, transport });
        const record = recorded(fixed);
        fixed.start();
        await eventually(() => fixed.state === "stopped");
        const [error] = record.errors;
        assert.deepEqual([error.code, error.status, error.fatal], ["unauthorized", 401, true]);
        const tokens = [`${good}x`, `${good}y`, good];
        const renewed = client(t, { url: server.url, token: () => tokens.shift(), transport });
        renewed.start();
        await eventually(() => renewed.state === "live");
        // A source that has no other token is not asked for ever.
        const stubborn = client(t, { url: server.url, token: () => `${good}x`, transport });
        stubborn.on("error", () => {});
        stubborn.start();
        await eventually(() => stubborn.state === "stopped");
        // Nor is one whose tokens are all refused.
        let bad = 0;
        const hopeless = client(t, { url: server.url, token: () => `${good}${(bad += 1)}`, transport });
        hopeless.on("error", () => {});
        hopeless.start();
        await eventually(() => hopeless.state === "stopped");
        assert.equal(bad, 3);
      });

      test("a server with another history is told, and followed from where both agree", async (t) => {
        const server = await startServer(t);
        await server.push({ to: "bob", from: "ann", body: 1 }, { to: "bob", from: "ann", body: 2 });
        const token = await server.token("bob");
        const decided = client(t, { url: server.url, token, transport, after: "99.99", onReset: () => "stop" });
        const stop = recorded(decided);
        decided.start();
        await eventually(() => decided.state === "stopped");
        assert.equal(stop.errors.at(-1)?.code, "cursor_ahead");
        assert.equal(stop.errors.at(-1)?.status, 409);
        assert.deepEqual(stop.messages, []);
        const unknown = client(t, { url: server.url, token, transport, after: "1.0.0badf00d" });
        const record = recorded(unknown);
        unknown.start();
        await eventually(() => record.messages.length === 2);
        const [reset] = record.resets;
        assert.deepEqual([reset.code, reset.cursor], ["log_unknown", "1.0.0badf00d"]);
        assert.deepEqual(record.bodies, [1, 2]);
      });

      test("a cursor is kept, and the next client goes on from it", async (t) => {
        const server = await startServer(t);
        const storage = new Storage();
        const options = { url: server.url, token: await server.token("bob"), transport, storage };
        const given = [];
        for (let round = 0; round < 3; round++) {
          await server.push({ to: "bob", from: "ann", body: round }, { to: "bob", from: "ann", body: "more" });
          const halley = client(t, options);
          const record = recorded(halley);
          halley.start();
          await eventually(() => record.messages.length === 2);
          await halley.stop();
          given.push(...record.messages);
        }
        assertExact(given, await server.inbox("bob"));
        assert.deepEqual([...storage.items.keys()], [`halley:${new URL(server.url).host}/:bob`]);
      });

      test("a silent server is noticed, and stop() ends everything at once", async (t) => {
        const server = await startServer(t);
        const options = { url: server.url, token: await server.token("bob"), transport, wait: 1 };
        const halley = client(t, { ...options, timing: { silence: 1500, connect: 1500, request: 1500 } });
        const record = recorded(halley);
        halley.start();
        await eventually(() => halley.state === "live");
        // Its kernel still takes bytes and connections.
        server.signal("SIGSTOP");
        await eventually(() => record.errors.filter(({ code }) => code === "timeout").length > 1);
        const begun = Date.now();
        await halley.stop();
        assert.ok(Date.now() - begun < 5000);
        assert.equal(halley.state, "stopped");
      });
    });
  }

  test("a loop over the messages hands each over when it asks for the next", async (t) => {
    const server = await startServer(t);
    await server.push(...[1, 2, 3, 4].map((body) => ({ to: "bob", from: "ann", body })));
    const storage = new Storage();
    const options = { url: server.url, token: await server.token("bob"), storage };
    const failing = client(t, options);
    await assert.rejects(async () => {
      for await (const { body } of failing.messages()) if (body === 2) throw new Error("the disk is full");
    }, /the disk is full/);
    assert.equal(failing.state, "stopped");
    // The one that failed comes again; `stop()` in the loop ends it in order.
    const halley = client(t, options);
    const bodies = [];
    for await (const { body } of halley.messages()) {
      bodies.push(body);
      if (body === 3) await halley.stop();
    }
    assert.deepEqual(bodies, [2, 3]);
    for await (const { body } of halley.messages()) {
      bodies.push(body);
      await halley.stop();
    }
    assert.deepEqual(bodies, [2, 3, 4]);
  });

  test("two loops and a slow listener: all get all, nothing moves before they are done", async (t) => {
    const server = await startServer(t);
    const halley = client(t, { url: server.url, token: await server.token("bob") });
    /** @type {unknown[]} */
    const slow = [];
    halley.on("message", async ({ body }, cursor) => {
      assert.notEqual(halley.cursor, cursor);
      await new Promise((done) => setImmediate(done));
      assert.notEqual(halley.cursor, cursor);
      slow.push(body);
    });
    halley.start();
    const read = async () => {
      const bodies = [];
      for await (const { body } of halley.messages()) {
        bodies.push(body);
        if (bodies.length === 10) return bodies;
      }
    };
    const loops = [read(), read()];
    const wanted = Array.from({ length: 10 }, (_, body) => body);
    await server.push(...wanted.map((body) => ({ to: "bob", from: "ann", body })));
    assert.deepEqual(await Promise.all(loops), [wanted, wanted]);
    assert.deepEqual(slow, wanted);
    assert.equal(halley.state, "live");
  });

  test("a loop that is left before it asked for what was offered holds up nobody", async (t) => {
    const server = await startServer(t);
    const halley = client(t, { url: server.url, token: await server.token("bob") });
    const record = recorded(halley);
    halley.start();
    const loop = halley.messages();
    await server.push({ to: "bob", from: "ann", body: 1 });
    await eventually(() => record.messages.length === 1);
    await loop.return?.();
    await server.push({ to: "bob", from: "ann", body: 2 });
    await eventually(() => record.messages.length === 2);
    assert.equal(halley.state, "live");
  });

  test("listeners that fail are reported, and the others get their message", async (t) => {
    const server = await startServer(t);
    await server.push({ to: "bob", from: "ann", body: 1 }, { to: "bob", from: "ann", body: 2 });
    const halley = client(t, { url: server.url, token: await server.token("bob") });
    halley.on("message", () => {
      throw new Error("first");
    });
    halley.on("message", async () => Promise.reject(new Error("second")));
    halley.on("cursor", () => Promise.reject(new Error("third")));
    const record = recorded(halley);
    halley.start();
    await eventually(() => record.messages.length === 2);
    await eventually(() => record.errors.length >= 6);
    assert.deepEqual([...new Set(record.errors.map((error) => error.code))], ["listener_failed"]);
  });

  test("a listener may stop the client and wait for it; start() right after stop() starts again", async (t) => {
    const server = await startServer(t);
    await server.push({ to: "bob", from: "ann", body: 1 }, { to: "bob", from: "ann", body: 2 });
    const halley = client(t, { url: server.url, token: await server.token("bob"), timing: { grace: 1000 } });
    const record = recorded(halley);
    const off = halley.on("message", () => halley.stop());
    halley.start();
    await eventually(() => halley.state === "stopped");
    off();
    halley.start();
    void halley.stop();
    halley.start();
    await eventually(() => record.messages.length === 2);
    assert.deepEqual(record.bodies, [1, 2]);
  });

  test("repeated messages are dropped, missing ones are read from the history", async (t) => {
    const server = await startServer(t);
    await server.group("team", ["bob"]);
    const bodies = Array.from({ length: 12 }, (_, body) => body);
    await server.push(
      ...bodies.flatMap((body) => [
        { to: "bob", from: "ann", body },
        { group: "team", from: "ann", body },
        { to: "bob", from: "cy", body },
      ]),
    );
    /** Something between loses messages and repeats others. @type {typeof fetch} */
    const tampered = async (input, init) => {
      const reply = await fetch(input, init);
      if (!String(input).includes("/v1/inbox") || !reply.ok) return reply;
      const page = await reply.json();
      const kept = page.messages.filter((/** @type {any} */ { body }) => ![3, 4, 9].includes(body));
      page.messages = kept.flatMap((/** @type {any} */ message) => [message, message, kept[0]]);
      return Response.json(page);
    };
    const token = await server.token("bob");
    const halley = client(t, { url: server.url, token, transport: "poll", fetch: tampered });
    const record = recorded(halley);
    halley.start();
    await eventually(() => record.messages.length >= 36);
    assert.equal(record.messages.length, 36);
    const chain = (/** @type {any[]} */ messages, /** @type {string} */ from, /** @type {string} */ sequence) =>
      messages.filter((one) => one.from === from && one.sequence === sequence).map(({ body }) => body);
    assert.deepEqual(chain(record.messages, "ann", "direct"), bodies);
    assert.deepEqual(chain(record.messages, "cy", "direct"), bodies);
    assert.deepEqual(chain(record.messages, "ann", "group"), bodies);
    assert.equal(record.gaps.length, 6);
    const [gap] = record.gaps;
    assert.deepEqual([gap.sequence, gap.with, gap.complete, gap.messages.length], ["direct", "ann", true, 2]);
  });

  test("a message that is missing before the first of its conversation is found too, from wherever one begins", async (t) => {
    const server = await startServer(t);
    const bodies = [1, 2, 3];
    for (const begin of ["first", "second", "now"]) {
      const before = await server.push(...["ann", "cy"].map((from) => ({ to: begin, from, body: "before" })));
      const after = { first: "0", second: `${before[0].id}.0`, now: "now" }[begin];
      let lost = 2;
      /** Loses the first messages with a number. @type {typeof fetch} */
      const losing = async (input, init) => {
        const page = await (await fetch(input, init)).json();
        if (!String(input).includes("/v1/inbox")) return Response.json(page);
        return Response.json({ ...page, messages: page.messages.filter((/** @type {any} */ { body }) => body === "before" || lost-- <= 0) });
      };
      const options = { url: server.url, token: await server.token(begin), transport: /** @type {const} */ ("poll"), after, fetch: losing };
      const halley = client(t, { ...options, timing: PATIENT });
      const record = recorded(halley);
      halley.start();
      await eventually(() => halley.cursor?.startsWith(`${before[1].id}.0.`), "what was there");
      const begun = record.messages.length;
      await server.push(...bodies.map((body) => ({ to: begin, from: "ann", body })), { to: begin, from: "dan", body: "other" });
      await eventually(() => record.bodies.includes("other"));
      assert.deepEqual(record.bodies.slice(begun), [...bodies, "other"], begin);
      assert.deepEqual(record.gaps.map(({ complete, messages }) => [complete, messages.length]), [[true, 2]], begin);
      await halley.stop();
    }
  });

  for (const [why, status] of /** @type {const} */ ([["a broken connection", 0], ["a busy server", 503], ["a refused token", 401]])) {
    test(`the filling of a gap that ends in the middle by ${why} goes on later: nothing is lost or given twice`, async (t) => {
      const server = await startServer(t);
      const bodies = Array.from({ length: 6 }, (_, body) => body);
      await server.push(...bodies.map((body) => ({ to: "bob", from: "ann", body })));
      let [pages, histories] = [0, 0];
      const problem = { code: "wanted", status, detail: "for the test" };
      /** Leaves out most of the first page, and gives one message of the history. @type {typeof fetch} */
      const tampered = async (input, init) => {
        const path = new URL(String(input)).pathname;
        if (path.includes("/direct/") && (histories += 1) === 2) {
          if (status === 0) throw new TypeError("broken");
          return Response.json(problem, { status, headers: { "content-type": "application/problem+json" } });
        }
        const reply = await fetch(input, init);
        const page = await reply.json();
        if (path.includes("/direct/")) return Response.json({ ...page, messages: page.messages.slice(0, 1), more: true });
        pages += 1;
        const { messages } = page;
        return Response.json({ ...page, messages: pages === 1 ? [messages[0], messages.at(-1)] : messages });
      };
      let lives = 3600;
      const token = () => server.token("bob", { ttl_s: lives++ });
      const halley = client(t, { url: server.url, token, transport: "poll", fetch: tampered, timing: PATIENT });
      const record = recorded(halley);
      halley.start();
      await eventually(() => record.bodies.includes(5));
      assert.deepEqual(record.bodies, bodies);
      assert.equal(histories, 2);
      assert.deepEqual(record.gaps, []);
    });
  }

  test("what a group said while the user was away is a gap that cannot be filled", async (t) => {
    const server = await startServer(t);
    await server.group("team", ["bob", "ann"]);
    await server.push({ group: "team", from: "ann", body: 1 });
    await server.group("team", ["ann"]);
    await server.push({ group: "team", from: "ann", body: "private" });
    await server.group("team", ["bob", "ann"]);
    await server.push({ group: "team", from: "ann", body: 2 });
    const halley = client(t, { url: server.url, token: await server.token("bob") });
    const record = recorded(halley);
    halley.start();
    await eventually(() => record.messages.length === 2);
    assert.deepEqual(record.bodies, [1, 2]);
    assert.deepEqual(
      record.gaps.map(({ group, after, before, complete }) => ({ group, after, before, complete })),
      [{ group: "team", after: 1, before: 3, complete: false }],
    );
  });

  test("what is no longer kept is told, and what is there is given", async (t) => {
    const server = await startServer(t);
    await server.push({ to: "bob", from: "ann", body: 1 }, { to: "bob", from: "ann", body: 2 });
    const problem = { code: "cursor_gone", status: 410, detail: "it is gone", first: "1.0" };
    /** @type {typeof fetch} */
    const gone = (input, init) =>
      String(input).includes("after=0")
        ? Promise.resolve(Response.json(problem, { status: 410, headers: { "content-type": "application/problem+json" } }))
        : fetch(input, init);
    const halley = client(t, { url: server.url, token: await server.token("bob"), transport: "poll", after: "0", fetch: gone });
    const record = recorded(halley);
    halley.start();
    await eventually(() => record.messages.length === 1);
    assert.deepEqual(record.bodies, [2]);
    assert.deepEqual(record.resets, [{ code: "cursor_gone", restart: "1.0", cursor: "0", detail: "it is gone" }]);
  });

  test("a user with too many requests waits as long as the server says", async (t) => {
    const server = await startServer(t, { args: ["--waiters-per-user-max", "1"] });
    const token = await server.token("bob");
    const first = client(t, { url: server.url, token, transport: "sse" });
    first.start();
    await eventually(() => first.state === "live");
    for (const transport of TRANSPORTS) {
      const second = client(t, { url: server.url, token, transport });
      const record = recorded(second);
      second.start();
      const waits = () => record.states.find(({ state }) => state === "waiting");
      const { error, retryInMs } = await eventually(waits, transport);
      assert.deepEqual([error.code, error.status], ["too_many_waiters", 429]);
      assert.ok(retryInMs >= 1000, `${retryInMs}`);
      await second.stop();
    }
  });

  test("a socket whose application is slow holds little, and loses nothing", async (t) => {
    const server = await startServer(t);
    const body = "x".repeat(60_000);
    const messages = Array.from({ length: 50 }, () => ({ to: "bob", from: "ann", body }));
    for (let round = 0; round < 6; round++) await server.push(...messages);
    let closed = false;
    class Noted extends WebSocket {
      /** @param {number} [code] */
      close(code) {
        closed = true;
        super.close(code);
      }
    }
    const halley = client(t, { url: server.url, token: await server.token("bob"), transport: "socket", WebSocket: Noted });
    const record = recorded(halley);
    // Busy until the client has had enough.
    halley.on("message", () => eventually(() => closed, "the client gives up", 30_000));
    halley.start();
    await eventually(() => record.messages.length === 300, "all", 30_000);
    assert.ok(record.errors.some(({ code }) => code === "too_slow"));
    assertExact(record.messages, await server.inbox("bob"));
  });

  test("auto takes the best transport that gets through, and a better one later", async (t) => {
    const server = await startServer(t);
    const token = await server.token("bob");
    let blocked = true;
    /** No WebSocket and no stream gets through. @type {typeof fetch} */
    const narrow = (input, init) =>
      blocked && String(input).includes("/sse")
        ? Promise.resolve(new Response("<h1>Forbidden</h1>", { status: 403 }))
        : fetch(input, init);
    const options = { url: server.url, token, fetch: narrow, wait: 1, WebSocket: undefined };
    const halley = client(t, { ...options, timing: { better: 800 } });
    // Where there is no global WebSocket, `auto` begins with SSE.
    if (globalThis.WebSocket) t.mock.property?.(globalThis, "WebSocket", undefined);
    const record = recorded(halley);
    halley.start();
    await eventually(() => halley.state === "live" && halley.transport === "poll");
    assert.ok(record.errors.some((error) => error.code === "transport_blocked"));
    blocked = false;
    await eventually(() => halley.state === "live" && halley.transport === "sse");
    await server.push({ to: "bob", from: "ann", body: 1 });
    await eventually(() => record.messages.length === 1);
  });

  test("who begins now misses nothing while the transports are tried", async (t) => {
    const server = await startServer(t);
    await server.push({ to: "bob", from: "ann", body: "old" });
    const token = await server.token("bob");
    let opened = 0;
    class Late extends WebSocket {
      /** @param {string} url */
      constructor(url) {
        super((opened += 1) === 1 ? "ws://127.0.0.1:1" : url);
      }
    }
    /** A message comes after the answer that says where now is. @type {typeof fetch} */
    const pushing = async (input, init) => {
      const reply = await fetch(input, init);
      await server.push({ to: "bob", from: "ann", body: "new" });
      return reply;
    };
    const halley = client(t, { url: server.url, token, after: "now", WebSocket: Late, fetch: pushing, timing: PATIENT });
    const record = recorded(halley);
    halley.start();
    await eventually(() => halley.state === "live");
    await server.push({ to: "bob", from: "ann", body: "newer" });
    await eventually(() => record.bodies.includes("newer"));
    assert.deepEqual(record.bodies, ["new", "newer"]);
    assert.deepEqual([opened, halley.transport], [2, "socket"]);
  });

  /** A reply that says the cursor is no good. @param {string} restart */
  const ahead = (restart) =>
    Response.json(
      { code: "cursor_ahead", status: 409, detail: "a backup", restart },
      { status: 409, headers: { "content-type": "application/problem+json" } },
    );
  /** A page of messages from ann to bob, which comes a little later.
   * @param {[id: number, body: string][]} messages @param {string} next */
  const page = async (messages, next) => {
    await new Promise((done) => setImmediate(done));
    const whole = messages.map(([id, body]) => ({ sequence: "direct", id, prev: id - 1, n: id, from: "ann", to: "bob", at: 1, body }));
    return Response.json({ log: "x", messages: whole, next, more: false });
  };

  test("after a restored backup the same ids stand for other messages, and they are given", async (t) => {
    const replies = [
      () => page([[1, "a"], [2, "b"], [3, "c"]], "3.0.00000001"),
      () => ahead("1.0.00000002"),
      () => page([[2, "B"], [3, "C"]], "3.0.00000002"),
    ];
    const fetch = async () => (replies.shift() ?? (() => page([], "3.0.00000002")))();
    const halley = client(t, { url: "http://127.0.0.1:1", token: "t", transport: "poll", fetch });
    const record = recorded(halley);
    halley.start();
    await eventually(() => record.messages.length >= 5);
    assert.deepEqual(record.bodies, ["a", "b", "c", "B", "C"]);
    assert.deepEqual(record.gaps, []);
  });

  test("a message from before a restored backup, done with later, moves the cursor no more", async (t) => {
    const replies = [() => page([[5, "a"]], "5.0.00000001"), () => ahead("1.0.00000002")];
    const fetch = async () => (replies.shift() ?? (() => page([], "1.0.00000002")))();
    const halley = client(t, { url: "http://127.0.0.1:1", token: "t", transport: "poll", fetch, after: "4.0" });
    for await (const { body } of halley.messages()) {
      assert.equal(body, "a");
      await halley.stop();
      halley.start();
      await eventually(() => halley.cursor === "1.0.00000002");
    }
    await eventually(() => halley.state === "live");
    assert.equal(halley.cursor, "1.0.00000002");
  });

  test("a gap in which something is missing for good is told as such", async (t) => {
    let inboxes = 0;
    /** @type {typeof fetch} */
    const fetch = async (input) => {
      if (String(input).includes("/direct/")) return page([[3, "c"], [4, "d"]], "");
      inboxes += 1;
      return inboxes === 1 ? page([[1, "a"], [5, "e"]], "5.0.00000001") : page([], "5.0.00000001");
    };
    const halley = client(t, { url: "http://127.0.0.1:1", token: "t", transport: "poll", fetch });
    const record = recorded(halley);
    halley.start();
    await eventually(() => record.gaps.length === 1);
    assert.deepEqual([record.bodies, record.gaps[0].complete], [["a", "c", "d", "e"].slice(0, record.bodies.length), false]);
    await eventually(() => record.messages.length === 4);
  });

  for (const [what, after, places, gaps] of /** @type {[string, string, number[][], [number, number, boolean][]][]} */ ([
    ["in its place", "0", [[1, 0, 1], [2, 1, 2], [4, 2, 3]], []],
    ["that jumps", "0", [[1, 0, 1], [2, 1, 3], [3, 2, 4]], [[1, 2, false]]],
    ["that comes again", "0", [[1, 0, 1], [2, 1, 1], [3, 2, 2]], [[1, 2, false]]],
    ["that falls", "0", [[1, 0, 1], [2, 1, 2], [3, 2, 1], [4, 3, 2]], [[2, 3, false]]],
    ["that hides a message", "0", [[1, 0, 1], [3, 2, 2], [4, 3, 3]], [[1, 3, false]]],
    ["that is not 1 at the beginning", "0", [[1, 0, 2], [2, 1, 3]], [[0, 1, false]]],
    ["of a conversation that began earlier", "5.0", [[6, 4, 9], [7, 6, 10], [8, 7, 12]], [[7, 8, false]]],
    ["and an id that were left out", "0", [[1, 0, 1], [5, 3, 3]], [[1, 5, true]]],
  ])) {
    test(`a message with a number ${what}: all are given, and each gap is told once`, async (t) => {
      /** @param {number[][]} these */
      const messages = (these) => these.map(([id, prev, n]) => ({ sequence: "direct", id, prev, n, from: "ann", to: "bob", at: 1, body: id }));
      let asked = 0;
      /** @type {typeof fetch} */
      const fetch = async (input) => {
        await new Promise((done) => setImmediate(done));
        if (String(input).includes("/direct/")) {
          // What was left out once, and nothing else.
          const left = after === "0" && places.length === 2 && places[1][0] === 5 ? [[3, 1, 2]] : [];
          return Response.json({ log: "x", messages: messages(left), more: false });
        }
        asked += 1;
        return Response.json({ log: "x", messages: asked === 1 ? messages(places) : [], next: "9.0.00000001", more: false });
      };
      const halley = client(t, { url: "http://127.0.0.1:1", token: "t", transport: "poll", fetch, after });
      const record = recorded(halley);
      halley.start();
      await eventually(() => asked > 1);
      const all = places.flatMap(([id]) => (id === 5 ? [3, 5] : [id]));
      assert.deepEqual(record.bodies, all);
      assert.deepEqual(record.gaps.map((gap) => [gap.after, gap.before, gap.complete]), gaps);
    });
  }

  test("what is stored and is no cursor is not used", async (t) => {
    const server = await startServer(t);
    await server.push({ to: "bob", from: "ann", body: 1 });
    const storage = new Storage();
    storage.setItem("mine", "nonsense");
    const halley = client(t, { url: server.url, token: await server.token("bob"), storage, storageKey: "mine" });
    const record = recorded(halley);
    halley.start();
    await eventually(() => record.messages.length === 1);
    await eventually(() => /^1\.0\./.test(storage.getItem("mine") ?? ""));
  });

  test("a send over a socket whose token has run out goes with another one", async (t) => {
    const receipt = { sequence: "direct", id: 1, prev: 0, at: 1, duplicate: false };
    /** @type {string[]} */
    const used = [];
    class Expired {
      /** @type {((event: { data: string }) => void) | undefined} */
      onmessage;
      /** @type {((event: { code: number, reason: string }) => void) | undefined} */
      onclose;
      constructor() {
        setTimeout(() => this.#say({ messages: [], next: "0.0.00000001" }));
      }
      /** @param {object} object */
      #say(object) {
        this.onmessage?.({ data: JSON.stringify(object) });
      }
      /** @param {string} text */
      send(text) {
        const { ref } = JSON.parse(text);
        setTimeout(() => this.#say({ ref, error: { code: "token_expired", status: 401, detail: "" } }));
      }
      close() {
        setTimeout(() => this.onclose?.({ code: 1000, reason: "" }));
      }
    }
    /** @type {typeof fetch} */
    const posted = async (_, init) => {
      used.push(new Headers(init?.headers).get("authorization") ?? "");
      return Response.json(receipt);
    };
    let asked = 0;
    const halley = client(t, { url: "http://127.0.0.1:1", token: () => `t${(asked += 1)}`, transport: "socket", WebSocket: Expired, fetch: posted });
    halley.start();
    await eventually(() => halley.state === "live");
    assert.deepEqual(await halley.send({ to: "ann", body: 1 }), receipt);
    assert.deepEqual(used, ["Bearer t2"]);
  });

  test("who chooses a transport tries again at once what was blocked", async (t) => {
    let blocked = true;
    /** @type {typeof fetch} */
    const narrow = async (input) => {
      if (!String(input).includes("/sse")) return page([], "0.0.00000001");
      if (blocked) return new Response("<h1>Forbidden</h1>", { status: 403 });
      const body = new ReadableStream({ start: (controller) => controller.enqueue(new TextEncoder().encode("id: 0.0\n\n")) });
      return new Response(body, { headers: { "content-type": "text/event-stream" } });
    };
    class Closed {
      constructor() {
        throw new Error("blocked");
      }
    }
    const halley = client(t, { url: "http://127.0.0.1:1", token: "t", fetch: narrow, WebSocket: Closed });
    halley.start();
    await eventually(() => halley.state === "live" && halley.transport === "poll");
    blocked = false;
    halley.setTransport("poll");
    halley.setTransport("auto");
    await eventually(() => halley.state === "live" && halley.transport === "sse");
  });

  test("auto goes back from events to the socket too, and loses nothing", async (t) => {
    const server = await startServer(t);
    let failures = 2;
    class Refused extends WebSocket {
      /** @param {string} url */
      constructor(url) {
        super(failures-- > 0 ? "ws://127.0.0.1:1" : url);
      }
    }
    const token = await server.token("bob");
    const halley = client(t, { url: server.url, token, WebSocket: Refused, timing: { better: 1500 } });
    const record = recorded(halley);
    halley.start();
    const lived = (/** @type {string} */ name) => record.states.some(({ state, transport }) => state === "live" && transport === name);
    await eventually(() => lived("sse"), "events");
    await server.push({ to: "bob", from: "ann", body: 1 });
    await eventually(() => lived("socket"), "the socket");
    await server.push({ to: "bob", from: "ann", body: 2 });
    await eventually(() => record.messages.length === 2);
    assert.deepEqual(record.bodies, [1, 2]);
    assert.deepEqual(record.errors.map(({ code }) => code), ["transport_blocked"]);
  });

  test("auto does not give the socket up for one failure, as when the server is just starting", async (t) => {
    const server = await startServer(t);
    const token = await server.token("bob");
    let failures = 1;
    class Late extends WebSocket {
      /** @param {string} url */
      constructor(url) {
        super(failures-- > 0 ? "ws://127.0.0.1:1" : url);
      }
    }
    const halley = client(t, { url: server.url, token, WebSocket: Late });
    const record = recorded(halley);
    halley.start();
    await eventually(() => halley.state === "live");
    assert.equal(halley.transport, "socket");
    assert.deepEqual(record.errors, []);
  });

  test("a token of another user ends the client: the cursor is not theirs", async (t) => {
    const server = await startServer(t);
    for (let n = 0; n < 3; n++) await server.push({ to: "bob", from: "ann", body: n }, { to: "cy", from: "ann", body: n });
    const users = ["bob", "cy"];
    const storage = new Storage();
    const token = () => server.token(users.shift() ?? "cy", { ttl_s: 1 });
    const halley = client(t, { url: server.url, token, storage, transport: "poll", wait: 1 });
    const record = recorded(halley);
    halley.start();
    await eventually(() => halley.state === "stopped");
    assert.deepEqual(record.errors.map(({ code, fatal }) => [code, fatal]), [["user_changed", true]]);
    assert.match(record.errors[0].detail, /is for cy.*is for bob/);
    assertExact(record.messages, await server.inbox("bob"));
    assert.deepEqual([...storage.items.keys()].filter((key) => key.includes("cy")), []);
  });

  test("who asks for several messages at once gets one after the other", async (t) => {
    const server = await startServer(t);
    await server.push({ to: "bob", from: "ann", body: 1 }, { to: "bob", from: "ann", body: 2 });
    const messages = client(t, { url: server.url, token: await server.token("bob") }).messages();
    const three = [messages.next(), messages.next(), messages.next()];
    assert.deepEqual((await Promise.all(three.slice(0, 2))).map(({ value }) => value.body), [1, 2]);
    await server.push({ to: "bob", from: "ann", body: 3 });
    assert.equal((await three[2]).value.body, 3);
    await messages.return?.();
    assert.equal((await messages.next()).done, true);
  });

  test("a client without what it needs says what is missing", () => {
    assert.throws(() => new Halley(/** @type {any} */ (undefined)), /option `url` is missing/);
    assert.throws(() => new Halley(/** @type {any} */ ({ url: "http://127.0.0.1:1" })), /`token` is missing/);
  });

  test("a place for the cursor that fails or does not answer is told of, and stops nothing", async (t) => {
    const server = await startServer(t);
    const token = await server.token("bob");
    await server.push({ to: "bob", from: "ann", body: 1 });
    let failures = 2;
    const fail = () => {
      if (failures-- > 0) throw new Error("full");
    };
    const halley = client(t, { url: server.url, token, storage: { getItem: async () => (fail(), null), setItem: fail } });
    const record = recorded(halley);
    halley.on("message", () => void (failures = 1));
    halley.start();
    await eventually(() => record.messages.length === 1 && record.errors.length === 3);
    for (const error of record.errors) assert.deepEqual([error.code, error.fatal], ["storage_failed", false]);
    assert.match(record.errors[0].detail, /cannot read.*full/);
    assert.match(record.errors[2].detail, /cannot store.*full/);
    /** @type {Promise<null>} */
    const never = new Promise(() => {});
    let asked = false;
    const other = client(t, { url: server.url, token, storage: { getItem: () => ((asked = true), never), setItem: fail } });
    other.start();
    await eventually(() => asked);
    await other.stop();
    assert.equal(other.state, "stopped");
  });

  test("stop() does not wait for the decision about a reset; one that fails ends the client, and is named", async (t) => {
    const server = await startServer(t);
    const options = { url: server.url, token: await server.token("bob"), after: "999.999" };
    let asked = false;
    const patient = client(t, { ...options, onReset: () => ((asked = true), new Promise(() => {})) });
    patient.start();
    await eventually(() => asked);
    await patient.stop();
    assert.equal(patient.state, "stopped");
    const failing = client(t, { ...options, onReset: () => Promise.reject(new Error("mine")) });
    const record = recorded(failing);
    failing.start();
    await eventually(() => failing.state === "stopped");
    const [error] = record.errors;
    assert.deepEqual([error.code, error.fatal], ["listener_failed", true]);
    assert.match(error.detail, /onReset.*mine/);
  });

  for (const transport of /** @type {const} */ (["poll", "stream", "sse"])) {
    for (const part of ["reply", "body"]) {
      test(`${transport}: a fetch whose ${part} never comes, and that does not hear of its end, stops nothing`, async (t) => {
        const server = await startServer(t);
        const token = await server.token("bob");
        let deaf = true;
        /** @type {typeof fetch} */
        const unreliable = async (input, init) => {
          if (!deaf) return fetch(input, init);
          if (part === "reply") return new Promise(() => {});
          const type = { poll: "application/json", stream: "application/x-ndjson", sse: "text/event-stream" }[transport];
          return new Response(new ReadableStream(), { headers: { "content-type": type } });
        };
        const timing = { request: 300, connect: 300 };
        const halley = client(t, { url: server.url, token, transport, fetch: unreliable, timing });
        const record = recorded(halley);
        halley.start();
        await eventually(() => record.errors.some(({ code }) => code === "timeout"));
        await eventually(() => halley.state === "connecting");
        await halley.stop();
        deaf = false;
        halley.start();
        await eventually(() => halley.state === "live");
      });
    }
  }

  test("the place for the cursor has the user's name also while another token is asked for", async (t) => {
    const server = await startServer(t);
    const good = await server.token("bob");
    let asked = 0;
    /** @type {(token: string) => void} */
    let answer = () => {};
    /** @type {() => Promise<string>} */
    const token = async () => (++asked === 1 ? good : new Promise((done) => (answer = done)));
    /** @type {typeof fetch} */
    const refusing = async (input, init) => {
      if (!String(input).includes("/direct/") || asked > 1) return fetch(input, init);
      const problem = JSON.stringify({ code: "token_expired", detail: "", status: 401 });
      return new Response(problem, { status: 401, headers: { "content-type": "application/problem+json" } });
    };
    const storage = new Storage();
    const halley = client(t, { url: server.url, token, transport: "stream", storage, fetch: refusing });
    const record = recorded(halley);
    halley.start();
    await eventually(() => halley.state === "live");
    const history = halley.history({ with: "ann" });
    await eventually(() => asked === 2);
    await server.push({ to: "bob", from: "ann", body: 1 });
    await eventually(() => record.messages.length === 1);
    answer(await server.token("bob", { ttl_s: 1800 }));
    await history;
    await eventually(() => storage.items.size > 0);
    assert.deepEqual([...storage.items.keys()], [`halley:${new URL(server.url).host}/:bob`]);
    assert.match(storage.items.values().next().value ?? "", /^1\.0\./);
  });

  test("a long life leaves nothing behind in memory", async () => {
    // In a process of its own, as the others here use memory too.
    const program = `
      import { Halley } from ${JSON.stringify(pathToFileURL(`${CLIENT}/halley.js`).href)};
      let id = 0;
      // Half of them are of somebody new.
      const half = { sequence: "direct", to: "bob", at: 1, body: 1 };
      const old = () => ({ ...half, id, prev: Math.max(id - 2, 0), n: (id + 1) / 2, from: "ann" });
      const message = () => (++id % 2 ? old() : { ...half, id, prev: 0, n: 1, from: "user " + id });
      async function pull(stream) {
        await new Promise((done) => setImmediate(done));
        const messages = Array.from({ length: 500 }, message);
        stream.enqueue(new TextEncoder().encode(JSON.stringify({ messages, next: id + ".0" }) + "\\n"));
      }
      const headers = { "content-type": "application/x-ndjson" };
      const fetch = async () => new Response(new ReadableStream({ pull }), { headers });
      const halley = new Halley({ url: "http://nowhere", token: "t", transport: "stream", fetch });
      const used = () => (gc(), process.memoryUsage().heapUsed);
      let [given, before] = [0, 0];
      for await (const _ of halley.messages()) {
        given += 1;
        if (given === 30_000) before = used();
        if (given < 110_000) continue;
        console.log((used() - before) / 80_000);
        await halley.stop();
      }
    `;
    const { stdout } = await promisify(execFile)(process.execPath, ["--expose-gc", "--input-type=module", "-e", program]);
    assert.ok(Number(stdout) < 20, `${stdout.trim()} bytes are kept of each message`);
  });

  test("refusals of the program's own faults end it with what the server says", async (t) => {
    const server = await startServer(t);
    const token = await server.token("bob", { send: false });
    for (const transport of TRANSPORTS) {
      const halley = client(t, { url: server.url, token, transport, after: "nonsense" });
      const record = recorded(halley);
      halley.start();
      await eventually(() => halley.state === "stopped");
      const [error] = record.errors;
      assert.deepEqual([error.code, error.status, error.fatal], ["bad_cursor", 400, true]);
      assert.match(error.detail, /cursor/);
      const reader = client(t, { url: server.url, token, transport, after: "nonsense" }).messages();
      await assert.rejects(reader.next(), { code: "bad_cursor" });
    }
    const halley = client(t, { url: server.url, token });
    await assert.rejects(halley.send({ to: "ann", body: 1, key: "k" }), { code: "forbidden", key: "k" });
    await assert.rejects(halley.history({ with: "a", before: 1, after: 2 }), { code: "bad_query" });
    await assert.rejects(halley.history({}), TypeError);
    await assert.rejects(halley.send({ body: 1 }), TypeError);
    await assert.rejects(halley.send({ to: "a", group: "b", body: 1 }), TypeError);
    await assert.rejects(halley.send({ to: "a", body: undefined }), TypeError);
    await assert.rejects(halley.send({ to: "a", body: () => 1 }), TypeError);
    assert.throws(() => halley.setTransport(/** @type {any} */ ("pigeon")), TypeError);
    assert.throws(() => client(t, /** @type {any} */ ({ url: server.url })), TypeError);
  });

  test("what the server would refuse in a body is not sent; what it takes, is", async (t) => {
    const server = await startServer(t);
    let posts = 0;
    /** @type {typeof fetch} */
    const counted = (input, init) => {
      if (init?.method === "POST") posts += 1;
      return fetch(input, init);
    };
    const halley = client(t, { url: server.url, token: await server.token("bob"), transport: "poll", fetch: counted });
    const nested = (/** @type {number} */ depth) => JSON.parse("[".repeat(depth) + "]".repeat(depth));
    for (const body of [nested(65), "\u{1f680}".slice(1), "x".repeat(100_000)]) {
      await assert.rejects(halley.send({ to: "ann", body, key: "k" }), { name: "HalleyError", status: 0, key: "k" });
    }
    assert.equal(posts, 0);
    const good = [nested(64), "\u{1f680}", "x".repeat(60_000)];
    for (const body of good) await halley.send({ to: "ann", body });
    assert.deepEqual((await server.inbox("ann")).map(({ body }) => body), good);
  });

  test("a call takes another token, also after other failures", async (t) => {
    const server = await startServer(t);
    const good = await server.token("bob");
    const tokens = [`${good}x`, good];
    let broken = 4;
    /** @type {typeof fetch} */
    const unsteady = (input, init) => (broken-- > 0 ? Promise.reject(new TypeError("broken")) : fetch(input, init));
    const halley = client(t, { url: server.url, token: () => tokens.shift() ?? good, fetch: unsteady });
    assert.equal((await halley.send({ to: "ann", body: 1 })).id, 1);
    // A token that several calls are refused with is one refusal.
    let asked = 0;
    const shared = client(t, { url: server.url, token: () => (asked++ === 0 ? `${good}x` : good) });
    await Promise.all(Array.from({ length: 5 }, () => shared.history({ with: "ann" })));
    assert.equal(asked, 2);
    const stubborn = client(t, { url: server.url, token: () => `${good}x` });
    await assert.rejects(stubborn.send({ to: "ann", body: 1 }), { code: "unauthorized", status: 401 });
  });

  test("calls give up in time, when they are aborted, and when the client stops", async (t) => {
    const server = await startServer(t);
    const token = await server.token("bob");
    await server.stop();
    let attempts = 0;
    /** @type {typeof fetch} */
    const counted = (input, init) => ((attempts += 1), fetch(input, init));
    const halley = client(t, { url: server.url, token, fetch: counted });
    await assert.rejects(halley.send({ to: "ann", body: 1, timeout: 0.3 }), (/** @type {any} */ error) => {
      // The last attempt may have been cut by the time that was given.
      assert.ok(["network", "timeout"].includes(error.code), error.code);
      assert.match(error.key, /^[0-9a-f]{32}$/);
      return true;
    });
    const abort = new AbortController();
    const aborted = halley.history({ with: "ann", signal: abort.signal });
    abort.abort();
    await assert.rejects(aborted, { name: "AbortError" });
    attempts = 0;
    const sending = halley.send({ to: "ann", body: 1 });
    await eventually(() => attempts > 1);
    await Promise.all([halley.stop(), assert.rejects(sending, { code: "stopped" })]);
  });

  test("a program ends by itself after stop(), and says nothing", { timeout: 60_000 }, async (t) => {
    const server = await startServer(t);
    await server.push({ to: "bob", from: "ann", body: 1 });
    const program = `
      import { Halley } from ${JSON.stringify(pathToFileURL(`${CLIENT}/halley.js`).href)};
      import ws from "ws";
      const [url, token] = process.argv.slice(1);
      for (const transport of ["socket", "sse", "stream", "poll"]) {
        const halley = new Halley({ url, token, transport, WebSocket: globalThis.WebSocket ?? ws });
        // Stopped at any point on its way.
        for (let ms = 0; ms < 60; ms += 3) {
          halley.start();
          await new Promise((done) => setTimeout(done, ms));
          await halley.stop();
        }
        for (let turns = 0; turns < 40; turns++) {
          halley.start();
          for (let turn = 0; turn < turns; turn++) await undefined;
          await halley.stop();
        }
        for await (const { body } of halley.messages()) {
          await halley.send({ to: "ann", body });
          break;
        }
      }
      console.log("done");
    `;
    const child = spawn(
      process.execPath,
      ["--unhandled-rejections=strict", "--input-type=module", "-e", program, server.url, await server.token("bob")],
      { cwd: import.meta.dirname ?? new URL(".", import.meta.url).pathname, stdio: ["ignore", "pipe", "pipe"] },
    );
    t.after(() => child.kill("SIGKILL"));
    let shown = "";
    child.stdout.on("data", (text) => (shown += text));
    child.stderr.on("data", (text) => (shown += text));
    let ended = 0;
    child.stdout.once("data", () => (ended = Date.now()));
    const [code] = await once(child, "exit");
    assert.deepEqual([code, shown], [0, "done\n"]);
    assert.ok(Date.now() - ended < 5000, "nothing holds the program");
  });
});
