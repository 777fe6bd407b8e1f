#!/usr/bin/env node
// Joins the modules of src/ into halley.js: `node join.mjs`. Browsers and npm get one file, which the server has in
// itself, so the result is committed: who builds Halley needs cargo and no Node. A test compares the two.
//
// A bundler would be one more dependency, and would rename and reorder what people read at /halley.js. The modules
// keep to what a few lines can join: named imports without `as` from one another, one export a declaration, no circles.

import { readFileSync, writeFileSync } from "node:fs";

const HERE = new URL(".", import.meta.url);
const ENTRY = "halley.js";
const IMPORT = /^import \{[^}]*\} from "\.\/([\w-]+\.js)";\n/gm;
const EXPORT_FROM = /^export \{ (\w+) \} from "\.\/([\w-]+\.js)";\n/gm;
const TYPE_IMPORT = /^\/\*\* @import .* \*\/\n/gm;

/** What halley.js should be. */
export function joined() {
  const entry = read(ENTRY);
  const [header] = /** @type {RegExpExecArray} */ (/^\/\*\*[^]*?\*\/\n/.exec(entry));
  const exported = [...entry.matchAll(EXPORT_FROM)];
  /** @type {Map<string, string>} */
  const parts = new Map();
  for (const [, , name] of exported) add(name, parts);
  const names = exported.map(([, name]) => name).join(", ");
  const warning = "// Joined from src/ by join.mjs: change it there.\n";
  return [header + warning, ...parts.values(), `export { ${names} };\n`].join("\n");
}

/** Adds a module after those that it imports.
 * @param {string} name @param {Map<string, string>} parts @param {string[]} path of imports that led here */
function add(name, parts, path = []) {
  if (parts.has(name)) return;
  if (path.includes(name)) throw new Error(`src/${name}: imports in a circle: ${path.join(", ")}`);
  const text = read(name);
  for (const [, imported] of text.matchAll(IMPORT)) add(imported, parts, [...path, name]);
  const code = text
    .replace(TYPE_IMPORT, "")
    .replace(IMPORT, "")
    .replace(/^export (?=(async )?(function\*?|class|const|let) )/gm, "")
    .trim();
  const left = /^(import|export) .*/m.exec(code);
  if (left) throw new Error(`src/${name}: cannot join \`${left[0]}\``);
  parts.set(name, `// ---- ${name}\n\n${code}\n`);
}

/** @param {string} name */
const read = (name) => readFileSync(new URL(`src/${name}`, HERE), "utf8");

if (process.argv[1] === new URL(import.meta.url).pathname) writeFileSync(new URL("halley.js", HERE), joined());
