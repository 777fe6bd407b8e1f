// The page and the backend of the README, as they stand there.

import { spawn, spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { eventually, freePort, openBrowser, own, startServer } from "./support.mjs";

const README = readFileSync(new URL("../../README.md", import.meta.url), "utf8");

/** The code block of a language. @param {string} language */
function block(language) {
  const [, text] = README.split(`\`\`\`${language}\n`);
  return text?.split("```")[0] ?? "";
}

/** What the lines print. @param {string} lines @param {string} cwd */
const shell = (lines, cwd) => spawnSync("sh", ["-c", lines], { cwd, encoding: "utf8" }).stdout;

test("a push shows up on the page of the README, which has its token from the backend of the README", async (t) => {
  if (spawnSync("python3", ["--version"]).status !== 0) return t.skip("there is no python3");
  const port = await freePort();
  const server = await startServer(t, { args: ["--cors-origin", `http://127.0.0.1:${port}`] });
  const here = /** @param {string} text */ (text) =>
    text
      .replaceAll("http://127.0.0.1:8100", server.url)
      .replaceAll("http://127.0.0.1:8000", server.admin)
      .replaceAll("127.0.0.1:8000", new URL(server.admin).host)
      .replace('"127.0.0.1", 3000', `"127.0.0.1", ${port}`);
  const folder = dirname(server.data);
  writeFileSync(join(folder, "page.html"), here(block("html")));
  writeFileSync(join(folder, "backend.py"), here(block("python")));
  const backend = own(spawn("python3", ["backend.py"], { cwd: folder, stdio: "ignore" }));
  t.after(() => backend.kill());
  const page = await (await openBrowser(t)).newPage();
  const address = `http://127.0.0.1:${port}/`;
  await eventually(() => page.goto(address).catch(() => null), "the backend answers", 30_000);
  const push = block("sh").split("\n").find((line) => line.startsWith("curl ")) ?? "";
  shell(here(push), folder);
  await page.getByText("shop: Order 17 is on its way").waitFor();
});
