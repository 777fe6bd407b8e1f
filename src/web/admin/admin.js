// The admin page: asks for the key, keeps it in this tab, and shows what the admin listener tells.
// Names and bodies become text nodes, never markup.

import { Live } from "./admin-live.js";
import { addRows, bdi, card, duration, element, jsonText, messageRow, messageTable, moreButton, number, preview, stamp, table, trouble } from "./admin-nodes.js";

const $ = (id) => document.getElementById(id);
/** Where the tab keeps the key. */
const KEPT = "halley-admin-key";
const PAGE = 50;
/** Longest body, in characters, that is shown indented. */
const INDENTED_MAX = 200_000;
/** How many messages of a group are read at a time; each is a request of its own. */
const GROUP_PAGE = 10;
/** How many members are listed at once. */
const MEMBERS_SHOWN = 200;
const SECTIONS = ["overview", "users", "groups", "messages", "push"];

let key = "";
let live;

// ---- Asking

/** What the server refused, as it said it. */
class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `status ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

async function ask(path, options) {
  return JSON.parse(await askText(path, options));
}

/** Paths are relative to the page, which may be below a prefix of a proxy. */
async function askText(path, { method = "GET", body, headers = {} } = {}) {
  let reply;
  try {
    reply = await fetch(path, {
      method,
      body,
      headers: { authorization: `Bearer ${key}`, ...headers },
      signal: AbortSignal.timeout(15_000),
    });
  } catch (error) {
    throw new Error(error.name === "TimeoutError" ? "the server is slow to answer" : "the server cannot be reached");
  }
  const text = await reply.text();
  if (reply.ok) return text;
  const refused = new Refused(reply.status, problemOf(text));
  if (reply.status === 401 && !$("app").hidden) signOut("The key is no longer valid.");
  throw refused;
}

/** What a refusal says; a proxy's refusal says nothing that we know. */
function problemOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

const part = encodeURIComponent;

// ---- The key

async function signIn(given) {
  key = given;
  // What was said of the key before says nothing of this one.
  $("key-error").textContent = "";
  const button = $("key-form").querySelector("button");
  button.disabled = true;
  try {
    // A key that cannot stand in a header cannot be right either.
    if (!/^[\x20-\x7e]+$/.test(given)) throw new Refused(401, {});
    await ask("v1/status");
  } catch (error) {
    return askKey(error.status === 401 ? "This is not the admin key." : `Cannot sign in: ${error.message}`);
  } finally {
    button.disabled = false;
  }
  sessionStorage.setItem(KEPT, given);
  $("key").value = "";
  $("sign-in").hidden = true;
  $("app").hidden = false;
  live ??= new Live(() => ask("v1/status"));
  route();
}

function askKey(error = "") {
  $("app").hidden = true;
  $("sign-in").hidden = false;
  $("key-error").textContent = error;
  $("key").setAttribute("aria-invalid", String(error !== ""));
  $("key").focus();
  $("key").select();
}

function signOut(reason) {
  sessionStorage.removeItem(KEPT);
  key = "";
  live?.stop();
  for (const link of document.querySelectorAll(".nav a")) link.hash = `#${link.hash.slice(1).split("/")[0]}`;
  for (const found of document.querySelectorAll(".found, #push-outcome")) {
    // What is still asked for is for nobody.
    rounds.delete(found);
    found.replaceChildren();
  }
  askKey(reason);
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("key").value.trim();
  if (given === "") return askKey("Enter the key.");
  void signIn(given);
});
$("sign-out").addEventListener("click", () => signOut());

// ---- Sections: #overview, #users/bob, #users/bob/direct/ann, #groups/team, #messages/direct/7, #push

function route() {
  if ($("app").hidden) return;
  const [section, ...words] = location.hash.slice(1).split("/").map(decoded);
  const shown = SECTIONS.includes(section) ? section : "overview";
  const before = SECTIONS.find((id) => !$(id).hidden);
  for (const id of SECTIONS) $(id).hidden = id !== shown;
  for (const link of document.querySelectorAll(".nav a")) {
    const [target] = link.hash.slice(1).split("/");
    if (target !== shown) {
      link.removeAttribute("aria-current");
      continue;
    }
    link.setAttribute("aria-current", "page");
    // Who comes back to a section finds the place that they left, at its own address.
    link.hash = section === shown ? location.hash : `#${shown}`;
  }
  document.title = `${$(`${shown}-title`).textContent} · Halley admin`;
  if (shown === "overview") live.start();
  else live.stop();
  if (before !== undefined && before !== shown) $(`${shown}-title`).focus();
  if (shown === "users") void showUser(words[0] ?? "", conversationOf(words), before === shown);
  if (shown === "groups") void showGroup(words[0] ?? "");
  if (shown === "messages") void showMessage(words[0] ?? "", words[1] ?? "");
}

/** The conversation that an address names after the user; `undefined` if it names none. */
function conversationOf([, kind, name]) {
  return name && (kind === "direct" || kind === "groups") ? { kind, name } : undefined;
}

/** An address without a name shows nothing, so that the address and the page never differ. */
function clear(field, box) {
  field.value = "";
  rounds.delete(box);
  box.replaceChildren();
}

function decoded(word) {
  try {
    return decodeURIComponent(word);
  } catch {
    return word;
  }
}

addEventListener("hashchange", route);

/** Goes there, or looks again if one is there. */
function go(hash) {
  if (location.hash === hash) route();
  else location.hash = hash;
}

function onAsk(form, field, goTo) {
  $(form).addEventListener("submit", (event) => {
    event.preventDefault();
    const value = $(field).value.trim();
    $(field).setAttribute("aria-invalid", String(value === ""));
    if (value === "") return $(field).focus();
    goTo(value);
  });
}
onAsk("user-form", "user", (name) => go(`#users/${part(name)}`));
onAsk("group-form", "group", (name) => go(`#groups/${part(name)}`));
onAsk("message-form", "id", (id) => go(`#messages/${$("sequence").value}/${part(id)}`));

/** Fills a box with what `make` gives, or with why not. A later call wins over an earlier one; returns whether
 * this one did. */
const rounds = new WeakMap();
async function fill(box, make) {
  const round = {};
  rounds.set(box, round);
  box.replaceChildren(element("p", "note", "Loading…"));
  let nodes;
  try {
    nodes = await make();
  } catch (error) {
    nodes = [trouble(error)];
  }
  const current = rounds.get(box) === round;
  if (current) box.replaceChildren(...nodes);
  return current;
}

// ---- Users

/** The user that `user-found` shows. */
let shownUser = "";

/** @param inPlace whether a conversation of the user who is shown is opened without asking for the list again */
async function showUser(name, conversation, inPlace) {
  const box = $("user-found");
  if (name === "") return clear($("user"), box);
  $("user").value = name;
  const user = `v1/users/${part(name)}`;
  if (!inPlace || !conversation || shownUser !== name || !$("history")) {
    shownUser = name;
    const filled = await fill(box, async () => {
      const [presence, listed] = await Promise.all([ask(`${user}/presence`), ask(`${user}/conversations?limit=${PAGE}`)]);
      const history = element("div", "found");
      history.id = "history";
      return [
        card([bdi(name), " now"], presenceNodes(presence)),
        card("Conversations and groups", [...conversationNodes(name, listed), history]),
        card("Inbox", [inboxNodes(user)]),
      ];
    });
    // Another user was asked for meanwhile.
    if (!filled) return;
  }
  if (conversation && $("history")) await showHistory($("history"), user, conversation);
}

function presenceNodes({ devices, waiting, connections }) {
  if (!devices) {
    const count = waiting ?? connections ?? 0;
    return [element("p", "", count === 0 ? "No open requests." : `Open requests: ${number(count)}.`)];
  }
  if (devices.length === 0) return [element("p", "", "Not connected. A client that polls may be between two polls.")];
  const since = (device) => `${stamp(device.since)} (${duration((Date.now() - device.since) / 1000)})`;
  return [table("Devices", ["Transport", "Since"], devices.map((device) => [device.transport, since(device)]))];
}

function conversationNodes(name, listed) {
  if (listed.conversations.length === 0) return [element("p", "", "None: this user has neither received nor sent a message.")];
  const rows = ({ conversations }) =>
    conversations.map(({ user: peer, group, member, last }) => {
      const open = element("a", "", group ?? peer);
      open.dir = "auto";
      open.href = `#users/${part(name)}/${group === undefined ? "direct" : "groups"}/${part(group ?? peer)}`;
      // The address may be the present one: then nothing else would show it again.
      open.addEventListener("click", () => open.hash === location.hash && route());
      const kind = group === undefined ? "user" : member ? "group" : "group, left";
      // A group may have no message that this user may see.
      return [open, kind, last ? preview(last) : element("span", "note", "no message yet"), element("span", "nowrap", last ? stamp(last.at) : "–")];
    });
  const list = table("Conversations", ["Name", "Kind", "Last message", "When"], rows(listed));
  const more = moreButton("More conversations", listed.more, async () => {
    listed = await ask(`v1/users/${part(name)}/conversations?limit=${PAGE}&before=${part(listed.next)}`);
    addRows(list, rows(listed));
    return listed.more;
  });
  return [list, more];
}

/** The messages of one conversation, the newest page first, older ones on demand. */
async function showHistory(box, user, { kind, name }) {
  const path = `${user}/${kind}/${part(name)}/messages`;
  await fill(box, async () => {
    let page = await ask(`${path}?limit=${PAGE}`);
    const heading = element("h4", "");
    heading.tabIndex = -1;
    heading.append("Messages of ", bdi(name), ", newest first");
    if (page.messages.length === 0) return [heading, element("p", "", "No messages.")];
    const list = messageTable(`Messages of ${name}`, [...page.messages].reverse());
    const older = moreButton("Older messages", page.more, async () => {
      page = await ask(`${path}?limit=${PAGE}&before=${page.messages[0].id}`);
      addRows(list, [...page.messages].reverse().map(messageRow));
      return page.more;
    });
    return [heading, list, older];
  });
  // It stands below a list that may be longer than the window.
  const start = box.querySelector("h4, [role=alert]");
  start?.scrollIntoView({ block: "start" });
  start?.focus({ preventScroll: true });
}

function inboxNodes(user) {
  const box = element("div", "found");
  const from = element("input");
  from.id = "inbox-after";
  from.autocomplete = "off";
  from.placeholder = "from the beginning";
  const label = element("label", "", "After the cursor");
  label.htmlFor = from.id;
  const form = element("form", "ask");
  const row = element("div", "ask-row");
  const button = element("button", "small", "Read a page");
  row.append(from, button);
  form.append(label, row);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void fill(box, async () => {
      const page = await ask(`${user}/inbox?wait=0&limit=${PAGE}&after=${part(from.value.trim() || "0")}`);
      const nodes = [page.messages.length === 0 ? element("p", "", "Nothing after this cursor.") : messageTable("Messages of the inbox", page.messages)];
      const next = element("p", "note", "next ");
      next.append(element("code", "", page.next));
      nodes.push(next);
      if (page.more) {
        const more = element("button", "small", "Next page");
        more.type = "button";
        more.addEventListener("click", () => {
          from.value = page.next;
          form.requestSubmit();
        });
        nodes.push(more);
      }
      return nodes;
    });
  });
  const whole = element("div");
  whole.append(form, box);
  return whole;
}

// ---- Groups

function showGroup(name) {
  if (name === "") return clear($("group"), $("group-found"));
  $("group").value = name;
  return fill($("group-found"), async () => {
    const group = await ask(`v1/groups/${part(name)}`);
    const facts = element("dl", "facts");
    const history = { member: "members see what is sent while they are members", all: "members see everything" };
    for (const [term, value] of [
      ["History", history[group.history] ?? group.history],
      ["Members", number(group.members.length)],
      ["Last message", group.last === 0 ? "none" : `group ${number(group.last)}`],
    ]) facts.append(element("dt", "", term), element("dd", "", value));
    return [card(["Group ", bdi(name)], [facts]), card("Members", memberNodes(group.members)), card("Last messages", [await lastMessages(group.last)])];
  });
}

function memberNodes(members) {
  if (members.length === 0) return [element("p", "", "No members.")];
  const list = element("ul", "names");
  let listed = 0;
  const add = () => {
    for (const member of members.slice(listed, listed + MEMBERS_SHOWN)) {
      const item = element("li");
      const link = element("a", "", member);
      link.dir = "auto";
      link.href = `#users/${part(member)}`;
      item.append(link);
      list.append(item);
    }
    listed = Math.min(listed + MEMBERS_SHOWN, members.length);
    return listed < members.length;
  };
  const more = add();
  return [list, moreButton("More members", more, async () => add())];
}

/** Each message names the one before it in its group, so the chain can be followed from the last. */
async function lastMessages(last) {
  if (last === 0) return element("p", "", "None yet.");
  const gone = element("p", "note", "Older messages are no longer kept.");
  gone.hidden = true;
  let next = last;
  const read = async () => {
    const messages = [];
    let id = next;
    while (id > 0 && messages.length < GROUP_PAGE) {
      const message = await messageIfKept("group", id);
      gone.hidden = message !== null;
      if (message) messages.push(message);
      id = message?.prev ?? 0;
    }
    // Only now: what fails in the middle is read again.
    next = id;
    return messages;
  };
  const list = messageTable("Messages of the group", await read());
  const older = moreButton("Older messages", next > 0, async () => {
    addRows(list, (await read()).map(messageRow));
    return next > 0;
  });
  const whole = element("div");
  whole.append(list, gone, older);
  return whole;
}

/** A message, or `null` if it is no longer kept. */
async function messageIfKept(sequence, id) {
  try {
    return await ask(`v1/messages/${sequence}/${id}`);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

// ---- Messages

function showMessage(sequence, id) {
  if (id === "") return clear($("id"), $("message-found"));
  const known = ["direct", "group"].includes(sequence);
  if (known) $("sequence").value = sequence;
  $("id").value = id;
  return fill($("message-found"), async () => {
    if (!known) throw new Error("the sequence must be direct or group");
    if (!/^[1-9]\d{0,15}$/.test(id)) throw new Error("an id is a whole number of at least 1");
    return [card(`${sequence} ${id}`, messageNodes(await askText(`v1/messages/${part(sequence)}/${id}`)))];
  });
}

function messageNodes(text) {
  const message = JSON.parse(text);
  const facts = element("dl", "facts");
  const fact = (term, value, href) => {
    const cell = element("dd");
    if (href) {
      const link = element("a", "", value);
      link.href = href;
      link.dir = "auto";
      cell.append(link);
    } else cell.append(value);
    facts.append(element("dt", "", term), cell);
  };
  fact("From", message.from, `#users/${part(message.from)}`);
  if (message.group === undefined) fact("To", message.to, `#users/${part(message.to)}`);
  else fact("Group", message.group, `#groups/${part(message.group)}`);
  fact("Number", `${message.n} of its ${message.group === undefined ? "conversation" : "group"}`);
  fact("Committed", `${stamp(message.at)} (${message.at})`);
  if (message.prev > 0) fact("Previous", `${message.sequence} ${message.prev}`, `#messages/${message.sequence}/${message.prev}`);
  else fact("Previous", "none: this is the first message of its conversation");
  const body = element("pre", "body", bodyText(text));
  body.tabIndex = 0;
  body.setAttribute("role", "region");
  body.setAttribute("aria-label", "Body as JSON");
  return [facts, body];
}

/** The body, indented if that changes nothing else: numbers that a script cannot hold are shown as they were sent. */
function bodyText(message) {
  const name = '"body":';
  const sent = message.slice(message.indexOf(name) + name.length, -1);
  // Indentation grows with the square of the depth: 6 KB of brackets would become 18 MB.
  if (indentedLength(sent) > INDENTED_MAX) return sent;
  const body = JSON.parse(sent);
  return jsonText(body) === sent ? JSON.stringify(body, null, 2) : sent;
}

/** How long a JSON text is at most when it is indented, without doing it; its depth is what costs. */
function indentedLength(json) {
  let length = json.length;
  let depth = 0;
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{},:]/g)) {
    if (token === "[" || token === "{") depth += 1;
    else if (token === "]" || token === "}") depth -= 1;
    else if (token === ":") length += 1;
    if (token.length === 1 && token !== ":") length += 1 + 2 * depth;
  }
  return length;
}

// ---- Push

function pushKind() {
  return $("push-form").elements.kind.value;
}

function showForm() {
  const group = pushKind() === "groups";
  $("push-to-label").textContent = group ? "Group" : "User";
  const json = $("push-form").elements.form.value === "json";
  $("push-body-note").textContent = json ? 'For example {"text":"Hello","urgent":true}' : "It is sent as a JSON string.";
}
$("push-form").addEventListener("change", showForm);
showForm();

$("push-form").addEventListener("submit", (event) => {
  event.preventDefault();
  for (const field of [$("push-to"), $("push-from")]) {
    const empty = field.value.trim() === "";
    field.setAttribute("aria-invalid", String(empty));
    if (empty) return void field.focus();
  }
  void fill($("push-outcome"), async () => {
    const text = $("push-body").value;
    const json = $("push-form").elements.form.value === "json";
    if (json) checkJson(text);
    const body = json ? text : JSON.stringify(text);
    // Written by hand, so that JSON goes as it was written.
    const request = `{"from":${JSON.stringify($("push-from").value.trim())},"body":${body}}`;
    const idempotency = $("push-key").value.trim();
    const receipt = await ask(`v1/${pushKind()}/${part($("push-to").value.trim())}/messages`, {
      method: "POST",
      body: request,
      headers: { "content-type": "application/json", ...(idempotency && { "idempotency-key": idempotency }) },
    });
    return [receiptNode(receipt)];
  });
});

function checkJson(text) {
  try {
    JSON.parse(text);
  } catch (error) {
    throw new Error(`the body is not JSON: ${error.message}`);
  }
}

function receiptNode({ sequence, id, prev, at, duplicate }) {
  const box = element("div", "receipt");
  const said = element("p", "receipt-title", duplicate ? "Already stored as " : "Stored as ");
  const link = element("a", "", `${sequence} ${id}`);
  link.href = `#messages/${sequence}/${id}`;
  said.append(link, ".");
  box.append(said, element("p", "note", `${stamp(at)}, ${prev === 0 ? "the first message of its conversation" : `after ${sequence} ${prev}`}`));
  return box;
}

// ---- The beginning

const kept = sessionStorage.getItem(KEPT);
if (kept) void signIn(kept);
else askKey();
