// A program that uses the client, for the type checker alone: what its users write must be right, and what
// they get wrong must be found.

import { Halley, HalleyError, type Message, type Options, type Transport } from "../../src/web/client/halley.js";
import * as client from "../../src/web/client/halley.js";

interface Chat {
  text: string;
}

const options: Options = {
  url: new URL("https://push.example/halley/"),
  token: async () => (await fetch("/token")).text(),
  transport: "auto",
  storage: localStorage,
  onReset: ({ code, restart }) => (code === "log_unknown" && restart ? "restart" : "stop"),
};
const halley: Halley = new Halley(options);
const off: () => void = halley.on("message", async (message, cursor) => {
  const text: string = message.body.text + cursor.length;
  console.log(text, message.sequence === "group" ? message.group : message.to);
});
halley.on("state", ({ state, transport, error, retryInMs }) => console.log(state, transport, error?.code, retryInMs));
halley.on("reset", ({ code, restart }) => console.log(code, restart));
halley.on("gap", ({ after, before, complete }) => console.log(after + before, complete));
halley.on("error", (error: HalleyError) => console.log(error.code, error.status, error.detail, error.fatal));
halley.start();
const transport: Transport | undefined = halley.transport;
halley.setTransport(transport ?? "auto");
off();

export async function chat(): Promise<number> {
  for await (const message of halley.messages<Chat>()) {
    const chat: Message<Chat> = message;
    if (chat.body.text === "bye") await halley.stop();
  }
  const receipt = await halley.send({ to: "bob", body: { text: "hi" }, timeout: 5 });
  const page = await halley.history({ group: "team", before: receipt.id, signal: AbortSignal.timeout(5) });
  const { conversations, next } = await halley.conversations({ before: "x" });
  return page.messages.length + (conversations[0]?.last.id ?? 0) + (next ?? "").length;
}

// @ts-expect-error there is no such event
halley.on("massage", () => {});
// @ts-expect-error there is no such transport
halley.setTransport("pigeon");
// @ts-expect-error a body is needed
void halley.send({ to: "bob" });
// @ts-expect-error a token is needed
new Halley({ url: "https://push.example" });
// @ts-expect-error what is for tests of the parts is no interface
client.parseCursor("1.1");
