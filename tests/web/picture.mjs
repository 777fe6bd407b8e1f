// Makes docs/demo.png anew, the picture of the chat page in the README: `node tests/web/picture.mjs`.

import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { chat, join, message, startChat, startDemo, write } from "./pages.mjs";
import { openBrowser } from "./support.mjs";

const FILE = fileURLToPath(new URL("../../docs/demo.png", import.meta.url));
// A page of two columns, as wide as the README shows it.
const SIZE = { viewport: { width: 760, height: 570 }, deviceScaleFactor: 1.25 };

test("a group conversation, unread chats and the choice of the transport", async (t) => {
  const browser = await openBrowser(t);
  const demo = await startDemo(t);
  const ann = await join(t, browser, demo, "ann", SIZE);
  const bob = await join(t, browser, demo, "bob");
  const carol = await join(t, browser, demo, "carol");

  const bot = { group: "everyone", from: "deploy-bot", body: { text: "halley.example: version 0.2.0 is live" } };
  await write(ann, "Is it up?");
  await message(bob, "Is it up?").waitFor();
  await write(bob, "Since this morning. Every message so far is on its disk.");
  await message(ann, "Since this morning. Every message so far is on its disk.").waitFor();
  await demo.push([bot]);
  await message(ann, bot.body.text).waitFor();
  await write(ann, "And if my phone was offline?");
  await message(bob, "And if my phone was offline?").waitFor();
  await write(bob, "It asks again with its cursor, and gets exactly the rest.");
  await message(ann, "It asks again with its cursor, and gets exactly the rest.").waitFor();
  await startChat(carol, "ann");
  await write(carol, "Lunch at 12:30?");
  await chat(ann, "carol").getByText("1 unread message").waitFor();
  await startChat(bob, "ann");
  await write(bob, "Look at the timing of this one");
  await chat(ann, "bob").getByText("1 unread message").waitFor();
  await ann.screenshot({ path: FILE, animations: "disabled" });
});
