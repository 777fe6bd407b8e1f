// The chat of examples/: its page with its Node backend, by two people, through restarts of both servers.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { eventually, freePort, openBrowser, own, startServer } from "./support.mjs";

const BACKEND = fileURLToPath(new URL("../../examples/chat/backend.mjs", import.meta.url));

test("two people talk through the example's page, before and after restarts and a reload", async (t) => {
  const port = await freePort();
  const origin = `http://127.0.0.1:${port}`;
  const halley = await startServer(t, { args: ["--cors-origin", origin] });
  const environment = { HALLEY_ADMIN: halley.admin, HALLEY_URL: halley.url, HALLEY_ADMIN_KEY: halley.key };
  const env = { ...process.env, ...environment, PORT: String(port) };
  const backend = own(spawn(process.execPath, [BACKEND], { env, stdio: "inherit" }));
  t.after(() => backend.kill());
  const answers = async () => (await fetch(`${origin}/session`).catch(() => undefined))?.ok;
  await eventually(answers, "the backend answers");

  const browser = await openBrowser(t);
  const enter = async (/** @type {string} */ user) => {
    const page = await (await browser.newContext()).newPage();
    await page.goto(origin);
    await page.fill("#login input", user);
    await page.click("#login button");
    return page;
  };
  const open = async (/** @type {import("playwright-core").Page} */ page, /** @type {string} */ kind, /** @type {string} */ name) => {
    await page.selectOption("#open select", kind);
    await page.fill("#open input", name);
    await page.click("#open button");
    await page.locator("h2", { hasText: name }).waitFor();
  };
  const say = async (/** @type {import("playwright-core").Page} */ page, /** @type {string} */ text) => {
    await page.fill("#send input", text);
    await page.click("#send button");
  };
  const lines = (/** @type {import("playwright-core").Page} */ page) => page.locator("#messages li").allTextContents();
  const shows = async (/** @type {import("playwright-core").Page} */ page, /** @type {string[]} */ expected) => {
    const same = async () => JSON.stringify(await lines(page)) === JSON.stringify(expected);
    await eventually(same, `the page shows ${expected}`, 60_000).catch(async (error) => {
      throw new Error(`${error.message} (${await page.locator("#state").textContent()}); it shows ${JSON.stringify(await lines(page))}, ${await page.locator("#error").textContent()}`);
    });
  };

  const [ann, bob] = [await enter("ann"), await enter("bob")];
  assert.equal(await ann.locator("#login").isVisible(), false, "one page is one person's");
  assert.equal(await ann.locator("#send").isVisible(), false, "nothing is open yet");
  await Promise.all([open(ann, "room", "team"), open(bob, "room", "team")]);
  await say(ann, "Lunch? \u{1F355} <b>");
  const all = ["annLunch? \u{1F355} <b>"];
  await Promise.all([shows(ann, all), shows(bob, all)]);

  await halley.stop("SIGKILL");
  await say(bob, "Yes, if this arrives"); // repeated by the page until the server is there again
  await halley.start();
  all.push("bobYes, if this arrives");
  await Promise.all([shows(ann, all), shows(bob, all)]);

  await bob.reload();
  await shows(bob, all);
  await say(ann, "It did");
  all.push("annIt did");
  await Promise.all([shows(ann, all), shows(bob, all)]);

  await open(ann, "to", "bob");
  await shows(ann, []);
  await say(ann, "Only for you");
  await shows(ann, ["annOnly for you"]);
  await shows(bob, all);
  await open(bob, "to", "ann");
  await shows(bob, ["annOnly for you"]);
  assert.equal((await halley.inbox("bob")).length, 4, "each was stored once");
});
