// The JavaScript client through a network that does everything wrong, while the server is stopped and
// killed: every message once, in order, with its chain whole; every send stored once.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { assertChains, assertExact, client, Storage, TRANSPORTS } from "./clients.mjs";
import { random, seedOf, startFaultProxy } from "./proxy.mjs";
import { eventually, sleep, startServer } from "./support.mjs";

const TIMING = { silence: 3000, connect: 3000, request: 3000, backoffMax: 300, better: 500 };
const PUSHES = 150;
const SENDS = 30;

describe("through faults", { concurrency: 5 }, () => {
  for (const transport of /** @type {const} */ ([...TRANSPORTS, "auto"])) {
    test(`${transport}: each message once and in order, each send stored once`, async (t) => {
      const seed = seedOf(t);
      const { below, pick } = random(seed);
      const server = await startServer(t);
      await server.group("team", ["bob", "ann"]);
      await server.group("crew", ["bob"]);
      const proxy = await startFaultProxy(t, seed + 1, server.clientPort);

      const storage = new Storage();
      const options = {
        url: proxy.url,
        token: () => server.token("bob", { ttl_s: 1 + below(3) }),
        ...{ transport, storage, storageKey: "bob", heartbeat: 5, wait: 1, timing: TIMING },
      };
      /** @type {import("./clients.mjs").Message[]} */
      const given = [];
      /** @type {ReturnType<typeof client>} */
      let halley;
      const begin = () => {
        halley = client(t, options);
        // Work that takes its time, so that stops and changes come in the middle of it.
        halley.on("message", async (message) => {
          await sleep(below(4));
          given.push(message);
        });
        halley.on("error", (error) => assert.ok(!error.fatal, error));
        halley.on("gap", (gap) => assert.fail(`the server left out ${JSON.stringify(gap)}`));
        halley.start();
      };
      begin();

      // Such as one that too many listeners were added to a signal.
      const warned = (/** @type {Error} */ warning) => assert.fail(warning);
      process.on("warning", warned);
      t.after(() => process.off("warning", warned));

      /** @type {import("../../src/web/client/halley.js").Receipt[]} */
      const receipts = [];
      let working = true;
      t.after(() => (working = false));
      const pushing = async () => {
        for (let body = 0; body < PUSHES && working; body++) {
          const from = pick(["ann", "cy", "bob"]);
          const to = pick([{ to: "bob" }, { to: "bob" }, { group: "team" }, { group: "crew" }]);
          const message = { ...to, from, body: { body, fill: "ü".repeat(below(pick([10, 3000]))) }, idempotency_key: `p${body}` };
          await eventually(() => server.push(message).then(() => true, () => !working), "a push", 60_000);
          await sleep(below(60));
        }
      };
      // The client may be exchanged meanwhile; the key makes the repetition harmless.
      const sent = async (/** @type {import("../../src/web/client/halley.js").SendOptions} */ options) => {
        for (let key; ; ) {
          try {
            const receipt = await halley.send({ ...options, key });
            receipts.push(receipt);
            return;
          } catch (error) {
            assert.equal(/** @type {any} */ (error).code, "stopped");
            key = /** @type {any} */ (error).key;
          }
        }
      };
      const sending = async () => {
        const sends = [];
        for (let n = 0; n < SENDS && working; n++) {
          const to = pick([{ to: "ann" }, { group: "team" }]);
          sends.push(sent({ ...to, body: { sent: n }, timeout: 120 }));
          await sleep(below(200));
        }
        return Promise.all(sends);
      };
      const disturbing = async () => {
        while (working) {
          // A busy machine must have the time to do something in between.
          const before = given.length + receipts.length;
          await eventually(() => given.length + receipts.length > before || !working, "something comes through", 60_000);
          await sleep(150 + below(600));
          const what = pick(["stop", "kill", "cut", "exchange", "transport", "transport"]);
          if (what === "stop" || what === "kill") {
            await server.stop(what === "stop" ? "SIGTERM" : "SIGKILL");
            await sleep(below(300));
            await server.start();
          } else if (what === "cut") {
            proxy.cutAll();
          } else if (what === "exchange") {
            await halley.stop();
            begin();
          } else if (transport === "auto") {
            halley.setTransport(pick([...TRANSPORTS, "auto", "auto"]));
          }
        }
      };
      const disturbance = disturbing();
      await Promise.all([sending(), pushing()]);
      working = false;
      await disturbance;

      // The tail must come through the faults too; and after it one of each sequence, before which repeats would come.
      await server.push({ to: "bob", from: "ann", body: "last" }, { group: "crew", from: "ann", body: "last" });
      const truth = await server.inbox("bob");
      assert.equal(truth.length, PUSHES + SENDS + 2);
      await eventually(() => given.filter(({ body }) => body === "last").length === 2, `all ${truth.length}: ${given.length} came`, 60_000);
      assertExact(given, truth);
      const stored = truth.filter((message) => message.body.sent !== undefined);
      assert.equal(new Set(stored.map((message) => message.body.sent)).size, SENDS);
      const names = (/** @type {any[]} */ ones) => ones.map(({ sequence, id }) => `${sequence} ${id}`).sort();
      assert.deepEqual(names(receipts), names(stored));
      assertChains(given);
      await halley.stop();
      t.diagnostic(`faults: ${JSON.stringify(await proxy.done())}`);
    });
  }
});
