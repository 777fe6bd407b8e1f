// What the client does over time, with a clock that the test moves and a server in memory.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Halley } from "../../src/web/client/halley.js";
import { recorded, TRANSPORTS } from "./clients.mjs";
import { Clock, MemoryServer, message, settle } from "./clock.mjs";

const [MINUTE, HOUR] = [60_000, 3600_000];

/** A client with the times that applications have, stopped when the test ends.
 * @param {import("node:test").TestContext} t @param {any} [options] */
function stage(t, options = {}) {
  const clock = new Clock(t);
  const server = new MemoryServer();
  const halley = new Halley({ ...server.options, ...options });
  t.after(async () => {
    const stopped = halley.stop();
    await clock.advance(10_000);
    await stopped;
  });
  return { clock, server, halley };
}

/** A promise that the test resolves. */
function gate() {
  let open = () => {};
  const opened = new Promise((resolve) => (open = () => resolve(undefined)));
  return { opened, open };
}

/** A token like the server's. @param {number} exp */
const tokenUntil = (exp) => `h.${Buffer.from(JSON.stringify({ sub: "bob", exp })).toString("base64url")}.s`;

/** Answers polls as the server does when there is nothing. @param {MemoryServer["last"]} poll */
function held(poll) {
  if (poll.url.searchParams.get("wait") === "0") poll.page();
  else setTimeout(() => poll.page(), 30_000);
}

for (const [what, jump] of /** @type {const} */ ([["back", -HOUR], ["ahead", HOUR]])) {
  test(`a dead socket is noticed after the same time when the wall clock is set ${what}`, async (t) => {
    const { clock, server, halley } = stage(t, { transport: "socket" });
    const record = recorded(halley);
    halley.start();
    await settle();
    server.last.page();
    await settle();
    assert.equal(halley.state, "live");
    clock.wall += jump;
    // One that speaks stays.
    for (let minute = 0; minute < 10; minute++) {
      await clock.advance(30_000);
      server.last.beat(0);
    }
    assert.deepEqual([server.opened.length, record.errors], [1, []]);
    clock.wall += jump;
    const ms = await clock.until(() => record.errors.length > 0);
    assert.equal(record.errors[0].code, "timeout");
    assert.ok(ms >= 65_000 && ms < 75_000, `${ms} ms`);
    await clock.until(() => server.opened.length === 2, 1000);
  });

  test(`a token is renewed in time when the wall clock is set ${what}`, async (t) => {
    /** @type {number[]} */
    const asked = [];
    const token = () => {
      asked.push(performance.now());
      return tokenUntil(Date.now() / 1000 + 3600);
    };
    const { clock, server, halley } = stage(t, { transport: "poll", token });
    server.answer = held;
    halley.start();
    await clock.advance(10 * MINUTE);
    clock.wall += jump / 2;
    await clock.until(() => asked.length === 2);
    const [first, second] = asked;
    assert.ok(second - first >= HOUR - 30_000 && second - first <= HOUR, `renewed after ${second - first} ms`);
  });

  test(`a send fails after its time, and a better transport is tried again, when the wall clock is set ${what}`, async (t) => {
    const { clock, server, halley } = stage(t);
    const record = recorded(halley);
    // Sockets do not get through; polls and events do, posts break.
    server.answer = (one) => (one.transport === "socket" || one.method === "POST" ? one.fail() : one.page());
    halley.start();
    await clock.until(() => record.errors.some(({ code }) => code === "transport_blocked"));
    const blocked = clock.now;
    clock.wall += jump;
    /** @type {any} */
    let failure;
    halley.send({ to: "ann", body: 1 }).catch((error) => (failure = error));
    const ms = await clock.until(() => failure);
    assert.deepEqual([failure.code, ms >= 30_000 && ms <= 60_000], ["network", true], `${ms} ms`);
    await clock.until(() => server.count("socket") >= 3);
    assert.ok(clock.now - blocked >= 60_000 && clock.now - blocked < 61_000, `${clock.now - blocked} ms`);
  });
}

test("a socket continues with each new token, which it is shown before the old one expires", async (t) => {
  /** @type {string[]} */
  const tokens = [];
  const token = () => {
    tokens.push(tokenUntil(Date.now() / 1000 + 3600));
    return tokens.at(-1);
  };
  const { clock, server, halley } = stage(t, { transport: "socket", token });
  const record = recorded(halley);
  halley.start();
  await settle();
  server.last.alive = true;
  server.last.page();
  const shown = () => [...new Set(server.last.sent.map((one) => one.token))];
  for (let hour = 1; hour <= 3; hour++) {
    await clock.advance(58 * MINUTE);
    assert.equal(shown().length, hour, "not before it is time");
    await clock.advance(2 * MINUTE);
    assert.deepEqual(shown(), tokens);
    assert.equal(tokens.length, hour + 1);
  }
  assert.deepEqual([server.opened.length, halley.state, record.errors], [1, "live", []]);
});

test("a refused socket that reports an error alone has ended: the next one is opened at once", async (t) => {
  const { clock, server, halley } = stage(t);
  const record = recorded(halley);
  halley.start();
  await settle();
  // As in Node 22: nothing follows.
  server.last.onerror({ message: "refused" });
  await settle();
  assert.deepEqual([server.last.transport, server.last.url.search], ["poll", "?wait=0"]);
  server.last.page();
  await settle();
  server.last.page();
  await settle();
  assert.deepEqual([halley.state, halley.transport, record.errors, clock.now], ["live", "socket", [], 0]);
  // One that was open has ended too.
  server.last.onerror({});
  await clock.until(() => server.count("socket") === 3, 1000);
  assert.deepEqual(record.errors.map(({ code }) => code), ["connection_lost"]);
});

test("after a second socket that reports an error alone, SSE is next at once", async (t) => {
  const { clock, server, halley } = stage(t);
  const record = recorded(halley);
  halley.start();
  for (let round = 0; round < 2; round++) {
    await settle();
    server.last.onerror({ message: "refused" });
    await settle();
    server.last.page();
  }
  await settle();
  assert.deepEqual([record.errors[0].code, server.last.transport, clock.now], ["transport_blocked", "sse", 0]);
  assert.match(record.errors[0].detail, /the socket failed refused/);
});

for (const transport of TRANSPORTS) {
  test(`${transport}: messages wait until somebody takes them`, async (t) => {
    const { clock, server, halley } = stage(t, { transport });
    halley.start();
    await settle();
    server.last.page(message(1));
    await clock.advance(MINUTE);
    assert.deepEqual([halley.state, halley.cursor], ["live", undefined]);
    await halley.stop();
    halley.start();
    await settle();
    assert.equal(server.last.url.searchParams.get("after"), null, "from the beginning");
    server.last.page(message(1));
    await clock.advance(MINUTE);
    const record = recorded(halley);
    await settle();
    assert.deepEqual([record.bodies, halley.cursor], [[1], "1.0.00000001"]);
    // Nothing of the run before is left to come again.
    await clock.advance(MINUTE);
    assert.deepEqual(record.bodies, [1]);
  });
}

for (const transport of /** @type {const} */ (["socket", "sse", "stream"])) {
  test(`${transport}: one that is over after ten minutes is opened again at once`, async (t) => {
    const { clock, server, halley } = stage(t, { transport });
    const record = recorded(halley);
    halley.start();
    for (let round = 1; round <= 3; round++) {
      await settle();
      server.last.page();
      for (let beats = 0; beats < 20; beats++) {
        await clock.advance(30_000);
        server.last.beat(0);
      }
      server.last.over();
      await settle();
      assert.equal(server.opened.length, round + 1);
    }
    assert.equal(clock.now, 30 * MINUTE);
    assert.deepEqual(record.errors, []);
    assert.deepEqual(record.states.map(({ state }) => state), ["connecting", "live", "connecting", "live", "connecting", "live", "connecting"]);
  });

  test(`${transport}: one that is over at once, again and again, is not opened in a circle`, async (t) => {
    const { clock, server, halley } = stage(t, { transport });
    t.mock.method(Math, "random", () => 0.999);
    halley.start();
    /** @type {number[]} */
    const times = [];
    for (let round = 1; round <= 5; round++) {
      await clock.until(() => server.opened.length === round);
      times.push(Math.round(clock.now / 100) / 10);
      server.last.page();
      await settle();
      server.last.over();
    }
    assert.deepEqual(times, [0, 0.5, 1.5, 3.5, 7.5], "seconds");
  });
}

test("pauses grow while connections break, and are short again after one that lasted", async (t) => {
  const { clock, server, halley } = stage(t, { transport: "stream" });
  t.mock.method(Math, "random", () => 0.999);
  const record = recorded(halley);
  halley.start();
  for (const lasts of [0, 0, 0, 0, 0, 0, 0, 0, 40_000, 1100, 1100, 0]) {
    await settle();
    const { length } = server.opened;
    server.last.page();
    await clock.advance(lasts);
    server.last.fail();
    await clock.until(() => server.opened.length > length);
  }
  const pauses = record.states.filter(({ state }) => state === "waiting").map(({ retryInMs }) => Math.round(retryInMs / 100) / 10);
  assert.deepEqual(pauses, [0.5, 1, 2, 4, 8, 16, 30, 30, 0.5, 0.5, 0.5, 1], "seconds");
});

for (const transport of /** @type {const} */ (["sse", "stream"])) {
  test(`${transport}: a listener may take longer than the server may be silent`, async (t) => {
    const { clock, server, halley } = stage(t, { transport });
    const record = recorded(halley);
    const { opened, open } = gate();
    halley.on("message", () => opened);
    halley.start();
    await settle();
    server.last.page(message(1));
    for (let beats = 0; beats < 20; beats++) {
      await clock.advance(30_000);
      server.last.beat(1);
    }
    assert.equal(halley.cursor, undefined);
    open();
    await settle();
    assert.deepEqual([halley.cursor, halley.state, record.errors, server.opened.length], ["1.0.00000001", "live", [], 1]);
    // From here on its silence counts.
    const ms = await clock.until(() => record.errors.length > 0);
    assert.deepEqual([record.errors[0].code, ms], ["timeout", 65_000]);
  });
}

test("stop() waits until a listener is done with its message, and the cursor is behind it", async (t) => {
  const { clock, server, halley } = stage(t, { transport: "stream" });
  const { opened, open } = gate();
  halley.on("message", () => opened);
  halley.start();
  await settle();
  server.last.page(message(1));
  await settle();
  let stopped = false;
  const stopping = halley.stop().then(() => (stopped = true));
  await clock.advance(4900);
  assert.ok(!stopped);
  open();
  await settle();
  await stopping;
  assert.deepEqual([halley.state, halley.cursor], ["stopped", "1.0.00000001"]);
});

test("stop() does not wait for ever for a listener; start() then waits for it: nothing comes twice", async (t) => {
  const { clock, server, halley } = stage(t, { transport: "stream" });
  const record = recorded(halley);
  const { opened, open } = gate();
  const off = halley.on("message", () => opened);
  halley.start();
  await settle();
  server.last.page(message(1), message(2));
  await settle();
  const stopping = halley.stop();
  assert.equal(await clock.until(() => halley.state === "stopped"), 5000);
  await stopping;
  halley.start();
  await clock.advance(4000);
  assert.equal(server.opened.length, 1, "it has not connected yet");
  off();
  open();
  await settle();
  assert.equal(server.last.url.searchParams.get("after"), "1.0.00000001");
  server.last.page(message(2));
  await settle();
  assert.deepEqual(record.bodies, [1, 2]);
});

for (const transport of TRANSPORTS) {
  test(`${transport}: a token function that does not answer is given up, and called again`, async (t) => {
    let calls = 0;
    const token = () => ((calls += 1) === 1 ? new Promise(() => {}) : "t");
    const { clock, server, halley } = stage(t, { transport, token });
    server.answer = (one) => one.page();
    const record = recorded(halley);
    halley.start();
    const ms = await clock.until(() => halley.state === "live");
    assert.ok(ms >= 15_000 && ms < 16_000, `${ms} ms`);
    assert.deepEqual(record.errors.map(({ code, fatal }) => [code, fatal]), [["token_failed", false]]);
    assert.match(record.errors[0].detail, /^the token function .*(no answer within|did not answer)/);
  });

  test(`${transport}: a storage that never answers is reported, and holds nothing up for long`, async (t) => {
    const storage = { getItem: () => null, setItem: () => new Promise(() => {}) };
    const { clock, server, halley } = stage(t, { transport, storage });
    const record = recorded(halley);
    halley.start();
    await settle();
    server.last.page(message(1), message(2));
    const ms = await clock.until(() => record.messages.length === 2);
    assert.equal(ms, 15_000);
    assert.deepEqual([record.errors[0].code, record.errors[0].fatal], ["storage_failed", false]);
    assert.match(record.errors[0].detail, /cannot store.*no answer within 15000 ms/);
    // A stop in the midst does not wait for it.
    await settle();
    const stopping = halley.stop();
    await settle();
    assert.equal(halley.state, "stopped");
    await stopping;
  });
}

test("what stays blocked is tried less and less often", async (t) => {
  const { clock, server, halley } = stage(t, { WebSocket: null });
  /** @type {number[]} */
  const tries = [];
  server.answer = (one) => {
    if (one.transport !== "sse") return held(one);
    tries.push(clock.now);
    one.reply(new Response("<h1>Forbidden</h1>", { status: 403 }));
  };
  halley.start();
  await clock.until(() => tries.length === 14);
  // Twice each time, as the first failure may be one of the moment.
  const minutes = tries.filter((_, index) => index % 2 === 1).map((at) => Math.round(at / MINUTE));
  assert.deepEqual(minutes, [0, 1, 3, 7, 15, 25, 35]);
});

test("polls that are not held do not become a circle", async (t) => {
  const { clock, server, halley } = stage(t, { transport: "poll" });
  const count = 102;
  server.answer = (one) => void (server.opened.length < count && one.page());
  halley.start();
  await clock.until(() => server.opened.length === count);
  // Before the first two there is none.
  const pause = clock.now / (count - 2);
  assert.ok(pause >= 200 && pause <= 1000, `${pause} ms between two polls`);
});
