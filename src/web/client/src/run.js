/** @import { Reader } from "./readers.js" */

/** From `start()` to `stop()`. */
export class Run {
  #controller = new AbortController();
  #release = new AbortController();
  /** @type {Promise<void>} */
  finished = Promise.resolve();
  failures = 0;
  /** @type {Set<Reader>} */
  readers = new Set();

  get signal() {
    return this.#controller.signal;
  }

  /** Nobody should be waited for any more. A signal, as a promise would keep a part of every message that was raced
   * against it. */
  get released() {
    return this.#release.signal;
  }

  stop() {
    this.#controller.abort();
  }

  release() {
    this.#release.abort();
  }
}
