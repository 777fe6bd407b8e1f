/** Types of halley.js. */

interface Stored<Body> {
  /** Rises within its sequence and is never given twice. */
  id: number;
  /** The id before it in its conversation or group; 0 for the first. */
  prev: number;
  /** Its number in its conversation or group: one more than the message before it, 1 for the first. */
  n: number;
  from: string;
  /** When it was stored, Unix milliseconds. */
  at: number;
  body: Body;
}

/** A message from one user to another. */
export interface DirectMessage<Body = any> extends Stored<Body> {
  sequence: "direct";
  /** The receiver. */
  to: string;
  group?: undefined;
}

export interface GroupMessage<Body = any> extends Stored<Body> {
  sequence: "group";
  group: string;
  to?: undefined;
}

/** A message as the server sends it. `sequence` tells the two kinds apart. */
export type Message<Body = any> = DirectMessage<Body> | GroupMessage<Body>;

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
 * - `connecting`: connecting to the server
 * - `live`: messages arrive as they are sent
 * - `waiting`: a pause before the next attempt
 * - `stopped`: by `stop()`, or for good by an error
 */
export type State = "idle" | "connecting" | "live" | "waiting" | "stopped";

export interface StateChange {
  state: State;
  /** The transport in use, or the last one. */
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
  /** The cursor to continue from. Later messages that you have stored may not exist on the server. */
  restart: string;
  /** The refused cursor. */
  cursor: string | undefined;
  detail: string;
}

interface Missing {
  /** The last id that was known; where nothing of a conversation was known yet, where the client began. */
  after: number;
  /** The id of the message that showed the gap. */
  before: number;
  /** Nothing is missing any more, by `n` and by `prev`. It cannot be so where the user may not see what is missing, such as what a
   * group said while they were not a member. */
  complete: boolean;
}

export interface DirectGap extends Missing {
  sequence: "direct";
  /** The other user. */
  with: string;
  group?: undefined;
  /** What was missing. The `message` listeners have just received these too. */
  messages: DirectMessage[];
}

export interface GroupGap extends Missing {
  sequence: "group";
  group: string;
  with?: undefined;
  /** What was missing. The `message` listeners have just received these too. */
  messages: GroupMessage[];
}

export type Gap = DirectGap | GroupGap;

export interface Events {
  /** A message, and the cursor after it. A listener may return a promise: the next message waits for it. */
  message: (message: Message, cursor: string) => unknown;
  state: (change: StateChange) => unknown;
  /** The cursor has moved. */
  cursor: (cursor: string) => unknown;
  reset: (reset: Reset) => unknown;
  gap: (gap: Gap) => unknown;
  /** Anything that went wrong. If `error.fatal`, the client has stopped; otherwise it retries by itself. */
  error: (error: HalleyError) => unknown;
}

/** Where the cursor is kept: `localStorage`, or anything like it, also with promises. */
export interface CursorStorage {
  getItem(key: string): string | null | undefined | Promise<string | null | undefined>;
  setItem(key: string, value: string): unknown;
}

/** What the client uses of a WebSocket. */
export interface WebSocketLike {
  onmessage: any;
  onclose: any;
  onerror: any;
  send(text: string): void;
  close(code?: number): void;
  /** Ends it without waiting for the peer, where there is such a method (`ws`). */
  terminate?: () => void;
}

export type WebSocketConstructor = new (url: string) => WebSocketLike;

export interface Options {
  /** The client address of the server, such as `https://push.example`. Default: the page's own origin. */
  url?: string | URL;
  /** The user's token, or a function that gets one from your backend: called for the first token, before one
   * expires, and when one is refused; it has 15 s. `null` or `""` means that there is no user any more: the client
   * stops. */
  token: string | (() => string | null | undefined | Promise<string | null | undefined>);
  /** `auto` (default): the WebSocket, else SSE, else polls, and better ones again later. */
  transport?: Transport | "auto";
  /** The cursor to begin with, if `storage` has none: `"0"` (default) for everything, `"now"` for new messages only. */
  after?: string;
  /** Where to keep the cursor. Each open tab has one of its own: see the README. */
  storage?: CursorStorage;
  /** Default: `halley:` with the server's address and the user. */
  storageKey?: string;
  /** Seconds between signs of life, 5 to 300; default 30. Two missing ones end a connection. */
  heartbeat?: number;
  /** Seconds that a poll is held, 1 to 300; default 30. */
  wait?: number;
  /** What to do when the server cannot continue from the cursor; default `restart`. */
  onReset?: (reset: Reset) => "restart" | "stop" | Promise<"restart" | "stop">;
  /** A WebSocket constructor where there is no global one (Node 20: `ws` of npm). */
  WebSocket?: WebSocketConstructor;
  /** A fetch of your own. */
  fetch?: typeof globalThis.fetch;
  /** Times in milliseconds, for tests. */
  timing?: Partial<Timing>;
}

export interface Timing {
  /** The first pause after a failure; it doubles from there. */
  backoffMin: number;
  backoffMax: number;
  /** How long a connection may take until the server says something. */
  connect: number;
  /** How long an open connection may be silent: two heartbeats and 5 s. */
  silence: number;
  /** How long one request may take, beyond the time that it is held; and one call of your token function. */
  request: number;
  /** When `auto` tries a better transport again; it doubles, up to ten times as long. */
  better: number;
  /** How long `stop()`, and a `start()` after it, waits for listeners that are still at work. */
  grace: number;
}

export interface CallOptions {
  /** Seconds until the call fails; 60 for `send`, 30 for the others. */
  timeout?: number;
  signal?: AbortSignal;
}

/** One user or one group. */
export type Receiver = { to: string; group?: undefined } | { group: string; to?: undefined };

export type SendOptions = CallOptions &
  Receiver & {
    /** Any JSON: at most 64 levels deep, without halves of surrogate pairs, at most 64 KiB unless the server's
     * `--body-bytes-max` says otherwise. */
    body: {} | null;
    /** With the same key within 24 hours it is stored once. Default: a random one. */
    key?: string;
  };

/** A conversation with one user, or one group. */
export type Place = { with: string; group?: undefined } | { group: string; with?: undefined };

/** The page before an id, the page after one, or the newest page. */
export type Bounds = { before?: number; after?: undefined } | { after?: number; before?: undefined };

export type HistoryOptions = CallOptions & Place & Bounds & { limit?: number };

export interface HistoryPage {
  log: string;
  /** In the order of ids. */
  messages: Message[];
  /** Whether there are more in that direction. */
  more: boolean;
}

export interface DirectConversation {
  /** The other user. */
  user: string;
  group?: undefined;
  member?: undefined;
  last: DirectMessage;
}

export interface GroupConversation {
  group: string;
  user?: undefined;
  /** Whether the user is still a member. */
  member: boolean;
  /** `null` if the group has no message yet. */
  last: GroupMessage | null;
}

export type Conversation = DirectConversation | GroupConversation;

export interface ConversationsPage {
  log: string;
  /** Newest first. */
  conversations: Conversation[];
  /** Pass it as `before` for the next page. */
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
  /** The server's whole answer. */
  readonly problem?: Record<string, any>;
}

export class Halley {
  constructor(options: Options);
  readonly state: State;
  /** The transport in use. */
  readonly transport: Transport | undefined;
  /** Everything up to here was delivered to the listeners. Opaque; keep it, and pass it as `after`. */
  readonly cursor: string | undefined;
  /** Connects, and stays connected. */
  start(): void;
  /** Closes everything; resolves when that is done. */
  stop(): Promise<void>;
  /** Changes the transport at once; nothing is lost or repeated. */
  setTransport(transport: Transport | "auto"): void;
  /** Calls a function at each event; returns a function that ends this. */
  on<Name extends keyof Events>(event: Name, listener: Events[Name]): () => void;
  off<Name extends keyof Events>(event: Name, listener: Events[Name]): void;
  /** The messages as they arrive. Starts the client if need be; leaving the loop then stops it. A message
   * counts as delivered when the loop asks for the next one. */
  messages<Body = any>(): AsyncIterableIterator<Message<Body>>;
  send(options: SendOptions): Promise<Receipt>;
  history(options: HistoryOptions): Promise<HistoryPage>;
  conversations(options?: CallOptions & { before?: string; limit?: number }): Promise<ConversationsPage>;
}

export {};
