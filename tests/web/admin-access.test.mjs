// The admin page for everybody: by screen reader, in light and dark, on a phone and a desktop.

import assert from "node:assert/strict";
import { test } from "node:test";
import { DESKTOP, PHONE, checkAccess, checkWidth, openPage } from "./pages.mjs";
import { openBrowser, startServer } from "./support.mjs";

/** What a browser writes when the server refuses, by intent. */
const REFUSED = /the server responded with a status of 4\d\d/;
const SECTIONS = ["Overview", "Users", "Groups", "Messages", "Push"];

for (const [screen, colorScheme, viewport] of /** @type {const} */ ([
  ["a light desktop", "light", DESKTOP],
  ["a dark phone", "dark", PHONE],
])) {
  test(`axe finds nothing in any section on ${screen}`, async (t) => {
    const browser = await openBrowser(t);
    const server = await startServer(t);
    await server.group("team", ["bob", "ann"]);
    await server.push({ to: "bob", from: "ann", body: "a word ".repeat(80) }, { group: "team", from: "ann", body: 1 });
    const page = await openPage(t, browser, { allowed: REFUSED, colorScheme, viewport, reducedMotion: "reduce" });
    const look = async (/** @type {string} */ what) => {
      const where = `${what}, ${screen}`;
      await checkAccess(page, where);
      await checkWidth(page, where);
    };
    await page.goto(server.admin);
    await page.getByLabel("Admin key").fill("wrong");
    await page.keyboard.press("Enter");
    await page.getByText("This is not the admin key.").waitFor();
    await look("sign in");
    await page.getByLabel("Admin key").fill(server.key);
    await page.keyboard.press("Enter");
    await page.getByText("The server accepts messages.").waitFor();
    for (const section of SECTIONS) {
      await page.getByRole("navigation").getByRole("link", { name: section }).click();
      await page.getByRole("heading", { level: 2 }).waitFor();
      await look(section);
    }
    await page.goto(`${server.admin}/#users/bob`);
    await page.getByRole("link", { name: "ann", exact: true }).click();
    await page.getByText("Messages of ann").waitFor();
    await page.getByRole("button", { name: "Read a page" }).click();
    await page.getByText("next ").waitFor();
    await look("a user");
    await page.goto(`${server.admin}/#groups/team`);
    await page.locator("#group-found td").first().waitFor();
    await look("a group");
    await page.goto(`${server.admin}/#messages/direct/1`);
    await page.getByLabel("Body as JSON").waitFor();
    await look("a message");
    await page.goto(`${server.admin}/#messages/direct/9`);
    await page.getByRole("alert").getByText("message_not_found").waitFor();
    await look("a refusal");
  });
}

test("huge numbers are shown whole on a phone", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  const page = await openPage(t, browser, { viewport: PHONE });
  await page.route("**/v1/status", async (route) => {
    const status = await (await route.fetch()).json();
    status.watermark = { direct: 2 ** 53 - 1, group: 2 ** 53 - 1 };
    status.connections = { client: 2_000_000_000, admin: 2_000_000_000 };
    Object.assign(status, { delivered: 2 ** 53 - 1, queued_bytes: 2 ** 63, disk_free_bytes: null });
    await route.fulfill({ json: status });
  });
  await page.goto(server.admin);
  await page.getByLabel("Admin key").fill(server.key);
  await page.keyboard.press("Enter");
  await page.getByText("18,014,398,509,481,982").waitFor();
  await page.getByText("9,223 PB").waitFor();
  const cut = await page.locator(".tile .value").evaluateAll((values) => values.filter((value) => value.scrollWidth > value.clientWidth).map((value) => value.textContent));
  assert.deepEqual(cut, []);
  await checkWidth(page, "the overview");
});

test("the longest names break nothing on a phone", async (t) => {
  const browser = await openBrowser(t);
  const server = await startServer(t);
  const [user, group] = ["W".repeat(128), "ק".repeat(64)];
  await server.group(group, [user]);
  await server.push({ to: user, from: user, body: "x" }, { group, from: user, body: "W".repeat(1000) });
  const page = await openPage(t, browser, { allowed: REFUSED, viewport: PHONE });
  await page.goto(`${server.admin}/#users/${user}/direct/${user}`);
  await page.getByLabel("Admin key").fill(server.key);
  await page.keyboard.press("Enter");
  await page.getByRole("region", { name: "Messages of W" }).waitFor();
  await checkWidth(page, "a user");
  await page.goto(`${server.admin}/#groups/${encodeURIComponent(group)}`);
  await page.getByRole("region", { name: "Messages of the group" }).waitFor();
  await checkWidth(page, "a group");
  await page.goto(`${server.admin}/#messages/group/1`);
  await page.getByLabel("Body as JSON").waitFor();
  await checkWidth(page, "a message");
  await page.goto(`${server.admin}/#groups/${user}`);
  await page.getByRole("alert").getByText("group_not_found").waitFor();
  await checkWidth(page, "a refusal");
});
