// The admin page, in a real browser against a real server.

import assert from "node:assert/strict";
import { test } from "node:test";
import { openPage, placeholderContrast, startPrefixProxy } from "./pages.mjs";
import { eventually, openBrowser, startServer } from "./support.mjs";

/** What a browser writes when the server refuses, by intent. */
const REFUSED = /the server responded with a status of 4\d\d/;

/** @typedef {import("playwright-core").Page} Page */

/** A page on which the backend has signed in. */
async function signIn(t, browser, server, options = {}) {
  const page = await openPage(t, browser, options);
  await page.goto(server.admin);
  await enter(page, server);
  return page;
}

/** @param {Page} page @param {{ key: string }} server */
async function enter(page, server) {
  await page.getByLabel("Admin key").fill(server.key);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("The server accepts messages.").waitFor();
}

/** @param {Page} page @param {string} section */
const go = (page, section) => page.getByRole("navigation").getByRole("link", { name: section }).click();

/** @param {Page} page @param {string} name */
const tile = (page, name) => page.locator(".tile", { has: page.getByText(name, { exact: true }) }).locator(".value");

async function lookUp(page, section, label, name) {
  await go(page, section);
  await page.getByLabel(label).fill(name);
  await page.keyboard.press("Enter");
}

test("a wrong key is refused, the right one is kept by the tab until one signs out", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  const page = await openPage(t, browser, { allowed: REFUSED });
  await page.goto(server.admin);
  for (const wrong of ["wrong", "schlüssel", `${server.key}0`]) {
    await page.getByLabel("Admin key").fill(wrong);
    await page.keyboard.press("Enter");
    await page.getByRole("alert").getByText("This is not the admin key.").waitFor();
  }
  await page.getByLabel("Admin key").fill(server.key);
  await page.keyboard.press("Enter");
  await page.getByText("The server accepts messages.").waitFor();
  assert.equal(await page.getByLabel("Admin key").isVisible(), false);
  assert.ok(!page.url().includes(server.key));

  await page.reload();
  await page.getByText("The server accepts messages.").waitFor();
  const other = await openPage(t, browser);
  await other.goto(server.admin);
  await other.getByLabel("Admin key").waitFor();

  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Admin key").waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await page.reload();
  await page.getByLabel("Admin key").waitFor();
});

test("the overview tells what goes on", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  const page = await signIn(t, browser, server, { allowed: /ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/ });
  // Somebody waits, and somebody pushes.
  const leave = await server.hold(t, "stream", "bob");
  await eventually(async () => (await tile(page, "Held requests").innerText()) === "1", "one is held");
  const bars = page.getByRole("table", { name: "Held requests and connections by transport" });
  assert.equal(await bars.getByRole("row", { name: "stream" }).getByRole("cell").first().innerText(), "1");
  const pushing = setInterval(() => server.push({ to: "bob", from: "ann", body: 1 }).catch(() => {}), 50);
  t.after(() => clearInterval(pushing));
  for (const name of ["Messages pushed", "Messages delivered"]) {
    await eventually(async () => parseFloat(await tile(page, name).innerText()) > 1, name);
  }
  assert.ok((await page.locator(".curve .line").first().getAttribute("d"))?.includes("L"));
  assert.match(await tile(page, "Disk free").innerText(), /[KMGT]B$/);

  // A server that is gone is told, and so is that it is back.
  clearInterval(pushing);
  leave();
  await server.stop("SIGKILL");
  await page.getByText(/^No answer since/).waitFor();
  await server.start();
  await page.getByText("The server accepts messages.").waitFor();
});

test("a server that counts anew has no rate below nothing", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  const page = await openPage(t, browser);
  let asked = 0;
  await page.route("**/v1/status", async (route) => {
    const status = await (await route.fetch()).json();
    status.delivered = 1_000_000 - 1000 * asked++;
    await route.fulfill({ json: status });
  });
  await page.goto(server.admin);
  await page.getByLabel("Admin key").fill(server.key);
  await page.keyboard.press("Enter");
  // One to sign in, two that are shown, and the last of them is.
  await eventually(() => asked >= 4, "asked again and again");
  assert.match(await tile(page, "Messages delivered").innerText(), /^–/);
  assert.match(await tile(page, "Messages pushed").innerText(), /^0/);
});

test("a user is looked up: devices, conversations, history, inbox", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  await server.group("team/1", ["bob", "ann"]);
  const direct = Array.from({ length: 60 }, (_, index) => ({ to: "bob", from: "ann", body: { text: `note ${index + 1}` } }));
  await server.push(...direct, { group: "team/1", from: "ann", body: "to the team" });
  const page = await signIn(t, browser, server);

  await lookUp(page, "Users", "User name", "bob");
  await page.getByText("Not connected.").waitFor();
  await page.getByRole("row", { name: "team/1 group to the team" }).waitFor();
  await page.getByRole("link", { name: "ann", exact: true }).click();
  const history = page.getByRole("region", { name: "Messages of ann" }).getByRole("row");
  await eventually(async () => (await history.count()) === 51, "the newest page and a head");
  await page.getByRole("button", { name: "Older messages" }).click();
  await eventually(async () => (await history.count()) === 61, "all of it");
  assert.equal(await page.getByRole("button", { name: "Older messages" }).isVisible(), false);
  const bodies = await page.locator("td .preview").allInnerTexts();
  assert.deepEqual(bodies.filter((body) => body.startsWith("note")).slice(-60), direct.map(({ body }) => body.text).reverse());

  await page.getByRole("button", { name: "Read a page" }).click();
  await page.getByRole("button", { name: "Next page" }).click();
  await page.getByRole("cell", { name: "to the team" }).nth(1).waitFor();
  await page.getByRole("button", { name: "Next page" }).waitFor({ state: "detached" });

  await server.hold(t, "sse", "bob");
  await page.getByRole("button", { name: "Look up" }).click();
  await page.getByRole("cell", { name: "sse", exact: true }).waitFor();
  // A name may have what separates the parts of an address.
  await lookUp(page, "Groups", "Group name", "team/1");
  await page.getByRole("heading", { name: "Group team/1" }).waitFor();
});

test("a group and a message are looked up, and refusals are told as the server tells them", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  const members = Array.from({ length: 250 }, (_, index) => `member ${String(index).padStart(3, "0")}`);
  await server.group("team", members);
  await server.push(...Array.from({ length: 15 }, (_, index) => ({ group: "team", from: "ann", body: `line ${index + 1}` })));
  await server.push({ to: "bob", from: "ann", body: { deep: ["<b>", 1] } });
  const page = await signIn(t, browser, server, { allowed: REFUSED });

  await lookUp(page, "Groups", "Group name", "team");
  const rows = page.getByRole("region", { name: "Messages of the group" }).getByRole("row");
  await eventually(async () => (await rows.count()) === 11, "the last ten and a head");
  await page.getByRole("button", { name: "Older messages" }).click();
  await eventually(async () => (await rows.count()) === 16, "all fifteen");
  assert.equal(await page.locator(".names li").count(), 200);
  await page.getByRole("button", { name: "More members" }).click();
  assert.equal(await page.locator(".names li").count(), members.length);
  await page.getByRole("link", { name: "group 15" }).click();
  await page.getByRole("heading", { name: "group 15" }).waitFor();
  await page.getByRole("link", { name: "group 14" }).click();
  await page.getByRole("heading", { name: "group 14" }).waitFor();
  await page.goBack();
  await page.getByRole("heading", { name: "group 15" }).waitFor();

  await page.getByLabel("Sequence").selectOption("direct");
  await page.getByLabel("Id", { exact: true }).fill("1");
  await page.keyboard.press("Enter");
  await eventually(async () => {
    const [body] = await page.getByLabel("Body as JSON").allInnerTexts();
    return body?.includes('"<b>"');
  }, "the body is text");

  // Numbers are shown as they were sent, though a script could not hold them.
  await fetch(`${server.admin}/v1/direct/bob/messages`, {
    method: "POST",
    headers: { authorization: `Bearer ${server.key}` },
    body: '{"from":"ann","body":{"n":12345678901234567890, "x":1.0}}',
  });
  await page.getByLabel("Id", { exact: true }).fill("2");
  await page.keyboard.press("Enter");
  await page.getByText('{"n":12345678901234567890, "x":1.0}').waitFor();

  for (const [id, told] of [["99", "404 message_not_found"], ["no", "An id is a whole number of at least 1"]]) {
    await page.getByLabel("Id", { exact: true }).fill(id);
    await page.keyboard.press("Enter");
    await page.getByRole("alert").getByText(told).waitFor();
  }
  // Of a group only its own messages, though others came between.
  await server.group("crew", ["bob"]);
  await server.push(...["crew", "team", "crew"].map((group) => ({ group, from: "ann", body: `to the ${group}` })));
  await lookUp(page, "Groups", "Group name", "crew");
  await page.getByRole("heading", { name: "Group crew" }).waitFor();
  assert.deepEqual(await page.locator("#group-found .preview").allInnerTexts(), ["to the crew", "to the crew"]);
  await lookUp(page, "Groups", "Group name", "nobody");
  await page.getByRole("alert").getByText("404 group_not_found").waitFor();
});

test("a message is pushed to a user or a group, as text or JSON, and a repeat is told", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  await server.group("team", ["bob"]);
  const page = await signIn(t, browser, server, { allowed: REFUSED });
  await go(page, "Push");
  const push = page.getByRole("button", { name: "Push", exact: true });
  const body = page.getByLabel("Body", { exact: true });
  await push.click();
  assert.equal(await page.evaluate(() => document.activeElement?.id), "push-to", "what is missing is shown");

  await page.getByLabel("User", { exact: true }).fill("bob");
  await page.getByLabel("From").fill("ops");
  await body.fill('a "text"\nof two lines');
  await page.getByLabel("Idempotency key").fill("k1");
  await push.click();
  await page.getByText("Stored as direct 1.").waitFor();
  await push.click();
  await page.getByText("Already stored as direct 1.").waitFor();
  await body.fill("another");
  await push.click();
  await page.getByRole("alert").getByText("422 idempotency_conflict").waitFor();

  await page.getByLabel("Idempotency key").fill("");
  await page.getByLabel("JSON").check();
  await body.fill("{ not json");
  await push.click();
  await page.getByRole("alert").getByText("The body is not JSON").waitFor();
  await page.getByLabel("a group").check();
  await page.getByLabel("Group", { exact: true }).fill("nobody");
  await body.fill('{"n": 1.0}');
  await push.click();
  await page.getByRole("alert").getByText("404 group_not_found").waitFor();
  await page.getByLabel("Group", { exact: true }).fill("team");
  await push.click();
  await page.getByText("Stored as group 1.").waitFor();
  const bodies = (await server.inbox("bob")).map((message) => message.body);
  assert.deepEqual(bodies, ['a "text"\nof two lines', { n: 1 }]);
});

test("what is no longer kept of a group hides nothing else of it, and a refusal is told once", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  await server.group("team", ["bob"]);
  await server.push(...Array.from({ length: 25 }, (_, index) => ({ group: "team", from: "ann", body: `line ${index + 1}` })));
  const page = await signIn(t, browser, server, { allowed: /the server responded with a status of (404|503)/ });
  const problem = { status: 404, code: "message_not_found", title: "There is no such message" };
  const gone = (/** @type {RegExp} */ ids) =>
    page.route(
      (url) => ids.test(url.pathname),
      (route) => route.fulfill({ status: 404, contentType: "application/problem+json", body: JSON.stringify(problem) }),
    );
  await gone(/\/v1\/messages\/group\/[1-3]$/);
  await lookUp(page, "Groups", "Group name", "team");
  const rows = page.getByRole("region", { name: "Messages of the group" }).getByRole("row");
  const older = page.getByRole("button", { name: "Older messages" });
  await older.click();
  await eventually(async () => (await rows.count()) === 21, "two pages and a head");
  await older.click();
  await eventually(async () => (await rows.count()) === 23, "down to the last that is kept");
  await page.getByText("Older messages are no longer kept.").waitFor();
  await older.waitFor({ state: "hidden" });

  await gone(/\/v1\/messages\/group\/\d+$/);
  await page.getByRole("button", { name: "Look up" }).click();
  await page.getByText("Older messages are no longer kept.").waitFor();
  await page.getByRole("link", { name: "bob", exact: true }).waitFor();

  let refusals = 2;
  await page.route("**/v1/users/bob/groups/team/messages?*before*", (route) =>
    refusals-- > 0 ? route.fulfill({ status: 503, body: "" }) : route.continue(),
  );
  for (let round = 0; round < 3; round++) await server.push(...Array.from({ length: 25 }, () => ({ group: "team", from: "ann", body: "more" })));
  await page.getByRole("link", { name: "bob", exact: true }).click();
  await page.getByRole("link", { name: "team", exact: true }).click();
  for (let round = 0; round < 2; round++) {
    await older.click();
    await eventually(() => refusals === 1 - round);
    await page.getByRole("alert").getByText("Status 503").waitFor();
    assert.equal(await page.getByRole("alert").getByText("Status 503").count(), 1);
  }
  await older.click();
  await eventually(async () => (await page.getByRole("region", { name: "Messages of team" }).getByRole("row").count()) > 51, "more of them");
  assert.equal(await page.getByRole("alert").getByText("Status 503").count(), 0);
});

test("a key that is no longer good is asked for again, and nothing that was shown stays", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  await server.push({ to: "bob", from: "ann", body: "secret" });
  const page = await signIn(t, browser, server, { allowed: REFUSED });
  await lookUp(page, "Users", "User name", "bob");
  await page.getByText("secret").waitFor();
  await page.route("**/v1/status", (route) => route.fulfill({ status: 401, contentType: "application/problem+json", body: "{}" }));
  await go(page, "Overview");
  await page.getByRole("alert").getByText("The key is no longer valid.").waitFor();
  assert.ok(!(await page.content()).includes("secret"));
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
});

test("what is answered after signing out is not shown", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  await server.push({ to: "bob", from: "ann", body: "secret" });
  const page = await signIn(t, browser, server);
  /** @type {import("playwright-core").Route[]} */
  const asked = [];
  await page.route("**/v1/messages/direct/1", (route) => void asked.push(route));
  await go(page, "Messages");
  await page.getByLabel("Id", { exact: true }).fill("1");
  await page.keyboard.press("Enter");
  await eventually(() => asked.length > 0, "the message is asked for");
  await page.getByRole("button", { name: "Sign out" }).click();
  const answer = page.waitForResponse("**/v1/messages/direct/1");
  await asked[0].continue();
  await (await answer).finished();
  await page.evaluate(() => new Promise((done) => setTimeout(done)));
  assert.ok(!(await page.content()).includes("secret"));
});

test("the page works below a prefix of a proxy", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  const url = await startPrefixProxy(t, "/push/admin/", server.admin);
  const page = await openPage(t, browser);
  await page.goto(url);
  await enter(page, server);
  await go(page, "Push");
  await page.getByLabel("User", { exact: true }).fill("bob");
  await page.getByLabel("From").fill("ann");
  await page.getByLabel("Body", { exact: true }).fill("below a prefix");
  await page.getByRole("button", { name: "Push", exact: true }).click();
  await page.getByRole("link", { name: "direct 1" }).click();
  await page.getByText('"below a prefix"').waitFor();
  await lookUp(page, "Users", "User name", "bob");
  await page.getByRole("link", { name: "ann", exact: true }).click();
  await page.getByRole("region", { name: "Messages of ann" }).waitFor();
  await page.getByRole("button", { name: "Read a page" }).click();
  await page.getByRole("region", { name: "Messages of the inbox" }).waitFor();
  assert.ok(page.url().startsWith(url));
});

test("a conversation opens in sight, also the last of a long list, and has an address", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  const many = Array.from({ length: 50 }, (_, index) => ({ to: "bob", from: `user/${index}`, body: `from ${index}` }));
  await server.push(...many);
  const page = await signIn(t, browser, server);
  await lookUp(page, "Users", "User name", "bob");
  const opened = async (/** @type {number} */ index) => {
    const heading = page.getByRole("heading", { name: `Messages of user/${index}, newest first` });
    await heading.waitFor();
    await eventually(
      () => heading.evaluate((node) => node === document.activeElement && node.getBoundingClientRect().top >= 0 && node.getBoundingClientRect().bottom <= innerHeight),
      "it has the focus and is in the window",
    );
  };
  await page.getByRole("link", { name: "user/49", exact: true }).click();
  await opened(49);
  await page.getByRole("link", { name: "user/0", exact: true }).click();
  await opened(0);
  // Back and forward, by way of a message and of another section.
  const address = page.url();
  await page.getByRole("region", { name: "Messages of user/0" }).getByRole("link", { name: "direct 1" }).click();
  await page.getByLabel("Body as JSON").waitFor();
  assert.match(await page.locator("#message-found").innerText(), /Number\s+1 of its conversation/);
  await page.goBack();
  await opened(0);
  assert.equal(page.url(), address);
  await go(page, "Overview");
  await go(page, "Users");
  await opened(0);
  assert.equal(page.url(), address, "the section is where it was left");
  await page.goBack();
  await page.goBack();
  await page.goBack();
  await opened(49);
  await page.reload();
  await opened(49);
  // An address without a name shows nobody.
  await page.goto(`${server.admin}/#users`);
  await eventually(async () => (await page.locator("#user-found").innerText()) === "", "nobody");
  assert.equal(await page.getByLabel("User name").inputValue(), "");
});

test("a group without a message is a conversation like others", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  await server.group("silent", ["bob"]);
  await server.push({ to: "bob", from: "ann", body: "beside it" });
  const page = await signIn(t, browser, server);
  await lookUp(page, "Users", "User name", "bob");
  await page.getByRole("row", { name: "silent group no message yet" }).waitFor();
  await page.getByRole("row", { name: "ann user beside it" }).waitFor();
  await page.getByRole("link", { name: "silent", exact: true }).click();
  await page.getByText("No messages.").waitFor();
});

test("what is no longer known of a server is not shown as its present state", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  const page = await signIn(t, browser, server, { allowed: /ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/ });
  await eventually(async () => (await tile(page, "Connections").innerText()) !== "–", "known");
  const values = page.locator(".tile .value");
  const unknown = async () => (await values.allInnerTexts()).every((text) => text === "–");
  const known = async () => /^\d/.test(await tile(page, "Connections").innerText());
  await server.stop("SIGKILL");
  await eventually(unknown, "all are unknown");
  assert.match(await page.locator(".tile", { hasText: "Disk free" }).locator(".note").innerText(), /^[\d.,]+ [KMGT]?B at .*\d/);
  assert.match(await page.locator("#held").innerText(), /^Unknown since .*\d/);
  assert.match(await page.locator("#facts").innerText(), /Unknown since .*\d/);
  assert.match(await page.locator("#asked").innerText(), /^last answer .*\d/);
  await server.start();
  await eventually(known, "known again");

  // A server that takes the request and says nothing is no different.
  await page.route("**/v1/status", () => {});
  await eventually(unknown, "all are unknown", 15_000);
  await page.getByText(/^No answer since .*slow to answer/).waitFor();
});

test("a nested body is shown without an indentation of megabytes, and breaks no list", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  const nested = (/** @type {number} */ depth, content = "") => "[".repeat(depth) + content + "]".repeat(depth);
  const small = { flat: [1, { x: '[[["\\"[[[' }, []] };
  const bodies = [nested(60, `${"1,".repeat(15_000)}1`), nested(3000), `{"a":${nested(30_000)}}`, JSON.stringify(small)];
  await server.push(...bodies.map(() => ({ to: "bob", from: "ann", body: "x" })));
  const page = await signIn(t, browser, server);
  // A log may hold what the server no longer takes.
  const answer = async (/** @type {import("playwright-core").Route} */ route) => {
    const text = await (await route.fetch()).text();
    const body = text.replaceAll(/"id":(\d+)(.*?)"body":"x"/g, (_, id, between) => `"id":${id}${between}"body":${bodies[id - 1]}`);
    await route.fulfill({ contentType: "application/json", body });
  };
  await page.route(/\/(messages|conversations|inbox)[/?]/, answer);
  await lookUp(page, "Users", "User name", "bob");
  await page.getByRole("link", { name: "ann", exact: true }).click();
  await eventually(async () => (await page.getByRole("region", { name: "Messages of ann" }).getByRole("row").count()) === 5, "the list");
  for (const [index, body] of bodies.entries()) {
    await page.goto(`${server.admin}/#messages/direct/${index + 1}`);
    await page.getByRole("heading", { name: `direct ${index + 1}` }).waitFor();
    const shown = await page.getByLabel("Body as JSON").evaluate((node) => node.textContent);
    assert.ok(shown === (index === 3 ? JSON.stringify(small, null, 2) : body), `body ${index + 1} has ${shown?.length} characters`);
  }
});

test("eight tiles fill their rows on every screen", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  const page = await signIn(t, browser, server);
  for (const width of [360, 700, 900, 1024, 1280, 1600, 2560]) {
    await page.setViewportSize({ width, height: 800 });
    const tops = await page.locator(".tile").evaluateAll((tiles) => tiles.map((tile) => Math.round(tile.getBoundingClientRect().top)));
    const lengths = new Set(tops.map((top) => tops.filter((other) => other === top).length));
    assert.equal(lengths.size, 1, `${width} px: ${tops}`);
  }
});

test("names and texts from right to left do not turn what stands beside them", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  const [name, text] = ["דניאל", "שלום, world!"];
  await server.push({ to: "bob", from: name, body: text });
  const page = await signIn(t, browser, server);
  await lookUp(page, "Users", "User name", "bob");
  await page.getByRole("link", { name, exact: true }).click();
  await page.getByRole("region", { name: `Messages of ${name}` }).waitFor();
  const direction = (/** @type {import("playwright-core").Locator} */ place) => place.evaluate((node) => getComputedStyle(node).direction);
  assert.equal(await direction(page.locator("td .preview").last()), "rtl");
  assert.equal(await direction(page.locator("h4 bdi")), "rtl");
  assert.equal(await direction(page.locator("h4")), "ltr");
  await page.getByLabel("User name").fill(name);
  assert.equal(await direction(page.getByLabel("User name")), "rtl");
});

for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
  test(`what stands in empty fields can be read, ${colorScheme}`, async (t) => {
    const browser = await openBrowser(t);
    const server = await startServer(t);
    const page = await signIn(t, browser, server, { colorScheme });
    await lookUp(page, "Users", "User name", "bob");
    const contrast = await placeholderContrast(page.getByLabel("After the cursor"));
    assert.ok(contrast >= 4.5, `${contrast}:1`);
  });
}
