// What the client does over time, with a clock that the test moves and a server in memory.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Halley } from "../../src/web/client/halley.js";
import { recorded } from "./clients.mjs";
import { Clock } from "./clock.mjs";

const HOUR = 3600_000;

/** A client with the times that applications have, stopped when the test ends.
 * @param {import("node:test").TestContext} t @param {Clock} clock @param {any} options */
function started(t, clock, options) {
  const halley = new Halley({ url: "http://server", token: "t", ...options });
  const record = recorded(halley);
  halley.start();
  t.after(async () => {
    const stopped = halley.stop();
    await clock.advance(10_000);
    await stopped;
  });
  return { halley, record };
}

/** A kind of WebSocket whose server is the test: `made` are those that were opened. */
function sockets() {
  return class Fake {
    /** @type {Fake[]} */
    static made = [];
    /** @type {any[]} */
    sent = [];
    /** @type {any} */ onmessage;
    /** @type {any} */ onclose;
    /** @type {any} */ onerror;
    constructor() {
      Fake.made.push(this);
    }
    /** The server's word. @param {object} object */
    say(object = { messages: [], next: "0.0.00000001" }) {
      this.onmessage({ data: JSON.stringify(object) });
    }
    /** @param {string} text */
    send(text) {
      this.sent.push(JSON.parse(text));
    }
    close() {}
  };
}

/** A reply of the server without messages. */
const nothing = () => Response.json({ log: "x", messages: [], next: "0.0.00000001", more: false });
/** A token like the server's. @param {number} exp */
const tokenUntil = (exp) => `h.${Buffer.from(JSON.stringify({ sub: "bob", exp })).toString("base64url")}.s`;
/** Never an answer. @returns {Promise<Response>} */
const silent = () => new Promise(() => {});

for (const [what, jump] of /** @type {const} */ ([["back", -HOUR], ["ahead", HOUR]])) {
  test(`a dead socket is noticed after the same time when the wall clock is set ${what}`, async (t) => {
    const clock = new Clock(t);
    const Fake = sockets();
    const { halley, record } = started(t, clock, { transport: "socket", WebSocket: Fake, fetch: silent });
    await clock.settle();
    Fake.made[0].say();
    await clock.settle();
    assert.equal(halley.state, "live");
    clock.wall += jump;
    // A live one stays: the server answers when it is asked.
    for (let minute = 0; minute < 10; minute++) {
      await clock.advance(30_000);
      Fake.made[0].say();
    }
    assert.deepEqual([Fake.made.length, record.errors], [1, []]);
    clock.wall += jump;
    const ms = await clock.until(() => record.errors.length > 0);
    assert.equal(record.errors[0].code, "timeout");
    assert.ok(ms >= 65_000 && ms < 75_000, `${ms} ms`);
    await clock.until(() => Fake.made.length === 2, 1000);
  });

  test(`a token is renewed in time when the wall clock is set ${what}`, async (t) => {
    const clock = new Clock(t);
    /** @type {number[]} */
    const asked = [];
    const token = () => {
      asked.push(clock.now);
      return tokenUntil(clock.wall / 1000 + 3600);
    };
    /** A poll that is held. @type {(url: URL) => Promise<Response>} */
    const held = async (url) => {
      if (!String(url).endsWith("wait=0")) await new Promise((done) => setTimeout(done, 30_000));
      return nothing();
    };
    started(t, clock, { transport: "poll", token, fetch: held });
    await clock.advance(10 * 60_000);
    clock.wall += jump / 2;
    await clock.until(() => asked.length === 2);
    const [first, second] = asked;
    assert.ok(second - first >= HOUR - 30_000 && second - first <= HOUR, `renewed after ${second - first} ms`);
  });

  test(`a send is given up after its time, and a better transport tried again, when the wall clock is set ${what}`, async (t) => {
    const clock = new Clock(t);
    const Fake = sockets();
    class Blocked extends Fake {
      constructor() {
        super();
        setTimeout(() => this.onclose({ code: 1006, reason: "" }));
      }
    }
    /** @type {(url: URL, init: RequestInit) => Promise<Response>} */
    const narrow = async (url, init) => {
      if (init.method === "POST") throw new TypeError("broken");
      if (String(url).includes("/sse")) return new Response(new ReadableStream(), { headers: { "content-type": "text/event-stream" } });
      return nothing();
    };
    const { halley, record } = started(t, clock, { WebSocket: Blocked, fetch: narrow });
    await clock.until(() => record.errors.some(({ code }) => code === "transport_blocked"));
    const blocked = clock.now;
    clock.wall += jump;
    /** @type {any} */
    let failure;
    halley.send({ to: "ann", body: 1 }).catch((error) => (failure = error));
    const ms = await clock.until(() => failure);
    assert.deepEqual([failure.code, ms >= 30_000 && ms <= 60_000], ["network", true], `${ms} ms`);
    await clock.until(() => Fake.made.length === 3);
    assert.ok(clock.now - blocked >= 60_000 && clock.now - blocked < 61_000, `${clock.now - blocked} ms`);
  });
}

test("a refused socket that tells only of an error is at its end: the next one is opened at once", async (t) => {
  const clock = new Clock(t);
  const Fake = sockets();
  const { halley, record } = started(t, clock, { WebSocket: Fake, fetch: async () => nothing() });
  await clock.settle();
  // As in Node 22: the state is CLOSED, and nothing follows.
  Fake.made[0].onerror({ message: "refused" });
  await clock.settle();
  Fake.made[1].say();
  await clock.settle();
  assert.deepEqual([halley.state, halley.transport, record.errors, clock.now], ["live", "socket", [], 0]);
  // One that was open is at its end too.
  Fake.made[1].onerror({});
  await clock.until(() => Fake.made.length === 3, 1000);
  assert.deepEqual(record.errors.map(({ code }) => code), ["connection_lost"]);
});

test("a socket that is refused again and again by an error alone is left for SSE at once", async (t) => {
  const clock = new Clock(t);
  const Fake = sockets();
  const { record } = started(t, clock, { WebSocket: Fake, fetch: async () => nothing() });
  await clock.settle();
  Fake.made[0].onerror({ message: "refused" });
  await clock.settle();
  Fake.made[1].onerror({ message: "refused" });
  await clock.settle();
  assert.deepEqual([record.errors[0].code, clock.now], ["transport_blocked", 0]);
  assert.match(record.errors[0].detail, /the socket failed refused/);
});
