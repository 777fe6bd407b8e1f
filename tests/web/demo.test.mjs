// The chat page of `halley demo`, in a real browser against a real demo.

import assert from "node:assert/strict";
import { test } from "node:test";
import { chat, join, message, openPage, startChat, startDemo, startPrefixProxy, texts, write } from "./pages.mjs";
import { eventually, openBrowser } from "./support.mjs";

test("two users write to each other, in the group and alone", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const ann = await join(t, browser, demo, "ann");
  const bob = await join(t, browser, demo, "bob");

  await write(ann, "Hello, everyone");
  await message(bob, "Hello, everyone").waitFor();
  await write(bob, "Hello, Ann");
  await message(ann, "Hello, Ann").waitFor();

  await startChat(ann, "bob");
  await ann.getByText("Nothing here yet").waitFor();
  await write(ann, "Only for you");
  await write(ann, "and again");
  // Bob looks at the group: his list counts what he has not seen.
  await chat(bob, "ann").getByText("2 unread messages").waitFor();
  assert.equal(await bob.title(), "(2) Halley demo");
  await chat(bob, "ann").click();
  await message(bob, "and again").waitFor();
  assert.deepEqual(await texts(bob), ["Only for you", "and again"]);
  assert.equal(await bob.locator("li.new").count(), 0, "all of it is new: nothing is divided");
  await eventually(async () => (await bob.title()) === "Halley demo", "the count goes");
  assert.equal(await chat(bob, "ann").locator(".count").count(), 0);

  await write(bob, "Got it");
  await message(ann, "Got it").waitFor();
  // Each message stands once, though the sender has it by receipt and by inbox.
  assert.deepEqual(await texts(ann), ["Only for you", "and again", "Got it"]);
  assert.deepEqual(await ann.locator("#pending li").count(), 0);

  // Everything was timed.
  await eventually(async () => (await ann.locator("#times li").count()) >= 5, "times are shown");
  assert.match(await ann.locator("#sums .sum-total td").nth(1).innerText(), /^[\d.]+$/);

  // A reload continues at the same place.
  await startChat(ann, "carol");
  await write(bob, "While you are away");
  await chat(ann, "bob").getByText("1 unread message").waitFor();
  await ann.reload();
  await chat(ann, "bob").getByText("1 unread message").waitFor();
  await chat(ann, "bob").click();
  await message(ann, "While you are away").waitFor();
  await ann.locator("li.new").waitFor();
});

test("what the backend pushes is shown, whatever it is, and names and texts are never markup", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const evil = "<img src=x onerror=alert(1)>";
  const page = await join(t, browser, demo, evil);
  assert.equal(await page.locator("#me").innerText(), evil);
  await write(page, evil);
  await message(page, evil).waitFor();
  await demo.push([
    { group: "everyone", from: evil, body: { other: [1, "<b>two</b>"] } },
    { group: "everyone", from: "terminal", body: "<script>alert(2)</script>" },
    { to: evil, from: "<b>bold</b>", body: null },
  ]);
  await message(page, '{"other":[1,"<b>two</b>"]}').waitFor();
  await message(page, "<script>alert(2)</script>").waitFor();
  await chat(page, "<b>bold</b>").click();
  await message(page, "null").waitFor();
  assert.equal(await page.locator("img, #app script, #app b").count(), 0);
});

test("every transport can be chosen while messages come", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const page = await join(t, browser, demo, "ann");
  const expected = [];
  await page.getByRole("button", { name: "Timing" }).click();
  for (const transport of ["poll", "stream", "sse", "socket", "auto"]) {
    await page.getByLabel("Transport").selectOption(transport);
    await demo.push([{ to: "ann", from: "bob", body: `during ${transport}` }]);
    // On a busy machine the first choice of `auto` may not be quick enough.
    const name = transport === "auto" ? /^(Live over )?(socket|sse|poll)$/ : new RegExp(`^(Live over )?${transport}$`);
    await page.locator("#state").getByText(name).waitFor();
    await demo.push([{ to: "ann", from: "bob", body: `over ${transport}` }]);
    expected.push(`during ${transport}`, `over ${transport}`);
    if (expected.length === 2) await chat(page, "bob").click();
    await message(page, `over ${transport}`).waitFor();
    await page.locator("#times .times-by").first().getByText(name).waitFor();
  }
  assert.deepEqual(await texts(page), expected);
});

test("a refused message says why, and nothing is lost", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const page = await join(t, browser, demo, "ann", { allowed: /413|\(Payload Too Large\)/ });
  await write(page, "x".repeat(70_000));
  await page.locator("#pending .failed").getByText(/exceeds 65536 bytes/).waitFor();
  await page.getByRole("button", { name: "Try again" }).waitFor();
  await write(page, "a short one");
  await message(page, "a short one").waitFor();
});

test("a chat and its messages work below a prefix of a proxy, over every transport", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const url = await startPrefixProxy(t, "/push/", demo.url);
  const page = await openPage(t, browser);
  await page.goto(`${url}?user=ann`);
  for (const transport of ["socket", "sse", "stream", "poll"]) {
    await page.getByLabel("Transport").selectOption(transport);
    await page.locator("#state").getByText(`Live over ${transport}`).waitFor();
    await write(page, `over ${transport}`);
    await message(page, `over ${transport}`).waitFor();
  }
  await page.getByRole("button", { name: "Leave" }).click();
  await page.getByLabel("Your name").waitFor();
  assert.equal(page.url(), url);
});

test("a group without a message stands in the list, and is written to", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  await demo.call("PUT", "/v1/groups/silent", { members: ["ann"] });
  await demo.push([{ to: "ann", from: "bob", body: "beside it" }]);
  const page = await join(t, browser, demo, "ann");
  await chat(page, "bob").getByText("beside it").waitFor();
  await chat(page, "silent").getByText("No messages yet").waitFor();
  assert.ok(await page.locator("#trouble").isHidden());
  await chat(page, "silent").click();
  await page.getByText("Nothing here yet").waitFor();
  await write(page, "The first");
  await message(page, "The first").waitFor();
});

test("web addresses are links, and nothing else is", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const page = await join(t, browser, demo, "ann");
  const cases = /** @type {const} */ ([
    ["see http://a.example/x?y=1&z=2#top.", ["http://a.example/x?y=1&z=2#top"]],
    ["(https://a.example/wiki/Halley_(comet)), HTTPS://B.example!", ["https://a.example/wiki/Halley_(comet)", "https://b.example/"]],
    ["<https://a.example/> \"http://b.example\"", ["https://a.example/", "http://b.example/"]],
    ["javascript:alert(1) data:text/html,x file:///etc/passwd ftp://a.example mailto:a@b.example www.a.example", []],
    ["https:// http://[ xhttp://a.example https://bank.example@evil.example/ https://user:password@evil.example", []],
    ["https://evil.example/\u202egnp.exe", ["https://evil.example/"]],
    ["https://а.example/", ["https://xn--80a.example/"]],
    ['https://a.example/"onmouseover="alert(1)', ["https://a.example/"]],
    [`https://a.example/${")".repeat(60_000)}`, ["https://a.example/"]],
    ["first https://a.example\nthen https://b.example", ["https://a.example/", "https://b.example/"]],
  ]);
  await demo.push(cases.map(([text]) => ({ group: "everyone", from: "bob", body: { text } })));
  const shown = page.locator("#messages .text");
  await eventually(async () => (await shown.count()) >= cases.length, "all are shown");
  const found = (await shown.all()).slice(-cases.length);
  for (const [index, [text, links]] of cases.entries()) {
    assert.equal(await found[index].textContent(), text);
    const hrefs = await found[index].locator("a").evaluateAll((all) => all.map((link) => /** @type {HTMLAnchorElement} */ (link).href));
    assert.deepEqual(hrefs, links, text.slice(0, 100));
  }
  const link = page.locator("#messages .text a").first();
  assert.equal(await link.getAttribute("target"), "_blank");
  assert.match((await link.getAttribute("rel")) ?? "", /\bnoopener\b/);
  // The page that is opened has no way back to this one.
  await page.context().route("http://a.example/**", (route) => route.fulfill({ contentType: "text/html", body: "<p>there</p>" }));
  const opened = page.context().waitForEvent("page");
  await link.click();
  const other = await opened;
  await other.getByText("there").waitFor();
  assert.equal(await other.evaluate(() => opener === null && document.referrer === ""), true);
});

test("texts and names from right to left are shown so, and what is beside them is not", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const [name, text] = ["דניאל", "שלום, world!"];
  await demo.push([{ to: "ann", from: name, body: text }, { group: "everyone", from: name, body: text }, { group: "everyone", from: name, body: "left to right" }]);
  const page = await join(t, browser, demo, "ann");
  // None of a node that was just taken out of a list that is drawn anew.
  const direction = (/** @type {import("playwright-core").Locator} */ place) =>
    eventually(() => place.evaluate((node) => getComputedStyle(node).direction), "a direction");
  await page.locator(".from").first().waitFor();
  assert.equal(await direction(page.locator("#messages .from").last()), "rtl");
  assert.equal(await direction(message(page, text)), "rtl");
  assert.equal(await direction(message(page, "left to right")), "ltr");
  await chat(page, name).click();
  await message(page, text).waitFor();
  assert.equal(await direction(page.locator("#talk-title")), "rtl");
  assert.equal(await direction(page.locator("#talk-about")), "ltr");
  assert.equal(await direction(chat(page, name).locator(".chat-name")), "rtl");
  assert.equal(await direction(chat(page, name).locator(".chat-last")), "rtl");
  for (const field of ["#text", "#join-name", "#new-name"]) {
    await page.locator(field).evaluate((node, value) => (/** @type {HTMLInputElement} */ (node).value = value), text);
    assert.equal(await direction(page.locator(field)), "rtl", field);
    await page.locator(field).evaluate((node) => (/** @type {HTMLInputElement} */ (node).value = "left"));
    assert.equal(await direction(page.locator(field)), "ltr", field);
  }
  await write(page, text);
  await chat(page, name).getByText("You:").waitFor();
  // The list is drawn anew when the receipt comes; a node that was just taken out of it has no place.
  await eventually(() => chat(page, name).locator(".chat-last").evaluate((last) => {
    const [who, , what] = [...last.childNodes].map((node) => {
      const range = document.createRange();
      range.selectNode(node);
      return range.getBoundingClientRect().left;
    });
    return who > what;
  }), "the line is read from the right");
});

test("the timing panel is closed until it is asked for", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const page = await join(t, browser, demo, "ann", { viewport: { width: 1600, height: 900 } });
  assert.ok(await page.locator("#timing").isHidden());
  await write(page, "measured");
  await message(page, "measured").waitFor();
  await page.getByRole("button", { name: "Timing" }).click();
  await page.locator("#times li").first().waitFor();
});
