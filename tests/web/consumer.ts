// A program that uses the client, for the type checker alone: what its users write must be right, and what
// they get wrong must be found.

import { Halley, HalleyError, type Conversation, type GroupMessage, type Message, type Options, type Transport } from "../../src/web/client/halley.js";
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
  const where: string = message.sequence === "group" ? message.group : message.to;
  console.log(text, where);
});
halley.on("state", ({ state, transport, error, retryInMs }) => console.log(state, transport, error?.code, retryInMs));
halley.on("reset", ({ code, restart }) => console.log(code, restart));
halley.on("gap", (gap) => {
  const place: string = gap.sequence === "direct" ? gap.with : gap.group;
  console.log(place, gap.after + gap.before, gap.complete);
});
halley.on("error", (error: HalleyError) => console.log(error.code, error.status, error.detail, error.fatal));
halley.start();
const transport: Transport | undefined = halley.transport;
halley.setTransport(transport ?? "auto");
off();

export async function chat(): Promise<number> {
  for await (const message of halley.messages<Chat>()) {
    const chat: Message<Chat> = message;
    if (chat.body.text === "bye") await halley.stop();
    // An answer goes where the message came from.
    const receiver = chat.sequence === "group" ? { group: chat.group } : { to: chat.from };
    await halley.send({ ...receiver, body: chat.body });
  }
  const receipt = await halley.send({ to: "bob", body: { text: "hi" }, timeout: 5 });
  const page = await halley.history({ group: "team", before: receipt.id, signal: AbortSignal.timeout(5) });
  const { conversations, next } = await halley.conversations({ before: "x" });
  for (const { group, user, last } of conversations) if (group === undefined) console.log(user, last.id);
  return page.messages.length + (conversations[0]?.last?.id ?? 0) + (next ?? "").length;
}

// @ts-expect-error there is no such event
halley.on("massage", () => {});
// @ts-expect-error there is no such transport
halley.setTransport("pigeon");
// @ts-expect-error a body is needed
void halley.send({ to: "bob" });
// @ts-expect-error JSON has no `undefined`
void halley.send({ to: "bob", body: undefined });
// @ts-expect-error a receiver is needed
void halley.send({ body: 1 });
// @ts-expect-error one receiver, not two
void halley.send({ to: "bob", group: "team", body: 1 });
// @ts-expect-error a conversation or a group is needed
void halley.history({ limit: 5 });
// @ts-expect-error one bound, not two
void halley.history({ with: "bob", before: 9, after: 1 });
// @ts-expect-error a message of a group has no receiver
export const receiver = (message: GroupMessage): string => message.to;
// @ts-expect-error a message may be a direct one
export const group = (message: Message): string => message.group;
// @ts-expect-error a group may have no message yet
export const last = (conversation: Conversation): Message => conversation.last;
// @ts-expect-error a constructor is needed
new Halley({ token: "t", WebSocket: "ws" });
// @ts-expect-error a token is needed
new Halley({ url: "https://push.example" });
// @ts-expect-error what is for tests of the parts is no interface
client.parseCursor("1.1");
