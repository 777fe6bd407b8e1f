// One of Node's libraries, with its usual settings, reads the inbox of a token and prints each body as a line of JSON, until
// the body "end". Arguments: the library, the server's address, the query.

import { createRequire } from "node:module";

const [name, url, query] = process.argv.slice(2);
const load = createRequire(`${process.env.WORK}/node/`);
const sse = `${url}/v1/inbox/sse?${query}`;

function show({ body }) {
  console.log(JSON.stringify(body));
  if (body === "end") process.exit();
}

const clients = {
  "event-source-polyfill"() {
    const { EventSourcePolyfill } = load("event-source-polyfill");
    const source = new EventSourcePolyfill(sse);
    source.onmessage = ({ data }) => show(JSON.parse(data));
  },
  eventsource() {
    const { EventSource } = load("eventsource");
    const source = new EventSource(sse);
    source.onmessage = ({ data }) => show(JSON.parse(data));
  },
  async "eventsource-parser"() {
    const { createParser } = load("eventsource-parser");
    const parser = createParser({ onEvent: ({ event, data }) => event ?? show(JSON.parse(data)) });
    const decoder = new TextDecoder();
    for await (const bytes of (await fetch(sse)).body) parser.feed(decoder.decode(bytes, { stream: true }));
  },
  ws() {
    const WebSocket = load("ws");
    const socket = new WebSocket(`${url.replace("http", "ws")}/v1/inbox/ws?${query}`);
    socket.on("message", (frame) => JSON.parse(frame).messages.forEach(show));
  },
};
await clients[name]();
