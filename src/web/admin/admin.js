// The admin page: asks for the key, keeps it in this tab, and shows what the admin listener tells.
// Names and bodies become text nodes, never markup.

import { Live } from "./admin-live.js";
import { addRows, card, duration, element, messageRow, messageTable, moreButton, number, preview, stamp, table, trouble } from "./admin-nodes.js";

const $ = (id) => document.getElementById(id);
/** Where the tab keeps the key. */
const KEPT = "halley-admin-key";
const PAGE = 50;
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

async function askText(path, { method = "GET", body, headers = {} } = {}) {
  let reply;
  try {
    reply = await fetch(path, {
      method,
      body,
      headers: { authorization: `Bearer ${key}`, ...headers },
      signal: AbortSignal.timeout(15_000),
    });
  } catch {
    throw new Error("the server does not answer");
  }
  const text = await reply.text();
  if (reply.ok) return text;
  const refused = new Refused(reply.status, problemOf(text));
  if (reply.status === 401 && !$("app").hidden) signOut("The key is not valid any more.");
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
  const button = $("key-form").querySelector("button");
  button.disabled = true;
  try {
    // A key that cannot stand in a header cannot be right either.
    if (!/^[\x20-\x7e]+$/.test(given)) throw new Refused(401, {});
    await ask("/v1/status");
  } catch (error) {
    return askKey(error.status === 401 ? "This is not the admin key." : `Cannot sign in: ${error.message}`);
  } finally {
    button.disabled = false;
  }
  sessionStorage.setItem(KEPT, given);
  $("key").value = "";
  $("sign-in").hidden = true;
  $("app").hidden = false;
  live ??= new Live(() => ask("/v1/status"));
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
  if (given === "") return askKey("Write the key.");
  void signIn(given);
});
$("sign-out").addEventListener("click", () => signOut());

// ---- Sections: #overview, #users/bob, #groups/team, #messages/direct/7, #push

function route() {
  if ($("app").hidden) return;
  const [section, ...words] = location.hash.slice(1).split("/").map(decoded);
  const shown = SECTIONS.includes(section) ? section : "overview";
  const before = SECTIONS.find((id) => !$(id).hidden);
  for (const id of SECTIONS) $(id).hidden = id !== shown;
  for (const link of document.querySelectorAll(".nav a")) {
    if (link.hash === `#${shown}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${$(`${shown}-title`).textContent} · Halley admin`;
  if (shown === "overview") live.start();
  else live.stop();
  if (before !== undefined && before !== shown) $(`${shown}-title`).focus();
  if (shown === "users" && words[0]) void showUser(words[0]);
  if (shown === "groups" && words[0]) void showGroup(words[0]);
  if (shown === "messages" && words[1]) void showMessage(words[0], words[1]);
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

/** Fills a box with what `make` gives, or with why not. A later call wins over an earlier one. */
const rounds = new WeakMap();
async function fill(box, make) {
  const round = {};
  rounds.set(box, round);
  box.replaceChildren(element("p", "note", "Asking…"));
  let nodes;
  try {
    nodes = await make();
  } catch (error) {
    nodes = [trouble(error)];
  }
  if (rounds.get(box) === round) box.replaceChildren(...nodes);
}

// ---- Users

function showUser(name) {
  $("user").value = name;
  return fill($("user-found"), async () => {
    const user = `/v1/users/${part(name)}`;
    const [presence, listed] = await Promise.all([ask(`${user}/presence`), ask(`${user}/conversations?limit=${PAGE}`)]);
    return [
      card(`${name} now`, presenceNodes(presence)),
      card("Conversations and groups", conversationNodes(user, listed)),
      card("Inbox", [inboxNodes(user)]),
    ];
  });
}

function presenceNodes({ devices, waiting, connections }) {
  if (!devices) {
    const count = waiting ?? connections ?? 0;
    return [element("p", "", count === 0 ? "No request is held now." : `${number(count)} requests are held now.`)];
  }
  if (devices.length === 0) return [element("p", "", "Not connected. A poller may be between two polls.")];
  const since = (device) => `${stamp(device.since)} (${duration((Date.now() - device.since) / 1000)})`;
  return [table("Devices", ["Transport", "Since"], devices.map((device) => [device.transport, since(device)]))];
}

function conversationNodes(user, listed) {
  if (listed.conversations.length === 0) return [element("p", "", "None: this user has neither received nor sent a message.")];
  const history = element("div", "found");
  const rows = ({ conversations }) =>
    conversations.map(({ user: peer, group, member, last }) => {
      const open = element("button", "link", group ?? peer);
      open.type = "button";
      const path = group === undefined ? `${user}/direct/${part(peer)}` : `${user}/groups/${part(group)}`;
      open.addEventListener("click", () => showHistory(history, `${path}/messages`, group ?? peer));
      const kind = group === undefined ? "user" : member ? "group" : "group, left";
      return [open, kind, preview(last), element("span", "nowrap", stamp(last.at))];
    });
  const list = table("Conversations", ["Name", "Kind", "Last message", "When"], rows(listed));
  const more = moreButton("More conversations", listed.more, async () => {
    listed = await ask(`${user}/conversations?limit=${PAGE}&before=${part(listed.next)}`);
    addRows(list, rows(listed));
    return listed.more;
  });
  return [list, more, history];
}

/** The messages of one conversation, the newest page first, older ones on demand. */
function showHistory(box, path, name) {
  return fill(box, async () => {
    let page = await ask(`${path}?limit=${PAGE}`);
    const list = messageTable(`Messages of ${name}`, [...page.messages].reverse());
    const older = moreButton("Older messages", page.more, async () => {
      page = await ask(`${path}?limit=${PAGE}&before=${page.messages[0].id}`);
      addRows(list, [...page.messages].reverse().map(messageRow));
      return page.more;
    });
    return [element("h4", "", `Messages of ${name}, the newest first`), list, older];
  });
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
  $("group").value = name;
  return fill($("group-found"), async () => {
    const group = await ask(`/v1/groups/${part(name)}`);
    const facts = element("dl", "facts");
    const history = { member: "members see what is sent while they are members", all: "members see everything" };
    for (const [term, value] of [
      ["History", history[group.history] ?? group.history],
      ["Members", number(group.members.length)],
      ["Last message", group.last === 0 ? "none" : `group ${number(group.last)}`],
    ]) facts.append(element("dt", "", term), element("dd", "", value));
    return [card(`Group ${name}`, [facts]), card("Members", memberNodes(group.members)), card("Last messages", [await lastMessages(group.last)])];
  });
}

function memberNodes(members) {
  if (members.length === 0) return [element("p", "", "Nobody.")];
  const list = element("ul", "names");
  let listed = 0;
  const add = () => {
    for (const member of members.slice(listed, listed + MEMBERS_SHOWN)) {
      const item = element("li");
      const link = element("a", "", member);
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
  const gone = element("p", "note", "What was before is no longer kept.");
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
    return await ask(`/v1/messages/${sequence}/${id}`);
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

// ---- Messages

function showMessage(sequence, id) {
  $("sequence").value = sequence;
  $("id").value = id;
  return fill($("message-found"), async () => {
    if (!/^[1-9]\d{0,15}$/.test(id)) throw new Error("an id is a whole number from 1");
    return [card(`${sequence} ${id}`, messageNodes(await askText(`/v1/messages/${part(sequence)}/${id}`)))];
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
      cell.append(link);
    } else cell.append(value);
    facts.append(element("dt", "", term), cell);
  };
  fact("From", message.from, `#users/${part(message.from)}`);
  if (message.group === undefined) fact("To", message.to, `#users/${part(message.to)}`);
  else fact("Group", message.group, `#groups/${part(message.group)}`);
  fact("Committed", `${stamp(message.at)} (${message.at})`);
  if (message.prev > 0) fact("Before it", `${message.sequence} ${message.prev}`, `#messages/${message.sequence}/${message.prev}`);
  else fact("Before it", "nothing: it is the first of its conversation");
  const body = element("pre", "body", bodyText(text));
  body.tabIndex = 0;
  body.setAttribute("role", "region");
  body.setAttribute("aria-label", "Body as JSON");
  return [facts, body];
}

/** The body, laid out if that changes nothing: numbers that a script cannot hold are shown as they were sent. */
function bodyText(message) {
  const name = '"body":';
  const sent = message.slice(message.indexOf(name) + name.length, -1);
  const body = JSON.parse(sent);
  return JSON.stringify(body) === sent ? JSON.stringify(body, null, 2) : sent;
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
    const receipt = await ask(`/v1/${pushKind()}/${part($("push-to").value.trim())}/messages`, {
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
  const said = element("p", "receipt-title", duplicate ? "It was stored before, as " : "Stored as ");
  const link = element("a", "", `${sequence} ${id}`);
  link.href = `#messages/${sequence}/${id}`;
  said.append(link, ".");
  box.append(said, element("p", "note", `${stamp(at)}, ${prev === 0 ? "the first of its conversation" : `after ${sequence} ${prev}`}`));
  return box;
}

// ---- The beginning

const kept = sessionStorage.getItem(KEPT);
if (kept) void signIn(kept);
else askKey();
