// The tools of these tests work: a server that restarts in place, and a browser.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { eventually, openBrowser, servePages, startServer } from "./support.mjs";

test("a server keeps its address and messages over stops and kills", async (t) => {
  const server = await startServer(t);
  const before = server.url;
  await server.push({ to: "bob", from: "ann", body: 1 });
  await server.restart("SIGTERM");
  await server.push({ to: "bob", from: "ann", body: 2 });
  await server.restart("SIGKILL");
  assert.equal(server.url, before);
  assert.deepEqual(
    (await server.inbox("bob")).map((message) => message.body),
    [1, 2],
  );
});

test("a test file that is ended in the middle leaves neither a server nor its folder, nor a demo", async (t) => {
  const program = `
    import { Server } from ${JSON.stringify(new URL("support.mjs", import.meta.url).href)};
    import { startDemo } from ${JSON.stringify(new URL("pages.mjs", import.meta.url).href)};
    const server = new Server([]);
    await server.start();
    const demo = await startDemo({ after() {} });
    console.log(JSON.stringify([server.data, server.url, demo.url]));
    setInterval(() => {}, 1000);
  `;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  const [data, url, demo] = JSON.parse(String((await once(child.stdout, "data"))[0]));
  assert.ok(existsSync(data));
  child.kill("SIGTERM");
  await once(child, "exit");
  assert.ok(!existsSync(data));
  await assert.rejects(fetch(url));
  await eventually(() => fetch(demo).then(() => false, () => true), "the demo ends");
});

test("a page in the browser reads an inbox of another origin", async (t) => {
  const origin = await servePages(t, { "/": "<!doctype html><title>page</title>" });
  const server = await startServer(t, { args: ["--cors-origin", origin] });
  const token = await server.token("bob");
  await server.push({ to: "bob", from: "ann", body: "hello" });
  const page = await (await openBrowser(t)).newPage();
  await page.goto(origin);
  const bodies = await page.evaluate(
    async ([url, token]) => {
      const reply = await fetch(`${url}/v1/inbox`, { headers: { authorization: `Bearer ${token}` } });
      return (await reply.json()).messages.map((/** @type {any} */ message) => message.body);
    },
    [server.url, token],
  );
  assert.deepEqual(bodies, ["hello"]);
});
