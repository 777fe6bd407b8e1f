/** @import { CursorStorage } from "../halley.d.ts" */

import { HalleyError } from "./errors.js";
import { inTime, Limit } from "./time.js";

/** How long a tab that was reloaded waits for its own slot. */
const OWN_SLOT_MS = 1000;

/**
 * The cursor as it is kept between visits.
 *
 * Each open tab has one of its own. If all moved the same one, what one tab shows while another is closed would never
 * be seen in the other. So the cursors are in numbered slots: a tab takes the first one that no other tab holds, and
 * keeps it over a reload. With one tab at a time this is always the same slot. Web Locks say which are held: a tab
 * that is gone holds none, however it ended. Pages without TLS do not have them, and share the first slot.
 */
export class StoredCursor {
  #storage;
  #name;
  #patience;
  /** @type {Slot | undefined} */
  #slot;

  /** @param {CursorStorage} storage @param {() => string} name of the first slot
   * @param {number} patience milliseconds that one access may take */
  constructor(storage, name, patience) {
    this.#storage = storage;
    this.#name = name;
    this.#patience = patience;
  }

  /** Takes a slot, for as long as the client runs. @param {AbortSignal} signal */
  async hold(signal) {
    this.#slot ??= await takeSlot(this.#name(), signal);
  }

  release() {
    this.#slot?.release();
    this.#slot = undefined;
  }

  get #key() {
    return this.#slot?.key ?? this.#name();
  }

  /** @param {AbortSignal} signal */
  async read(signal) {
    try {
      return await inTime(() => this.#storage.getItem(this.#key), this.#patience, signal);
    } catch (cause) {
      throw new HalleyError("storage_failed", `cannot read the stored cursor: ${cause}`, { cause });
    }
  }

  /** @param {string} cursor */
  async write(cursor) {
    try {
      await inTime(() => this.#storage.setItem(this.#key, cursor), this.#patience);
    } catch (cause) {
      throw new HalleyError("storage_failed", `cannot store the cursor: ${cause}`, { cause });
    }
  }
}

/** @typedef {{ key: string, release: () => void }} Slot */

/** @param {string} name @param {AbortSignal} signal @returns {Promise<Slot>} */
async function takeSlot(name, signal) {
  // Programs have no tabs: their storage is their own.
  const locks = globalThis.document && globalThis.navigator.locks;
  if (!locks) return { key: name, release: () => {} };
  try {
    return (await ownSlot(locks, name, signal)) ?? (await freeSlot(locks, name));
  } catch {
    // The browser does not let this page have locks.
    return { key: name, release: () => {} };
  }
}

/** The slot that this tab had before it was reloaded. The page before may still be on its way out. A tab that was
 * duplicated has the same memory, and waits in vain.
 * @param {LockManager} locks @param {string} name @param {AbortSignal} signal */
async function ownSlot(locks, name, signal) {
  const key = tabMemory()?.getItem(name);
  if (!key) return undefined;
  const limit = new Limit(signal);
  limit.expect(OWN_SLOT_MS);
  try {
    return await lockSlot(locks, key, { signal: limit.signal });
  } catch (error) {
    if (limit.signal.aborted) return undefined;
    throw error;
  } finally {
    // A lock that was granted stays.
    limit.close();
  }
}

/** @param {LockManager} locks @param {string} name @returns {Promise<Slot>} */
async function freeSlot(locks, name) {
  for (let number = 1; ; number++) {
    const key = number === 1 ? name : `${name}:${number}`;
    const slot = await lockSlot(locks, key, { ifAvailable: true });
    if (!slot) continue;
    tabMemory()?.setItem(name, key);
    return slot;
  }
}

/** @param {LockManager} locks @param {string} key @param {LockOptions} options @returns {Promise<Slot | undefined>} */
function lockSlot(locks, key, options) {
  return new Promise((resolve, reject) => {
    /** @param {Lock | null} lock */
    const held = (lock) => {
      if (!lock) return resolve(undefined);
      // The lock is held until this promise resolves.
      return new Promise((release) => resolve({ key, release: () => release(undefined) }));
    };
    locks.request(key, options, held).catch(reject);
  });
}

/** What a tab keeps over a reload, if the browser lets it. */
function tabMemory() {
  try {
    return globalThis.sessionStorage;
  } catch {
    return undefined;
  }
}
