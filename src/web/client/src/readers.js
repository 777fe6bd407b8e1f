/** @import { HalleyError } from "./errors.js" */
/** @import { Message } from "../halley.d.ts" */

/** One message on its way to several readers: delivered when the last of them is done. */
export class Handover {
  #left;
  #commit;
  /** @type {() => void} */
  #finish = () => {};
  complete = new Promise((resolve) => (this.#finish = () => resolve(undefined)));

  /** @param {number} readers @param {() => Promise<void>} commit */
  constructor(readers, commit) {
    this.#left = readers;
    this.#commit = commit;
  }

  async done() {
    this.#left -= 1;
    if (this.#left > 0) return;
    await this.#commit();
    this.#finish();
  }
}

/** What `messages()` returns. It has no queue: the client waits until the loop asks again. */
export class Reader {
  #leave;
  /** @type {{ message: Message, handover: Handover } | undefined} */
  #offer;
  /** @type {Handover | undefined} */
  #current;
  /** @type {(() => void) | undefined} */
  #wake;
  #over = false;
  /** @type {HalleyError | undefined} */
  #error;
  /** The last `next`: each begins when the one before it has its message. @type {Promise<unknown>} */
  #turn = Promise.resolve();

  /** @param {(reader: Reader, current: Handover | undefined) => Promise<void>} leave */
  constructor(leave) {
    this.#leave = leave;
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** @param {Message} message @param {Handover} handover */
  give(message, handover) {
    this.#offer = { message, handover };
    this.#wake?.();
  }

  /** Nothing more comes. @param {HalleyError} [error] */
  end(error) {
    this.#over = true;
    this.#error = error;
    this.#offer = undefined;
    this.#wake?.();
  }

  /** @returns {Promise<IteratorResult<Message, undefined>>} */
  next() {
    const turn = this.#turn.then(() => this.#next());
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** @returns {Promise<IteratorResult<Message, undefined>>} */
  async #next() {
    // Asking for the next one says that the last one is done; after the end too.
    const current = this.#current;
    this.#current = undefined;
    await current?.done();
    while (!this.#offer && !this.#over) {
      await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
    }
    const offer = this.#offer;
    if (!offer) {
      const error = this.#error;
      this.#error = undefined;
      if (error) throw error;
      return { done: true, value: undefined };
    }
    this.#offer = undefined;
    this.#current = offer.handover;
    return { done: false, value: offer.message };
  }

  /** The loop was left. @returns {Promise<IteratorResult<Message, undefined>>} */
  async return() {
    const current = this.#current ?? this.#offer?.handover;
    this.#current = undefined;
    this.end();
    await this.#leave(this, current);
    return { done: true, value: undefined };
  }
}
