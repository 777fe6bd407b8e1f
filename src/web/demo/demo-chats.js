// What the page knows of its chats. Nothing here touches the page.

/** How many messages a page of history has. */
export const PAGE = 50;

/** Milliseconds between two messages of one person that still stand together. */
const TOGETHER_MS = 5 * 60_000;

/** One conversation with a person, or one group. */
export class Chat {
  /** In id order, without a hole, up to the newest. */
  messages = [];
  #ids = new Set();
  /** Messages on their way to the server. */
  pending = [];
  /** Resolves when the last of them was sent, or could not be. It never rejects. */
  line = Promise.resolve();
  /** Whether there is history before the first message here. */
  hasOlder = true;
  /** Whether the newest page of history was read. */
  opened = false;
  /** The newest message, also when the history was not read. */
  last = null;
  /** The last id that was looked at. */
  read = 0;
  /** Where "new" began when the chat was opened; 0 for nowhere. */
  newAfter = 0;
  unread = 0;
  draft = "";

  constructor(kind, name) {
    this.kind = kind;
    this.name = name;
  }

  get key() {
    return keyOf(this.kind, this.name);
  }

  get isGroup() {
    return this.kind === "group";
  }

  /** For `send`. */
  get target() {
    return this.isGroup ? { group: this.name } : { to: this.name };
  }

  /** For `history`. */
  get place() {
    return this.isGroup ? { group: this.name } : { with: this.name };
  }

  /** Takes messages in, which are in id order; gives how many were not there yet. */
  add(messages) {
    const fresh = messages.filter((message) => !this.#ids.has(message.id));
    const inOrder = !(this.messages.at(-1)?.id > fresh[0]?.id);
    for (const message of fresh) this.#ids.add(message.id);
    this.messages.push(...fresh);
    if (!inOrder) this.messages.sort((one, other) => one.id - other.id);
    const newest = this.messages.at(-1);
    if (newest && newest.id > (this.last?.id ?? 0)) this.last = newest;
    return fresh.length;
  }

  /** Everything here has been seen. */
  markRead() {
    this.read = Math.max(this.read, this.last?.id ?? 0);
    this.unread = 0;
  }
}

export function keyOf(kind, name) {
  return `${kind}:${name}`;
}

/** All chats of one user. */
export class Chats {
  #chats = new Map();

  constructor(user) {
    this.user = user;
  }

  get(key) {
    return this.#chats.get(key);
  }

  /** The chat, made if need be. */
  of(kind, name) {
    const key = keyOf(kind, name);
    let chat = this.#chats.get(key);
    if (!chat) this.#chats.set(key, (chat = new Chat(kind, name)));
    return chat;
  }

  /** The chat that a message belongs to. */
  ofMessage(message) {
    if (message.group !== undefined) return this.of("group", message.group);
    return this.of("direct", message.from === this.user ? message.to : message.from);
  }

  /** The one with the newest message first. */
  sorted() {
    const at = (chat) => chat.last?.at ?? 0;
    return [...this.#chats.values()].sort((one, other) => at(other) - at(one));
  }

  get unread() {
    return this.sorted().reduce((sum, chat) => sum + chat.unread, 0);
  }

  /** Everybody who has written or been written to. */
  people() {
    const names = new Set();
    for (const chat of this.#chats.values()) {
      if (!chat.isGroup) names.add(chat.name);
      for (const message of chat.messages) names.add(message.from);
      if (chat.last) names.add(chat.last.from);
    }
    names.delete(this.user);
    return [...names].sort((one, other) => one.localeCompare(other));
  }
}

/** What a message says: a text, the `text` of an object, or else its JSON. */
export function textOf(message) {
  const { body } = message;
  if (typeof body === "string") return body;
  if (typeof body?.text === "string") return body.text;
  try {
    return JSON.stringify(body);
  } catch {
    // A body may be nested deeper than the browser's stack is.
    return "(JSON nested too deeply to show here)";
  }
}

/** Whether a message stands under the one before it without its own name. */
export function standsTogether(message, previous) {
  if (!previous || previous.from !== message.from) return false;
  return message.at - previous.at < TOGETHER_MS && sameDay(message.at, previous.at);
}

export function sameDay(one, other) {
  return new Date(one).toDateString() === new Date(other).toDateString();
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const DATE = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

export function timeText(at) {
  return TIME.format(at);
}

export function dayText(at) {
  const day = 24 * 60 * 60_000;
  if (sameDay(at, Date.now())) return "Today";
  if (sameDay(at, Date.now() - day)) return "Yesterday";
  return DAY.format(at);
}

/** Short, for the list. */
export function whenText(at) {
  return sameDay(at, Date.now()) ? TIME.format(at) : DATE.format(at);
}

/** One of eight tones, always the same for a name. */
export function toneOf(name) {
  let sum = 0;
  for (const character of name) sum = (sum * 31 + character.codePointAt(0)) % 4096;
  return `tone-${sum % 8}`;
}

/** One or two letters for a name. */
export function initialsOf(name) {
  const words = name.trim().split(/[\s._-]+/u).filter(Boolean);
  const letters = words.slice(0, 2).map((word) => [...word][0]);
  return letters.join("").toUpperCase() || "?";
}

/** Why a name cannot be used; nothing if it can. */
export function nameTrouble(name) {
  if (name === "") return "Enter a name.";
  if (new TextEncoder().encode(name).length > 128) return "A name has at most 128 bytes.";
  if (name === "." || name === "..") return "A name cannot be . or .. alone.";
  if (/\p{Cc}/u.test(name)) return "A name cannot contain control characters.";
  return "";
}
