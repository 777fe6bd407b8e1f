/** @import { Timing } from "../halley.d.ts" */

import { stopped } from "./errors.js";

/** The longest delay that `setTimeout` takes. */
export const TIMER_MS_MAX = 2 ** 31 - 1;

/** Milliseconds on a clock that only goes forward. The wall clock may be set back by an hour, and a connection that
 * has been silent since would look alive all that time; so every duration here is measured with this one. */
export const now = () => performance.now();

/** The upper limit of the pause after this many failures. @param {number} failures @param {Timing} timing */
export function backoffCeiling(failures, { backoffMin, backoffMax }) {
  return Math.min(backoffMax, backoffMin * 2 ** Math.min(failures, 30));
}

/** A random pause below the limit, so that clients that lost the server together do not return together.
 * @param {number} failures @param {Timing} timing */
export function backoff(failures, timing) {
  return Math.random() * backoffCeiling(failures, timing);
}

/** Waits; returns early when aborted. @param {number} ms @param {AbortSignal} signal @returns {Promise<void>} */
export function sleep(ms, signal) {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, Math.min(ms, TIMER_MS_MAX));
    signal.addEventListener("abort", done);
  });
}

/** A promise's outcome, or a rejection when it is aborted first.
 * @template T @param {Promise<T>} promise @param {AbortSignal} signal @returns {Promise<T>} */
export function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => reject(stopped());
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

/** An abort signal below others that can also run out of time. */
export class Limit {
  #controller = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {(() => void)[]} */
  #unlink = [];
  /** It ran out of time. */
  late = false;

  /** @param {(AbortSignal | undefined)[]} parents */
  constructor(...parents) {
    for (const parent of parents) if (parent) this.#link(parent);
  }

  /** @param {AbortSignal} parent */
  #link(parent) {
    const abort = () => this.#controller.abort();
    if (parent.aborted) abort();
    parent.addEventListener("abort", abort);
    this.#unlink.push(() => parent.removeEventListener("abort", abort));
  }

  get signal() {
    return this.#controller.signal;
  }

  /** A promise's outcome, or a rejection when this limit ends first. `fetch` and the bodies of its replies take the
   * signal too, but Node 20 does not always act on it.
   * @template T @param {Promise<T>} promise @returns {Promise<T>} */
  race(promise) {
    return unlessAborted(promise, this.signal);
  }

  /** Something must happen within this time. @param {number} ms */
  expect(ms) {
    this.relax();
    this.#timer = setTimeout(
      () => {
        this.late = true;
        this.#controller.abort();
      },
      Math.min(ms, TIMER_MS_MAX),
    );
  }

  relax() {
    clearTimeout(this.#timer);
  }

  /** Ends what still uses the signal. */
  close() {
    this.relax();
    this.#unlink.forEach((unlink) => unlink());
    this.#controller.abort();
  }
}

/** What a function of the application returns, unless it takes longer than allowed.
 * @template T @param {() => T | Promise<T>} call @param {number} ms @param {AbortSignal} [signal] @returns {Promise<T>} */
export async function inTime(call, ms, signal) {
  const limit = new Limit(signal);
  limit.expect(ms);
  try {
    return await limit.race(Promise.resolve(call()));
  } catch (cause) {
    throw limit.late ? new Error(`no answer within ${ms} ms`) : cause;
  } finally {
    limit.close();
  }
}
