// A chat app's backend: logs people in, gives them tokens, keeps rooms, sends. Node 20, no packages.
// HALLEY_ADMIN_KEY=$(cat data/admin.key) node examples/chat/backend.mjs
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";

const { HALLEY_ADMIN = "http://127.0.0.1:8000", HALLEY_ADMIN_KEY, PORT = 3000 } = process.env;
const { HALLEY_URL = "http://127.0.0.1:8100" } = process.env; // where browsers find Halley
const sessions = new Map(); // cookie -> user; your app has its own accounts and sessions

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function halley(method, path, body, headers) {
  const reply = await fetch(HALLEY_ADMIN + path, {
    method,
    headers: { authorization: `Bearer ${HALLEY_ADMIN_KEY}`, ...headers },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(30_000),
  });
  const answer = await reply.json();
  if (!reply.ok) throw new Refused(reply.status, answer.detail);
  return answer;
}

function check(value, pattern, rule) {
  if (typeof value === "string" && pattern.test(value)) return value;
  throw new Refused(400, rule);
}
const nameOf = (value) => check(value, /^[\w-]{1,32}$/, "a name has 1 to 32 letters, digits, - and _");

const routes = {
  "GET /": async () => readFile(new URL("index.html", import.meta.url)),
  "GET /session": async ({ user }) => ({ user: user ?? null, halley: HALLEY_URL }),
  // halley.js asks for it again before it expires.
  "GET /token": async ({ user }) => Buffer.from((await halley("POST", "/v1/tokens", { user, ttl_s: 3600 })).token),
  "POST /login": async ({ body, reply }) => {
    const cookie = randomBytes(24).toString("base64url");
    sessions.set(cookie, nameOf(body.user)); // your app checks a password here
    reply.setHeader("set-cookie", `session=${cookie}; HttpOnly; SameSite=Strict; Path=/`);
    return {};
  },
  // Makes the room if there is none, and joins it.
  "POST /rooms": async ({ user, body }) => {
    const room = nameOf(body.room);
    await halley("PUT", `/v1/groups/${room}`, {});
    return halley("PUT", `/v1/groups/${room}/members/${user}`);
  },
  "POST /messages": async ({ user, body: { room, to, text, key } }) => {
    if (room && !(await halley("GET", `/v1/groups/${nameOf(room)}`)).members.includes(user)) {
      throw new Refused(403, "join the room first");
    }
    const path = room ? `/v1/groups/${room}/messages` : `/v1/direct/${nameOf(to)}/messages`;
    check(text, /^.{1,4000}$/su, "a text has 1 to 4000 characters");
    const headers = { "idempotency-key": `${user}-${check(key, /^[\w-]{1,64}$/, "a key has 1 to 64 letters, digits, - and _")}` }; // repeated, it is stored once
    return halley("POST", path, { from: user, body: { text } }, headers);
  },
};

createServer(async (request, reply) => {
  try {
    const route = routes[`${request.method} ${request.url}`];
    if (!route) throw new Refused(404, "there is no such page");
    const user = sessions.get(/session=([\w-]+)/.exec(request.headers.cookie)?.[1]);
    if (!user && !["/", "/session", "/login"].includes(request.url)) throw new Refused(401, "log in first");
    let text = "";
    for await (const piece of request) if ((text += piece).length > 65536) throw new Refused(413, "too long");
    const answer = await route({ user, reply, body: JSON.parse(text || "{}") });
    if (request.url === "/") reply.setHeader("content-type", "text/html; charset=utf-8");
    reply.end(Buffer.isBuffer(answer) ? answer : JSON.stringify(answer));
  } catch (error) {
    reply.statusCode = error.status ?? (error instanceof SyntaxError ? 400 : 503);
    reply.end(JSON.stringify({ error: error.message }));
  }
}).listen(PORT, "127.0.0.1");
