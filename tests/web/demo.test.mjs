// The chat page of `halley demo`, in a real browser against a real demo.

import assert from "node:assert/strict";
import { test } from "node:test";
import { chat, join, message, startChat, startDemo, texts, write } from "./pages.mjs";
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
