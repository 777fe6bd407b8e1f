// The chat page of `halley demo`. Except for joining, it talks to the server only through halley.js.
// Texts of users become text nodes, never markup.

import { Halley } from "./halley.js";
import { Chats, PAGE, dayText, initialsOf, nameTrouble, sameDay, standsTogether, textOf, timeText, toneOf, whenText } from "./demo-chats.js";
import { linked, oneStop } from "./demo-nodes.js";
import { Times, millis } from "./demo-times.js";

const $ = (id) => document.getElementById(id);
const page = {
  app: $("app"), join: $("join"), chats: $("chats"), scroll: $("scroll"), messages: $("messages"),
  pending: $("pending"), text: $("text"), timing: $("timing"), jump: $("jump"),
};
/** The server, which may be below a prefix of a proxy, as this page is. */
const SERVER = new URL(".", location.href);
/** Where a tab keeps its user and what they have read. */
const KEPT = "halley-demo";
/** How near to the end of the list a reader is at its end, and how near to the beginning they want more. */
const END_PX = 80;
const BEGIN_PX = 600;
/** Most unread messages that are counted after a reload. */
const COUNTED = 100;

/** @type {Halley} */
let halley;
/** @type {Chats} */
let chats;
let times;
/** The chat that is shown. */
let shown = null;
let token = null;
let newBelow = 0;
let loadingOlder = false;

// ---- Who one is

async function join(user) {
  const reply = await fetch(new URL("demo/join", SERVER), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user }),
  });
  const answer = await reply.json();
  if (!reply.ok) throw new Error(answer.detail ?? answer.title);
  return answer;
}

function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT)) ?? {};
  } catch {
    return {};
  }
}

function keep() {
  const read = Object.fromEntries(chats.sorted().map((chat) => [chat.key, chat.read]));
  sessionStorage.setItem(KEPT, JSON.stringify({ user: chats.user, read }));
}

function askName(error = "") {
  page.app.hidden = true;
  page.join.hidden = false;
  $("join-error").textContent = error;
  $("join-name").focus();
}

$("join-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const user = $("join-name").value.trim();
  const trouble = nameTrouble(user);
  $("join-error").textContent = trouble;
  $("join-name").setAttribute("aria-invalid", String(trouble !== ""));
  if (trouble) return $("join-name").focus();
  await enter(user);
});

$("leave").addEventListener("click", () => {
  halley.stop();
  sessionStorage.removeItem(KEPT);
  location.assign(location.pathname);
});

/** Joins, reads what there is, and listens from there on. */
async function enter(user) {
  let joined;
  try {
    joined = await join(user);
  } catch (error) {
    $("join-name").value = user;
    return askName(`Cannot join: ${error.message}`);
  }
  token = joined.token;
  chats = new Chats(joined.user);
  times = new Times();
  for (const [key, id] of Object.entries(kept().user === user ? kept().read : {})) {
    const [kind, ...name] = key.split(":");
    chats.of(kind, name.join(":")).read = id;
  }
  halley = new Halley({ url: SERVER, token: freshToken, transport: $("transport").value, after: await here() });
  halley.on("message", receive);
  halley.on("state", () => {
    showState();
    if (halley.state === "live") catchUp();
  });
  halley.on("reset", startOver);
  halley.on("error", (error) => error.fatal && complain(`The connection has ended: ${reason(error)}`));
  $("me").textContent = chats.user;
  page.join.hidden = true;
  page.app.hidden = false;
  await list(joined.group);
  halley.start();
  showState();
}

async function freshToken() {
  const held = token ?? (await join(chats.user)).token;
  // It is given once; who asks again was refused with it, or it is about to end.
  token = null;
  return held;
}

/** The cursor of now: what comes after it is listened for, what is before it is listed. */
async function here() {
  try {
    const reply = await fetch(new URL("v1/inbox?after=now&wait=0", SERVER), { headers: { authorization: `Bearer ${token}` } });
    return reply.ok ? (await reply.json()).next : "now";
  } catch {
    // The network went just now: the client tells of it, and finds out itself.
    return "now";
  }
}

/** Reads the list of chats, and opens the one that was open, or that of everyone. */
async function list(group) {
  try {
    let before;
    do {
      const found = await halley.conversations({ limit: 200, before });
      for (const { user, group: name, last } of found.conversations) {
        const chat = name === undefined ? chats.of("direct", user) : chats.of("group", name);
        // A group may have no message that this user may see.
        if (last && (chat.last?.id ?? 0) < last.id) chat.last = last;
      }
      before = found.more ? found.next : undefined;
    } while (before);
    await Promise.all(chats.sorted().map(countUnread));
  } catch (error) {
    complain(`The list of chats could not be read: ${reason(error)}`);
  }
  const first = chats.get(shown?.key) ?? chats.of("group", group);
  shown = null;
  showChats();
  // A phone begins with the list, a wide screen shows both.
  await open(first, page.app.dataset.view);
}

/** Counts what came since the chat was last looked at; a group that is new to this tab has nothing unread. */
async function countUnread(chat) {
  if (!chat.last || chat.last.id <= chat.read) return;
  if (chat.isGroup && chat.read === 0) return chat.markRead();
  const { messages } = await halley.history({ ...chat.place, after: chat.read, limit: COUNTED });
  chat.unread = messages.filter((message) => message.from !== chats.user).length;
}

/** The server has another history than we knew: what is here may not be there. */
async function startOver() {
  const known = chats;
  const group = known.sorted().find((chat) => chat.isGroup)?.name;
  if (shown) shown.draft = page.text.value;
  chats = new Chats(known.user);
  shown = null;
  for (const { kind, name, pending, line, draft } of known.sorted()) {
    // What was not sent yet is still to be sent.
    if (pending.length > 0 || draft) Object.assign(chats.of(kind, name), { pending, line, draft });
  }
  complain("The server has restarted with new data. Earlier messages are gone.");
  await list(group);
}

// ---- The connection

const STATES = {
  idle: "Not connected",
  connecting: "Connecting…",
  live: "Live",
  waiting: "No connection, trying again…",
  stopped: "Offline",
};

function showState() {
  const { state } = halley;
  const live = state === "live";
  const text = live ? `Live over ${halley.transport}` : STATES[state];
  $("state").dataset.state = state;
  if ($("state-text").textContent !== text) $("state-text").textContent = text;
  $("line").textContent = state === "stopped" ? "Go online" : "Go offline";
  const banner = $("banner");
  banner.hidden = live || state === "connecting" || state === "idle";
  banner.textContent =
    state === "stopped"
      ? "You are offline. Messages are sent and received when you go online."
      : "There is no connection. Messages arrive when it is back.";
}

$("transport").addEventListener("change", (event) => {
  halley.setTransport(event.target.value);
  showState();
});

$("line").addEventListener("click", () => {
  if (halley.state === "stopped") halley.start();
  else halley.stop();
  showState();
});

// ---- What comes

/** What has come and is not shown yet. */
const arrived = [];

function receive(message) {
  arrived.push({ message, received: Date.now(), began: performance.now() });
  if (arrived.length > 1) return;
  // The next frame shows it, and all that comes until then. A page that nobody sees has no frames.
  if (document.visibilityState === "visible") requestAnimationFrame(showArrived);
  else setTimeout(showArrived);
}

function showArrived() {
  if (arrived.length === 0) return;
  const batch = arrived.splice(0);
  const end = atEnd();
  const onScreen = isOnScreen();
  const nodes = [];
  let [again, below, mineToo, heard] = [false, 0, false, null];
  for (const { message } of batch) {
    const chat = chats.ofMessage(message);
    const mine = message.from === chats.user;
    settle(chat, message);
    const newest = chat.messages.at(-1);
    if (!chat.add([message])) continue;
    if (chat === shown) {
      again ||= newest?.id > message.id;
      if (!again) nodes.push(...nodesOf(message, newest));
      below += 1;
      mineToo ||= mine;
    }
    if (!mine) {
      chat.unread += 1;
      heard = { chat, message };
    }
  }
  if (again) renderAll();
  else page.messages.append(...nodes);
  if (below > 0) showNews(end || mineToo, below, onScreen);
  if (heard) speak(heard.chat, heard.message, heard.chat === shown && onScreen);
  showChats();
  keep();
  painted(() => showTimes(batch));
}

/** The newest messages of the chat that is shown: in sight, or told of below. */
function showNews(inSight, count, onScreen) {
  showEmpty();
  if (inSight) toEnd();
  else showJump(newBelow + count);
  if (inSight && onScreen) shown.markRead();
}

function showTimes(batch) {
  const now = performance.now();
  const { transport } = halley;
  const samples = times.add(batch.map(({ message, received, began }) => ({ message, text: textOf(message), received, paint: now - began, transport })));
  for (const { message, total } of samples) {
    const took = total !== null && chats.ofMessage(message) === shown && page.messages.querySelector(`[data-id="${message.id}"] .took`);
    if (took) took.textContent = `${millis(total)} ms`;
  }
}

/** Calls when what was just changed is on the screen; a page that nobody sees is not painted. */
function painted(then) {
  if (document.visibilityState !== "visible") return;
  requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      then();
    };
    port2.postMessage(null);
  });
}

function speak(chat, message, visible) {
  const place = chat.isGroup ? ` in ${chat.name}` : "";
  const text = textOf(message);
  const said = visible ? `${message.from}: ${text}` : `New message from ${message.from}${place}: ${text}`;
  $("spoken").textContent = said.slice(0, 300);
}

// ---- What goes

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = page.text.value.trim();
  if (!shown || text === "") return page.text.focus();
  const body = { text, sent: Date.now(), key: newKey() };
  const waiting = { from: chats.user, at: body.sent, body, failed: "" };
  shown.pending.push(waiting);
  page.text.value = "";
  grow();
  renderPending();
  toEnd();
  page.text.focus();
  deliver(shown, waiting);
});

/** Sends it after what was written before it in this chat, so that all stays in order. */
function deliver(chat, waiting) {
  waiting.failed = "";
  waiting.held = false;
  chat.line = chat.line.then(() => send(chat, waiting));
}

async function send(chat, waiting) {
  // The client would send it nevertheless; but who went offline does not mean that.
  waiting.held = halley.state === "stopped";
  if (waiting.held) {
    if (chat === shown) renderPending();
    return;
  }
  try {
    const receipt = await halley.send({ ...chat.target, body: waiting.body, key: waiting.body.key });
    const { sequence, id, prev, at } = receipt;
    // It comes with the inbox too, perhaps later, perhaps it was first.
    const message = { sequence, id, prev, at, from: chats.user, ...chat.target, body: waiting.body };
    showArrived();
    settle(chat, message);
    const newest = chat.messages.at(-1);
    const end = atEnd();
    if (chat.add([message]) && chat === shown) {
      if (newest?.id > id) renderAll();
      else page.messages.append(...nodesOf(message, newest));
      showNews(end, 0, isOnScreen());
    }
    showChats();
    keep();
  } catch (error) {
    if (!chat.pending.includes(waiting)) return;
    waiting.held = error.code === "stopped";
    waiting.failed = waiting.held ? "" : reason(error);
    if (chat === shown) renderPending();
  }
}

/** Sends what was written offline, and reads what could not be read then. */
function catchUp() {
  for (const chat of chats.sorted()) {
    for (const waiting of chat.pending.filter(({ held }) => held)) deliver(chat, waiting);
  }
  if (shown && !shown.opened) void loadOlder();
  else wantMore();
}

/** A message that is there is no longer on its way. */
function settle(chat, message) {
  const index = chat.pending.findIndex((waiting) => waiting.body.key === message.body?.key);
  if (index < 0 || message.from !== chats.user) return;
  chat.pending.splice(index, 1);
  if (chat === shown) renderPending();
}

/** A random key; `randomUUID` is not there on a page that came over plain HTTP from another machine. */
function newKey() {
  const numbers = crypto.getRandomValues(new Uint32Array(4));
  return [...numbers].map((number) => number.toString(36)).join("-");
}

page.text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});

page.text.addEventListener("input", grow);

function grow() {
  page.text.style.height = "auto";
  page.text.style.height = `${page.text.scrollHeight + 2}px`;
}

// ---- The list of chats

function showChats() {
  const focused = document.activeElement?.dataset?.key;
  const sorted = chats.sorted();
  page.chats.replaceChildren(...sorted.map(chatRow));
  if (focused) page.chats.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  const elsewhere = sorted.reduce((sum, chat) => sum + (chat === shown ? 0 : chat.unread), 0);
  $("back-count").hidden = elsewhere === 0;
  $("back-count").textContent = elsewhere;
  $("back-count").append(hidden(" unread"));
  document.title = chats.unread > 0 ? `(${chats.unread}) Halley demo` : "Halley demo";
}

function chatRow(chat) {
  const button = make("button", "chat");
  button.type = "button";
  button.dataset.key = chat.key;
  if (chat === shown) button.setAttribute("aria-current", "true");
  button.append(face(chat));
  const middle = make("span", "chat-middle");
  middle.append(written("span", "chat-name", chat.name));
  const last = written("span", "chat-last", "");
  if (chat.last) {
    // The text alone decides the direction of the line.
    if (chat.last.from === chats.user) last.append(make("bdi", "", "You:"), " ");
    else if (chat.isGroup) last.append(make("bdi", "", `${chat.last.from}:`), " ");
    last.append(textOf(chat.last).slice(0, 120));
  } else {
    last.textContent = "No messages yet";
  }
  middle.append(last);
  const right = make("span", "chat-right");
  right.append(make("time", "chat-when", chat.last ? whenText(chat.last.at) : ""));
  if (chat.unread > 0) {
    const count = make("span", "count", String(chat.unread));
    count.append(hidden(chat.unread === 1 ? " unread message" : " unread messages"));
    right.append(count);
  }
  button.append(middle, right);
  button.addEventListener("click", () => open(chat, "talk"));
  const item = make("li");
  item.append(button);
  return item;
}

oneStop(page.chats, "button");
oneStop($("new-people"), "button");
// The newest link is the nearest to the message box.
oneStop(page.messages, "a", -1);

function face(chat) {
  const made = make("span", `face ${toneOf(chat.name)}${chat.isGroup ? " group" : ""}`, initialsOf(chat.name));
  made.ariaHidden = "true";
  return made;
}

// ---- One chat

async function open(chat, view = "talk") {
  if (shown) shown.draft = page.text.value;
  const changed = chat !== shown;
  shown = chat;
  page.app.dataset.view = view;
  chat.newAfter = chat.unread > 0 ? chat.read : 0;
  $("talk-face").replaceWith(Object.assign(face(chat), { id: "talk-face" }));
  $("talk-title").textContent = chat.name;
  $("talk-about").textContent = chat.isGroup ? "Group" : chat.name === chats.user ? "Notes to yourself" : "Direct messages";
  page.scroll.setAttribute("aria-label", `Messages ${chat.isGroup ? "in" : "with"} ${chat.name}`);
  // Isolated, so that a name written from right to left stays at its place.
  page.text.placeholder = `Write to \u2068${chat.name}\u2069`;
  if (changed) {
    page.text.value = chat.draft;
    grow();
  }
  showJump(0);
  renderAll();
  toEnd();
  // On a phone the keyboard would cover half of the chat.
  if (view === "talk") (matchMedia("(pointer: coarse)").matches ? $("talk-title") : page.text).focus();
  if (!chat.opened) await loadOlder();
  if (chat !== shown) return;
  if (isOnScreen() && atEnd()) chat.markRead();
  showChats();
  keep();
}

/** Whether the pane of the chat is there to be seen. */
function isOnScreen() {
  return page.scroll.offsetParent !== null && document.visibilityState === "visible";
}

/** Reads the newest page of history, or the one before what is there. */
async function loadOlder() {
  const chat = shown;
  if (loadingOlder || !chat?.hasOlder) return;
  loadingOlder = true;
  showOlder("Loading older messages…");
  try {
    const before = chat.opened ? chat.messages.at(0)?.id : undefined;
    const found = await halley.history({ ...chat.place, before, limit: PAGE });
    chat.add(found.messages);
    chat.opened = true;
    chat.hasOlder = found.more;
    if (chat === shown) {
      if (before === undefined) {
        renderAll();
        toEnd();
      } else {
        prepend(found.messages);
      }
    }
    if (chat === shown) showOlder(chat.hasOlder ? "" : "This is the beginning.");
  } catch (error) {
    // A group that nobody wrote to, or a person unknown so far.
    if (error.status === 404) chat.opened = true;
    if (chat === shown) showOlder(`Older messages could not be read: ${reason(error)}`);
  } finally {
    loadingOlder = false;
  }
  // The list of chats is being rebuilt.
  if (!shown) return;
  showEmpty();
  if (chat !== shown) await loadOlder();
  else if (chat.hasOlder && page.scroll.scrollTop < BEGIN_PX && chat.opened) requestAnimationFrame(() => wantMore());
}

function wantMore() {
  if (shown?.hasOlder && shown.opened && page.scroll.scrollTop < BEGIN_PX && page.scroll.offsetParent) void loadOlder();
}

function showOlder(text) {
  $("older").textContent = text;
}

function showEmpty() {
  const empty = shown.messages.length === 0 && shown.pending.length === 0 && shown.opened;
  $("empty").hidden = !empty;
  $("empty-text").replaceChildren(
    ...(shown.isGroup
      ? ["Messages here go to every member."]
      : ["Write the first message to ", make("bdi", "", shown.name), ". It is kept until they join."]),
  );
  $("older").hidden = empty;
}

function renderAll() {
  page.messages.replaceChildren(...shown.messages.flatMap((message, index, all) => nodesOf(message, all[index - 1])));
  renderPending();
  showEmpty();
}

/** Puts older messages in front, without moving what is being read. */
function prepend(older) {
  const below = page.scroll.scrollHeight - page.scroll.scrollTop;
  const count = older.length;
  const first = shown.messages[count];
  if (first) {
    // What was the first has a neighbour now.
    page.messages.querySelector(`[data-id="${first.id}"]`)?.remove();
    page.messages.querySelector(":scope > .day:first-child")?.remove();
    page.messages.querySelector(":scope > .new:first-child")?.remove();
  }
  const again = shown.messages.slice(0, count + (first ? 1 : 0));
  page.messages.prepend(...again.flatMap((message, index) => nodesOf(message, again[index - 1])));
  page.scroll.scrollTop = page.scroll.scrollHeight - below;
}

/** A message as it stands under another, with what comes between the two. */
function nodesOf(message, previous) {
  const nodes = [];
  if (!previous || !sameDay(previous.at, message.at)) nodes.push(make("li", "day", dayText(message.at)));
  const isNew = (id) => shown.newAfter > 0 && id > shown.newAfter;
  if (isNew(message.id) && (!previous || !isNew(previous.id))) nodes.push(make("li", "new", "New"));
  const item = make("li", "message");
  item.dataset.id = message.id;
  const mine = message.from === chats.user;
  item.classList.toggle("mine", mine);
  const together = nodes.length === 0 && standsTogether(message, previous);
  item.classList.toggle("together", together);
  const bubble = make("div", "bubble");
  if (!mine && shown.isGroup && !together) bubble.append(written("p", "from", message.from));
  else bubble.append(hidden(mine ? "You: " : `${message.from}: `));
  const text = written("p", "text");
  text.append(linked(textOf(message)));
  bubble.append(text);
  const meta = make("p", "meta");
  const time = make("time", "", timeText(message.at));
  time.dateTime = new Date(message.at).toISOString();
  time.title = `${new Date(message.at).toLocaleString()}, ${message.sequence} ${message.id}`;
  meta.append(make("span", "took"), time);
  bubble.append(meta);
  item.append(bubble);
  return [...nodes, item];
}

function renderPending() {
  page.pending.replaceChildren(...shown.pending.map(pendingNode));
}

function pendingNode(waiting) {
  const chat = shown;
  const item = make("li", "message mine waiting");
  const bubble = make("div", "bubble");
  bubble.append(written("p", "text", waiting.body.text));
  const meta = make("p", "meta", waiting.failed ? `Not sent: ${waiting.failed}` : waiting.held ? "Will be sent when you are online" : "Sending…");
  if (waiting.failed) {
    item.classList.add("failed");
    const again = make("button", "small", "Try again");
    again.type = "button";
    again.addEventListener("click", () => {
      deliver(chat, waiting);
      renderPending();
    });
    meta.append(" ", again);
  }
  bubble.append(meta);
  item.append(bubble);
  return item;
}

// ---- Scrolling

function atEnd() {
  const { scrollHeight, scrollTop, clientHeight } = page.scroll;
  return scrollHeight - scrollTop - clientHeight < END_PX;
}

function toEnd() {
  page.scroll.scrollTop = page.scroll.scrollHeight;
  showJump(0);
}

function showJump(count) {
  newBelow = count;
  page.jump.hidden = count === 0;
  page.jump.textContent = count === 1 ? "1 new message ↓" : `${count} new messages ↓`;
}

page.jump.addEventListener("click", () => {
  toEnd();
  page.text.focus();
});

let wasAtEnd = true;

page.scroll.addEventListener("scroll", () => {
  wasAtEnd = atEnd();
  wantMore();
  seen();
}, { passive: true });

document.addEventListener("visibilitychange", () => {
  showArrived();
  seen();
});

// The keyboard of a phone takes a part of the page: the end stays in sight.
new ResizeObserver(() => {
  if (wasAtEnd && shown) toEnd();
}).observe(page.scroll);

function seen() {
  if (!shown || !isOnScreen() || !atEnd()) return;
  showJump(0);
  if (shown.unread === 0) return;
  shown.markRead();
  showChats();
  keep();
}

// ---- Panels

$("back").addEventListener("click", () => {
  page.app.dataset.view = "chats";
  page.chats.querySelector("[aria-current]")?.focus();
});

function showTiming(visible) {
  page.timing.hidden = !visible;
  $("timing-open").setAttribute("aria-expanded", String(visible));
  if (visible) $("timing-title").focus();
  else $("timing-open").focus();
}

$("timing-open").addEventListener("click", () => showTiming(page.timing.hidden));
$("timing-close").addEventListener("click", () => showTiming(false));
$("times-clear").addEventListener("click", () => times.clear());

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || $("new-dialog").open) return;
  if (!$("trouble").hidden) $("trouble").hidden = true;
  else if (!page.timing.hidden) showTiming(false);
  else if (page.app.dataset.view === "talk" && $("back").offsetParent) $("back").click();
});

$("new-chat").addEventListener("click", () => {
  const people = chats.people();
  $("new-name").value = "";
  $("new-error").textContent = "";
  $("new-people-box").hidden = people.length === 0;
  $("new-people").replaceChildren(...people.slice(0, 30).map((name) => {
    const item = make("li");
    const button = written("button", "small", name);
    button.type = "button";
    button.addEventListener("click", () => startChat(name));
    item.append(button);
    return item;
  }));
  $("new-dialog").showModal();
  $("new-name").focus();
});

$("new-form").addEventListener("submit", (event) => {
  event.preventDefault();
  startChat($("new-name").value.trim());
});

$("new-cancel").addEventListener("click", () => $("new-dialog").close());

function startChat(name) {
  const trouble = nameTrouble(name);
  $("new-error").textContent = trouble;
  if (trouble) return $("new-name").focus();
  $("new-dialog").close();
  void open(chats.of("direct", name), "talk");
}

function complain(text) {
  $("trouble-text").textContent = text;
  $("trouble").hidden = false;
}

$("trouble-close").addEventListener("click", () => ($("trouble").hidden = true));

// ---- Small tools

/** Why something failed, as a sentence. */
function reason(error) {
  return error.detail || error.message || "unknown reason";
}

function make(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** A node for what a user wrote: its first letters decide its direction. */
function written(name, className, text) {
  const made = make(name, className, text);
  made.dir = "auto";
  return made;
}

/** For screen readers. */
function hidden(text) {
  return make("span", "hidden", text);
}

// ---- The beginning

const asked = new URLSearchParams(location.search).get("user") ?? kept().user;
if (asked && !nameTrouble(asked.trim())) void enter(asked.trim());
else askName();
