// icomet's way of crossing origins: script tags whose text calls a function of the page. The page below polls
// as icomet.js does, without jQuery.

import assert from "node:assert/strict";
import { test } from "node:test";
import { openBrowser, servePages, startServer } from "./support.mjs";

const MESSAGES = 50;

const PAGE = `<!doctype html><title>icomet</title><link rel="icon" href="data:,"><script>
var got = [], replays = 0, failures = 0;
function subscribe(url, cname, token, next) {
  var noop = 0, calls = 0;
  function poll() {
    var name = "icomet_cb_" + calls++;
    var script = document.createElement("script");
    window[name] = function (reply) {
      delete window[name];
      script.remove();
      if (Array.isArray(reply)) replays += 1;
      [].concat(reply).forEach(take);
      poll();
    };
    script.onerror = function () { failures += 1; setTimeout(poll, 200); };
    script.src = url + "/sub?cb=" + name + "&cname=" + cname + "&seq=" + next + "&noop=" + noop +
      "&token=" + token + "&_=" + Date.now() + "&callback=jQuery1_" + calls + "&_=" + Date.now();
    document.head.appendChild(script);
  }
  function take(object) {
    if (object.type === "data" || object.type === "broadcast") {
      got.push([object.seq, object.content]);
      next = object.seq + 1;
    } else if (object.type === "next_seq") {
      next = object.seq;
    } else if (object.type === "noop" && object.seq === noop) {
      noop += 1;
    }
  }
  poll();
}
</script>`;

test("a page of another origin polls by script tags and gets every message in order", async (t) => {
  const origin = await servePages(t, { "/": PAGE });
  const server = await startServer(t, { args: ["--icomet"] });
  const contents = Array.from({ length: MESSAGES }, (_, n) => `n${n} \u2028 "ü" </script>`);
  const push = (/** @type {string} */ content) =>
    fetch(`${server.admin}/push?cname=J%C3%BCrgen&content=${encodeURIComponent(content)}`, {
      headers: { authorization: `Bearer ${server.key}` },
    }).then(async (reply) => assert.equal(await reply.text(), '{"type":"ok"}\n'));
  // Some are there before the page is, some come one by one, some at once.
  for (const content of contents.slice(0, 10)) await push(content);
  const page = await (await openBrowser(t)).newPage();
  /** @type {string[]} */
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (line) => line.type() === "error" && faults.push(line.text()));
  await page.goto(origin);
  const token = await server.token("Jürgen", { send: false });
  // The browser encodes the name, as the page does not.
  await page.evaluate(
    ([url, token]) => {
      // @ts-expect-error a function of the page
      subscribe(url, "Jürgen", token, 1);
    },
    [server.url, token],
  );
  const count = (/** @type {number} */ least) =>
    page.waitForFunction((least) => /** @type {any} */ (window).got.length >= least, least);
  await count(10);
  for (const content of contents.slice(10, 30)) {
    await push(content);
    if (content.startsWith("n15")) await count(16);
  }
  await count(30);
  for (const content of contents.slice(30)) await push(content);
  await count(MESSAGES);
  const [got, replays, failures] = await page.evaluate(() => {
    const { got, replays, failures } = /** @type {any} */ (window);
    return [got, replays, failures];
  });
  assert.deepEqual(
    got,
    contents.map((content, n) => [n + 1, content]),
  );
  assert.ok(replays >= 1, "what was there before came as an array");
  assert.equal(failures, 0);
  assert.deepEqual(faults, []);
});
