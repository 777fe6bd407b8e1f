/** @import { Events } from "../halley.d.ts" */

import { HalleyError } from "./errors.js";

/** The application's listeners. */
export class Emitter {
  /** @type {{ [Name in keyof Events]: Set<Events[Name]> }} */
  #listeners = {
    message: new Set(),
    state: new Set(),
    cursor: new Set(),
    reset: new Set(),
    gap: new Set(),
    error: new Set(),
  };

  /** @template {keyof Events} Name @param {Name} event */
  of(event) {
    return this.#listeners[event];
  }

  /** @template {keyof Events} Name @param {Name} event @param {Events[Name]} listener */
  on(event, listener) {
    if (!Object.hasOwn(this.#listeners, event)) throw new TypeError(`unknown event ${JSON.stringify(event)}`);
    this.#listeners[event].add(listener);
  }

  /** @template {keyof Events} Name @param {Name} event @param {Events[Name]} listener */
  off(event, listener) {
    this.#listeners[event]?.delete(listener);
  }

  /** Calls the listeners. One that fails does not make the others or the client fail.
   * @template {keyof Events} Name @param {Name} event @param {Parameters<Events[Name]>} values */
  emit(event, ...values) {
    for (const listener of [...this.#listeners[event]]) {
      try {
        const outcome = /** @type {(...values: unknown[]) => unknown} */ (listener)(...values);
        Promise.resolve(outcome).catch((cause) => this.#failed(event, cause));
      } catch (cause) {
        this.#failed(event, cause);
      }
    }
  }

  /** @param {string} event @param {unknown} cause */
  #failed(event, cause) {
    // A failing `error` listener cannot be told of its own failure.
    if (event === "error") return console.error("halley: a listener of error failed:", cause);
    this.emit("error", new HalleyError("listener_failed", `a listener of ${event} failed: ${cause}`, { cause }));
  }
}
