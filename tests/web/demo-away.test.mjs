// What the chat page shows of the past: history, and what came while one was away.

import assert from "node:assert/strict";
import { test } from "node:test";
import { chat, join, message, openPage, startDemo, texts, write } from "./pages.mjs";
import { eventually, openBrowser } from "./support.mjs";

/** What a browser writes when it is offline, by intent. */
const OFFLINE = /ERR_INTERNET_DISCONNECTED/;
/** And when the server is another one than it was. */
const OTHER = /ERR_CONNECTION_|ERR_EMPTY_RESPONSE|status of (4\d\d|503)|WebSocket connection to/;

test("a thousand messages are scrolled back through without a gap or a repeat", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const count = 1000;
  await demo.push(Array.from({ length: count }, (_, index) => ({ to: "ann", from: "bob", body: `message ${index + 1}` })));
  const page = await join(t, browser, demo, "ann");
  await chat(page, "bob").getByText("100 unread messages").waitFor();
  await chat(page, "bob").click();
  await message(page, `message ${count}`).waitFor();

  const scroll = page.locator("#scroll");
  for (let known = 0; known < count; ) {
    const moved = await scroll.evaluate(async (box) => {
      // A reader goes up a bit more than a screen; what they then read must not move when more is put above it.
      const list = /** @type {HTMLElement} */ (box.querySelector("#messages"));
      const before = list.querySelectorAll(".message").length;
      box.scrollTop = Math.min(300, box.scrollTop);
      const first = /** @type {HTMLElement} */ ([...list.querySelectorAll(".message")].find((item) => item.getBoundingClientRect().top > box.getBoundingClientRect().top));
      const place = () => first.getBoundingClientRect().top - first.offsetHeight;
      const was = place();
      for (let waited = 0; waited < 15_000 && list.querySelectorAll(".message").length === before; waited += 10) {
        await new Promise((done) => setTimeout(done, 10));
      }
      return Math.abs(place() - was);
    });
    assert.ok(moved <= 2, `what is read moved by ${moved} px`);
    const now = await page.locator("#messages .message").count();
    assert.ok(now > known || now === count, `stuck at ${now}`);
    known = now;
  }
  assert.deepEqual(await texts(page), Array.from({ length: count }, (_, index) => `message ${index + 1}`));
  await page.getByText("This is the beginning.").waitFor();

  // Up here, what comes is told and not forced upon the reader.
  await scroll.evaluate((box) => (box.scrollTop = 0));
  await demo.push([{ to: "ann", from: "bob", body: "the newest" }]);
  await page.getByText("1 new message ↓").click();
  await eventually(() => message(page, "the newest").isVisible());
  await page.locator("#jump").waitFor({ state: "hidden" });
});

test("who was offline gets what they missed, and what they wrote is sent", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const ann = await join(t, browser, demo, "ann", { allowed: OFFLINE });
  const bob = await join(t, browser, demo, "bob");
  await write(ann, "before");
  await message(bob, "before").waitFor();

  await ann.context().setOffline(true);
  await ann.getByText("There is no connection.").waitFor();
  await write(bob, "meanwhile");
  await write(ann, "written offline");
  await ann.locator("#pending").getByText("written offline").waitFor();
  await ann.context().setOffline(false);
  await ann.locator("#state[data-state=live]").waitFor();
  await message(ann, "meanwhile").waitFor();
  await message(ann, "written offline").waitFor();
  await message(bob, "written offline").waitFor();
  assert.equal((await texts(bob)).filter((text) => text === "written offline").length, 1);

  // The same by the button.
  await ann.getByRole("button", { name: "Go offline" }).click();
  await ann.getByText("You are offline.").waitFor();
  await write(bob, "once more");
  await message(bob, "once more").waitFor();
  assert.equal(await message(ann, "once more").count(), 0);
  await write(ann, "held back");
  await write(ann, "and held back");
  await ann.locator("#pending").getByText("Will be sent when you are online").nth(1).waitFor();
  await write(bob, "still there");
  await message(bob, "still there").waitFor();
  assert.equal(await message(bob, "held back").count(), 0, "offline is offline");
  await ann.getByRole("button", { name: "Go online" }).click();
  await message(ann, "once more").waitFor();
  await message(bob, "and held back").waitFor();
  assert.deepEqual((await texts(bob)).slice(-3), ["still there", "held back", "and held back"]);
  await eventually(async () => (await ann.locator("#pending li").count()) === 0, "nothing waits");
});

test("what is written while there is no network is sent in the order in which it was written", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const ann = await join(t, browser, demo, "ann", { allowed: OFFLINE });
  const bob = await join(t, browser, demo, "bob");
  await ann.context().setOffline(true);
  await ann.getByText("There is no connection.").waitFor();
  const lines = Array.from({ length: 6 }, (_, index) => `line ${index + 1}`);
  for (const line of lines) await write(ann, line);
  await ann.context().setOffline(false);
  await eventually(async () => (await texts(bob)).filter((text) => text.startsWith("line")).length === lines.length, "all lines", 60_000);
  assert.deepEqual((await texts(bob)).filter((text) => text.startsWith("line")), lines);
});

test("a message on its way when one goes offline waits, and is sent when one is back", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const page = await join(t, browser, demo, "ann");
  await page.getByLabel("Transport").selectOption("poll");
  await page.locator("#state").getByText("Live over poll").waitFor();
  let asked = 0;
  const posts = "**/v1/groups/everyone/messages";
  // It never answers.
  await page.route(posts, () => void (asked += 1));
  await write(page, "on its way");
  await eventually(() => asked > 0, "it is sent");
  await page.getByRole("button", { name: "Go offline" }).click();
  await page.locator("#pending").getByText("Will be sent when you are online").waitFor();
  await page.unroute(posts);
  await page.getByRole("button", { name: "Go online" }).click();
  await message(page, "on its way").waitFor();
});

test("a chat that could not be read is read when the connection is back", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  await demo.push([{ to: "ann", from: "bob", body: "long ago" }]);
  const page = await join(t, browser, demo, "ann", { allowed: OFFLINE });
  let asked = 0;
  // It never answers.
  await page.route("**/v1/direct/bob/messages*", () => void (asked += 1));
  await chat(page, "bob").click();
  await eventually(() => asked > 0, "the history is asked for");
  await page.getByRole("button", { name: "Go offline" }).click();
  await page.getByText("Older messages could not be read").waitFor();
  await page.unroute("**/v1/direct/bob/messages*");
  await page.getByRole("button", { name: "Go online" }).click();
  await message(page, "long ago").waitFor();
});

test("a page that outlives its server goes on with the next one", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const page = await join(t, browser, demo, "ann", { allowed: OTHER });
  await write(page, "to the first");
  await message(page, "to the first").waitFor();
  await demo.restart();
  await write(page, "to the second");
  await page.getByRole("alert").getByText("The server has restarted").waitFor();
  await message(page, "to the second").waitFor();
  assert.equal(await message(page, "to the first").count(), 0, "which does not know it");
  await demo.push([{ group: "everyone", from: "bob", body: "to ann" }]);
  await message(page, "to ann").waitFor();
});

test("history of the server before, when it comes while the list is made anew, does no harm", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  await demo.push([{ to: "ann", from: "bob", body: "to the first" }]);
  const page = await join(t, browser, demo, "ann", { allowed: OTHER });
  /** @type {import("playwright-core").Route[]} */
  const [histories, lists] = [[], []];
  await page.route("**/v1/direct/bob/messages*", (route) => void histories.push(route));
  await page.route("**/v1/conversations*", (route) => void lists.push(route));
  await chat(page, "bob").click();
  await eventually(() => histories.length > 0, "the history is asked for");
  await demo.restart();
  await eventually(() => lists.length > 0, "the list is asked for anew", 30_000);
  const read = page.waitForResponse("**/v1/direct/bob/messages*");
  await histories.at(-1)?.fulfill({ json: { log: "x", messages: [], more: false } });
  await (await read).finished();
  for (const route of lists) await route.continue().catch(() => {});
  await page.unroute("**/v1/conversations*");
  await demo.push([{ group: "everyone", from: "bob", body: "to the second" }]);
  await message(page, "to the second").waitFor();
});

test("the page comes up also when the network goes while it does", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const page = await openPage(t, browser, { allowed: /ERR_FAILED/ });
  await page.route("**/v1/inbox?after=now&wait=0", (route) => route.abort(), { times: 1 });
  await page.goto(`${demo.url}/?user=ann`);
  await page.locator("#state[data-state=live]").waitFor();
  await demo.push([{ group: "everyone", from: "bob", body: "Hello" }]);
  await message(page, "Hello").waitFor();
});
