// The client's own types are right, its description fits what it does, it is joined from its modules, and its package
// has the right files.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { joined } from "../../src/web/client/join.mjs";
import { CLIENT } from "./support.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const FLAGS = "--ignoreConfig --strict --target es2022 --module nodenext --lib es2023,dom,dom.iterable --types node".split(" ");
const run = promisify(execFile);
/** Fails with what the type checker says. @param {string[]} args */
const tsc = (...args) =>
  run(process.execPath, [join(HERE, "node_modules/typescript/bin/tsc"), ...args], { cwd: HERE }).catch(
    ({ stdout, stderr }) => assert.fail(`tsc ${args.join(" ")}\n${stdout}${stderr}`),
  );

describe("types", { concurrency: true }, () => {
  test("the client, and a program that uses its description", async () => {
    await tsc("-p", ".");
  });

  test("the description has the members that the client has", async (t) => {
    const made = mkdtempSync(join(HERE, "node_modules/.made-"));
    t.after(() => rmSync(made, { recursive: true }));
    await tsc(
      ...[join(CLIENT, "src/halley.js"), "--allowJs", "--declaration", "--emitDeclarationOnly", "--outDir", join(made, "src")],
      ...FLAGS,
    );
    copyFileSync(join(CLIENT, "halley.d.ts"), join(made, "halley.d.ts"));
    const program = `
      import type { Halley as Made, HalleyError as MadeError } from "./src/halley.js";
      import type { Halley as Told, HalleyError as ToldError } from "./halley.js";
      type Same<A, B> = [A, B] extends [B, A] ? true : false;
      export const members: Same<keyof Made, keyof Told> = true;
      export const fits = (made: Made): Told => made;
      export const errors: Exclude<keyof MadeError, keyof ToldError> extends "with" ? true : false = true;
      export const error = (made: MadeError): ToldError => made;
    `;
    writeFileSync(join(made, "compare.ts"), program);
    await tsc(join(made, "compare.ts"), "--noEmit", ...FLAGS);
  });

  test("halley.js is what its modules make when they are joined, and exports what is described", async () => {
    const text = readFileSync(join(CLIENT, "halley.js"), "utf8");
    assert.ok(text === joined(), "node src/web/client/join.mjs writes it");
    assert.ok(!/^ *import |\bimport\(|\brequire\(/m.test(text), "it stands alone");
    const client = await import("../../src/web/client/halley.js");
    assert.deepEqual(Object.keys(client).sort(), ["Halley", "HalleyError"]);
  });

  test("the package has what it needs and nothing else", async () => {
    const { stdout } = await run("npm", ["pack", "--dry-run", "--json"], { cwd: CLIENT });
    const [{ name, version, files }] = JSON.parse(stdout);
    assert.equal(name, "halley-client");
    assert.match(version, /^\d+\.\d+\.\d+$/);
    const paths = files.map((/** @type {{ path: string }} */ { path }) => path).sort();
    assert.deepEqual(paths, ["LICENSE", "README.md", "halley.d.ts", "halley.js", "package.json"]);
    assert.ok(readFileSync(join(CLIENT, "LICENSE")).equals(readFileSync(join(CLIENT, "../../../LICENSE"))), "one license");
  });
});
