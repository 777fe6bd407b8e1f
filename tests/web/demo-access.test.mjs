// The chat page for everybody: by keyboard, by screen reader, in light and dark, on a phone.

import assert from "node:assert/strict";
import { test } from "node:test";
import { DESKTOP, PHONE, chat, checkAccess, checkWidth, join, message, openPage, placeholderContrast, startDemo, texts, write } from "./pages.mjs";
import { eventually, openBrowser } from "./support.mjs";

/** What a browser writes when it is offline, by intent. */
const OFFLINE = /ERR_INTERNET_DISCONNECTED/;

test("it is used by the keyboard alone", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const page = await openPage(t, browser);
  await page.goto(demo.url);
  await page.keyboard.press("Enter");
  await page.getByText("Enter a name.").waitFor();
  await page.keyboard.type("ann");
  await page.keyboard.press("Enter");
  await page.locator("#state[data-state=live]").waitFor();

  // The first stop leads to the message box.
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), "Skip to the message box");
  await page.keyboard.press("Enter");
  await page.keyboard.type("one line");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("two lines");
  await page.keyboard.press("Enter");
  await eventually(async () => (await texts(page)).includes("one line\ntwo lines"), "it is sent with both lines");
  assert.equal(await page.locator("#text").inputValue(), "");

  await page.locator("#new-chat").focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  assert.equal(await page.evaluate(() => document.activeElement?.id), "new-chat", "the focus is where it was");

  await page.getByRole("button", { name: "Timing" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("region", { name: "From push to screen" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("region", { name: "From push to screen" }).waitFor({ state: "hidden" });
  assert.equal(await page.evaluate(() => document.activeElement?.id), "timing-open");

  // What comes is spoken.
  await demo.push([{ to: "ann", from: "bob", body: "Can you hear me?" }]);
  await page.getByRole("status").getByText("New message from bob: Can you hear me?").waitFor({ state: "attached" });
  await page.locator(".chat").nth(1).focus();
  // The list changes below the focus, which stays where it is.
  await demo.push([{ to: "ann", from: "carol", body: "Hello" }]);
  await chat(page, "carol").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement?.querySelector(".chat-name")?.textContent), "everyone");
  await page.keyboard.press("ArrowUp");
  await page.keyboard.press("Enter");
  await message(page, "Can you hear me?").waitFor();

  // What was begun in one chat is still there after a look at another.
  await page.keyboard.type("half a");
  await chat(page, "everyone").click();
  assert.equal(await page.locator("#text").inputValue(), "");
  await chat(page, "bob").click();
  assert.equal(await page.locator("#text").inputValue(), "half a");
});

test("a phone shows one pane at a time", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const page = await join(t, browser, demo, "ann", { viewport: PHONE, hasTouch: true, isMobile: true });
  const [side, talk] = [page.getByRole("navigation", { name: "Chats" }), page.getByRole("region", { name: "everyone" }).first()];
  assert.ok(await side.isVisible());
  assert.ok(!(await talk.isVisible()));
  // What was said before is there, but not marked as new.
  await chat(page, "everyone").getByText("halley: Welcome.").waitFor();
  assert.equal(await page.locator(".chat .count").count(), 0);
  await demo.push([{ group: "everyone", from: "bob", body: "a word ".repeat(60).trim() }]);
  await chat(page, "everyone").getByText("1 unread message").waitFor();
  await checkWidth(page, "the list");
  await chat(page, "everyone").tap();
  assert.ok(await talk.isVisible());
  assert.ok(!(await side.isVisible()));
  await checkWidth(page, "a chat");
  await demo.push([{ to: "ann", from: "bob", body: "alone" }]);
  await page.getByRole("button", { name: "Back to the chats 1 unread" }).tap();
  assert.ok(await side.isVisible());
  await chat(page, "everyone").tap();
  await page.getByRole("button", { name: "Timing" }).tap();
  await page.getByRole("region", { name: "From push to screen" }).waitFor();
  await checkWidth(page, "the times");
  await page.getByRole("button", { name: "Close the timing panel" }).tap();
  assert.ok(await talk.isVisible());
  await page.keyboard.press("Escape");
  assert.ok(await side.isVisible());
});

test("the longest name breaks nothing on a phone", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const name = "W".repeat(128);
  await demo.push([{ to: "ann", from: "bob", body: "unread" }, { to: "ann", from: name, body: "Hello" }, { group: "everyone", from: name, body: "Hello, everyone" }]);
  const page = await join(t, browser, demo, "ann", { viewport: PHONE, hasTouch: true, isMobile: true });
  /** Nothing of it is cut off or stands out. @param {string} selector */
  const fits = async (selector) => {
    const [needed, there, right] = await page.locator(selector).last().evaluate((node) => [node.scrollWidth, node.clientWidth, node.getBoundingClientRect().right]);
    assert.ok(needed <= there && right <= PHONE.width, `${selector}: ${needed} px in ${there}, up to ${right}`);
  };
  await chat(page, "everyone").tap();
  await page.locator(".from").last().waitFor();
  await fits(".from");
  const low = (await page.locator("#text").boundingBox())?.height;
  const arrow = (await page.locator("#back svg").boundingBox())?.width;
  await page.locator("#back").tap();
  await chat(page, name).tap();
  await message(page, "Hello").waitFor();
  assert.equal((await page.locator("#text").boundingBox())?.height, low, "the box to write in");
  assert.equal((await page.locator("#back svg").boundingBox())?.width, arrow, "the way back");
  await page.locator("#back").tap();
  await page.locator("#new-chat").tap();
  for (const part of ["#new-dialog", "#new-name", "#new-dialog .primary"]) await fits(part);
  await page.getByRole("dialog").getByRole("button", { name }).tap();
  await page.getByRole("dialog").waitFor({ state: "hidden" });
});

for (const [where, colorScheme, viewport] of /** @type {const} */ ([
  ["a light desktop", "light", DESKTOP],
  ["a dark phone", "dark", PHONE],
])) {
  test(`axe finds nothing on ${where}`, async (t) => {
    const browser = await openBrowser(t);
    const demo = await startDemo(t);
    await demo.push([{ group: "everyone", from: "bob", body: "Hello" }]);
    const page = await openPage(t, browser, { allowed: OFFLINE, colorScheme, viewport, reducedMotion: "reduce" });
    await page.goto(demo.url);
    await checkAccess(page, `join, ${where}`);
    await page.getByLabel("Your name").fill("ann");
    await page.getByLabel("Your name").press("Enter");
    await page.locator("#state[data-state=live]").waitFor();
    await demo.push([{ to: "ann", from: "carol", body: "unread" }]);
    await chat(page, "carol").getByText("unread message").waitFor();
    await checkAccess(page, `list, ${where}`);
    await chat(page, "everyone").click();
    await write(page, "Mine");
    await message(page, "Mine").first().waitFor();
    if (!(await page.locator("#timing").isVisible())) await page.locator("#timing-open").click();
    await page.locator("#times li").first().waitFor();
    await checkAccess(page, `chat, ${where}`);
    await page.locator("#timing-close").click();
    await page.context().setOffline(true);
    await page.locator("#banner").waitFor();
    await checkAccess(page, `offline, ${where}`);
    await page.context().setOffline(false);
    if (viewport === PHONE) await page.locator("#back").click();
    await page.locator("#new-chat").click();
    await checkAccess(page, `new chat, ${where}`);
    await page.locator("#new-name").fill("nobody");
    await page.locator("#new-name").press("Enter");
    await page.getByText("Nothing here yet").waitFor();
    await checkAccess(page, `empty chat, ${where}`);
  });
}

test("the longest name fits into a chat without a message", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const page = await join(t, browser, demo, "ann", { viewport: PHONE, hasTouch: true, isMobile: true });
  for (const name of ["W".repeat(128), "ק".repeat(64)]) {
    await page.locator("#new-chat").tap();
    await page.locator("#new-name").fill(name);
    await page.locator("#new-name").press("Enter");
    await page.getByText("Nothing here yet").waitFor();
    for (const part of ["#empty", "#empty-text", "#scroll", "#composer"]) {
      const [needed, there, left, right] = await page.locator(part).evaluate((node) => {
        const { left, right } = node.getBoundingClientRect();
        return [node.scrollWidth, node.clientWidth, left, right];
      });
      assert.ok(needed <= there && left >= 0 && right <= PHONE.width, `${part}: ${needed} px in ${there}, from ${left} to ${right}`);
    }
    await checkWidth(page, "an empty chat");
    await page.locator("#back").tap();
  }
});

test("a long list is one stop of the Tab key", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const many = Array.from({ length: 50 }, (_, index) => index);
  await demo.push(many.map((index) => ({ to: "ann", from: `user ${index}`, body: "Hello" })));
  await demo.push(many.map((index) => ({ group: "everyone", from: "bob", body: `http://a.example/${index}` })));
  const page = await join(t, browser, demo, "ann");
  await eventually(async () => (await page.locator(".chat").count()) === 51, "all chats");
  const focused = () => page.evaluate(() => document.activeElement?.id || document.activeElement?.getAttribute("href") || document.activeElement?.querySelector(".chat-name")?.textContent);
  await page.locator("#leave").focus();
  const stops = [];
  for (let stop = ""; stop !== "text" && stops.length < 30; stops.push(stop)) {
    await page.keyboard.press("Tab");
    stop = String(await focused());
  }
  assert.deepEqual(stops, ["new-chat", "everyone", "transport", "line", "timing-open", "scroll", "http://a.example/49", "text"]);

  // Within the lists, arrows move; a list that changes keeps one stop.
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("ArrowUp");
  assert.equal(await focused(), "http://a.example/48");
  await page.locator(".chat[aria-current]").focus();
  await page.keyboard.press("End");
  assert.equal(await focused(), "user 0");
  await demo.push([{ to: "ann", from: "user 50", body: "Hello" }]);
  await chat(page, "user 50").waitFor();
  assert.equal(await focused(), "user 0");
  assert.equal(await page.locator(".chat[tabindex='0']").count(), 1);
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "transport");
  await page.locator("#new-chat").click();
  assert.equal(await page.locator("#new-people button[tabindex='0']").count(), 1);
});

for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
  test(`what stands in empty fields can be read, ${colorScheme}`, async (t) => {
    const browser = await openBrowser(t);
    const demo = await startDemo(t);
    const page = await join(t, browser, demo, "ann", { colorScheme });
    const contrast = await placeholderContrast(page.locator("#text"));
    assert.ok(contrast >= 4.5, `${contrast}:1`);
  });
}
