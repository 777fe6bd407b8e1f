/** Types of halley.js. */

/** A message, as the server gives it. */
export interface Message<Body = any> {
  /** Which of the two lines of ids it is in. */
  sequence: "direct" | "group";
  /** Rises by one in its sequence and is never given twice. */
  id: number;
  /** The id before it in its conversation or group; 0 for the first. */
  prev: number;
  from: string;
  /** The receiver of a direct message. */
  to?: string;
  /** The group of a group message. */
  group?: string;
  /** When it was stored, Unix milliseconds. */
  at: number;
  body: Body;
}

/** What the sender gets back. */
export interface Receipt {
  sequence: "direct" | "group";
  id: number;
  prev: number;
  at: number;
  /** It was stored before, under the same key. */
  duplicate: boolean;
}

export type Transport = "socket" | "sse" | "stream" | "poll";

/**
 * - `idle`: not started
 * - `connecting`: asking the server
 * - `live`: messages come as they are sent
 * - `waiting`: a pause before the next attempt
 * - `stopped`: by `stop()`, or for good by an error
 */
export type State = "idle" | "connecting" | "live" | "waiting" | "stopped";

export interface StateChange {
  state: State;
  /** The transport in use, or the one that was. */
  transport?: Transport;
  /** Why it waits or stopped. */
  error?: HalleyError;
  /** How long it waits, milliseconds. */
  retryInMs?: number;
}

export interface Reset {
  /** `cursor_ahead`, `log_unknown`: the server has another history than this client knew, for example an
   * older backup. `cursor_gone`: what follows the cursor is no longer kept. */
  code: "cursor_ahead" | "log_unknown" | "cursor_gone";
  /** The cursor to go on from. What you hold of later messages may not exist on the server. */
  restart: string;
  /** The cursor that was refused. */
  cursor: string | undefined;
  detail: string;
}

export interface Gap {
  sequence: "direct" | "group";
  /** The other user, for direct messages. */
  with?: string;
  group?: string;
  /** The last id that was known; where nothing of a conversation was known yet, where the client began. */
  after: number;
  /** The id of the message that showed the gap. */
  before: number;
  /** What was missing. The `message` listeners have had these too, just now. */
  messages: Message[];
  /** The chain is whole again. It cannot be where the user may not see what is missing, such as what a
   * group said while he was not a member. */
  complete: boolean;
}

export interface Events {
  /** A message, and the cursor after it. A listener may return a promise: the next message waits for it. */
  message: (message: Message, cursor: string) => unknown;
  state: (change: StateChange) => unknown;
  /** The cursor has moved. */
  cursor: (cursor: string) => unknown;
  reset: (reset: Reset) => unknown;
  gap: (gap: Gap) => unknown;
  /** Anything that went wrong. If `error.fatal`, the client has stopped; else it goes on by itself. */
  error: (error: HalleyError) => unknown;
}

/** Where the cursor is kept: `localStorage` will do, and so will anything with promises. */
export interface CursorStorage {
  getItem(key: string): string | null | undefined | Promise<string | null | undefined>;
  setItem(key: string, value: string): unknown;
}

export interface Options {
  /** The client address of the server, such as `https://push.example`. The page's own origin if absent. */
  url?: string | URL;
  /** The user's token, or a function that gets one from your backend: called for the first, before one
   * expires, and when one was refused; it has 15 s. No token (null, "") means that the user is gone: the client stops. */
  token: string | (() => string | null | undefined | Promise<string | null | undefined>);
  /** `auto` (usual): the socket, else SSE, else polls, and better ones again later. */
  transport?: Transport | "auto";
  /** The cursor to begin with, if `storage` has none: `"0"` (usual) is everything, `"now"` what comes from now on. */
  after?: string;
  /** Where to keep the cursor. */
  storage?: CursorStorage;
  /** `halley:` and the server's address and the user, if absent. */
  storageKey?: string;
  /** Seconds between signs of life, 5 to 300; 30 if absent. Two missing ones end a connection. */
  heartbeat?: number;
  /** Seconds that a poll is held, 1 to 300; 30 if absent. */
  wait?: number;
  /** What to do when the server cannot go on from the cursor; `restart` if absent. */
  onReset?: (reset: Reset) => "restart" | "stop" | Promise<"restart" | "stop">;
  /** A WebSocket constructor where there is no global one (Node 20: `ws` of npm). */
  WebSocket?: unknown;
  /** A fetch of your own. */
  fetch?: typeof globalThis.fetch;
  /** Times in milliseconds, for tests. */
  timing?: Partial<Timing>;
}

export interface Timing {
  /** The first pause after a failure; it doubles from there. */
  backoffMin: number;
  backoffMax: number;
  /** How long a connection may take to say its first word. */
  connect: number;
  /** How long an open connection may be silent: two heartbeats and 5 s. */
  silence: number;
  /** How long one request may take, beyond the time it is held; and one call of your token function. */
  request: number;
  /** When `auto` tries a better transport again; it doubles, up to ten times as long. */
  better: number;
  /** How long `stop()`, and a `start()` after it, waits for listeners that are still at work. */
  grace: number;
}

export interface CallOptions {
  /** Seconds until it is given up; 60 for `send`, 30 for the others. */
  timeout?: number;
  signal?: AbortSignal;
}

export interface SendOptions extends CallOptions {
  /** A user. Exactly one of `to` and `group`. */
  to?: string;
  group?: string;
  /** Any JSON. */
  body: unknown;
  /** With the same key within 24 hours it is stored once. Made by the client if absent. */
  key?: string;
}

export interface HistoryOptions extends CallOptions {
  /** The other user. Exactly one of `with` and `group`. */
  with?: string;
  group?: string;
  /** The page before this id; the newest page if neither `before` nor `after` is given. */
  before?: number;
  after?: number;
  limit?: number;
}

export interface HistoryPage {
  log: string;
  /** In the order of ids. */
  messages: Message[];
  /** Whether that direction goes on. */
  more: boolean;
}

export interface Conversation {
  /** The other user, or */
  user?: string;
  /** the group. */
  group?: string;
  /** Of a group: whether the user still is in it. */
  member?: boolean;
  last: Message;
}

export interface ConversationsPage {
  log: string;
  /** Newest first. */
  conversations: Conversation[];
  /** Give it back as `before` for the next page. */
  next: string | null;
  more: boolean;
}

export class HalleyError extends Error {
  /** Stable: a code of the server, or one of the client's (its README lists them). */
  readonly code: string;
  /** The HTTP status, if the server answered; else 0. */
  readonly status: number;
  /** A sentence that says what to do. */
  readonly detail: string;
  /** The client has stopped. */
  readonly fatal: boolean;
  /** Seconds that the server asks to wait. */
  readonly retryAfter?: number;
  /** Of a send that failed: send again with this key, and it is stored once at most. */
  readonly key?: string;
  /** All that the server said about it. */
  readonly problem?: Record<string, any>;
}

export class Halley {
  constructor(options: Options);
  readonly state: State;
  /** The transport in use. */
  readonly transport: Transport | undefined;
  /** All up to here was handed to the listeners. Opaque; keep it and give it back as `after`. */
  readonly cursor: string | undefined;
  /** Connects, and stays connected. */
  start(): void;
  /** Closes everything; resolves when that is done. */
  stop(): Promise<void>;
  /** Changes over at once; nothing is lost or repeated. */
  setTransport(transport: Transport | "auto"): void;
  /** Calls a function at each event; returns a function that ends this. */
  on<Name extends keyof Events>(event: Name, listener: Events[Name]): () => void;
  off<Name extends keyof Events>(event: Name, listener: Events[Name]): void;
  /** The messages as they come. Starts the client if need be; leaving the loop then stops it. A message
   * counts as handed over when the loop asks for the next one. */
  messages<Body = any>(): AsyncIterableIterator<Message<Body>>;
  send(options: SendOptions): Promise<Receipt>;
  history(options: HistoryOptions): Promise<HistoryPage>;
  conversations(options?: CallOptions & { before?: string; limit?: number }): Promise<ConversationsPage>;
}
