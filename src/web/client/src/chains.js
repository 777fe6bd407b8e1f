/** @import { Message } from "../halley.d.ts" */
/** @import { ChainEnd, Position, Sequence } from "./types.js" */

/** Conversations and groups whose end is remembered. */
const CHAINS_MAX = 10_000;

/** The end of each conversation and group, as far as this client has seen them. */
export class Chains {
  /** @type {Map<string, ChainEnd>} */
  #ends = new Map();
  /** Direct conversations that are not in `#ends` have shown nothing after this id. It says nothing of groups, whose
   * members come and go. @type {number | undefined} */
  #begun;

  /** @param {Message} message */
  static #name({ sequence, group, from, to }) {
    return JSON.stringify(sequence === "group" ? [sequence, group] : [sequence, ...[from, to].sort()]);
  }

  /** @param {string} name @returns {Sequence} */
  static #sequence(name) {
    return JSON.parse(name)[0];
  }

  /** The end that a message should follow. @param {Message} message @returns {ChainEnd | undefined} */
  end(message) {
    const end = this.#ends.get(Chains.#name(message));
    if (end || message.sequence === "group" || this.#begun === undefined) return end;
    return this.#begun === 0 ? { id: 0, n: 0 } : { id: this.#begun };
  }

  /** Whether nothing is missing between an end and a message. @param {ChainEnd} end @param {Message} message */
  static follows({ id, n }, message) {
    // Both are asked: a number that is right proves nothing where the server names another message before it.
    return n === undefined ? message.prev <= id : message.prev === id && message.n === n + 1;
  }

  /** From here on everything is seen. @param {Position | undefined} position */
  begin(position) {
    this.#begun ??= position?.direct;
  }

  /** @param {Message} message */
  seen(message) {
    const name = Chains.#name(message);
    // Deleted first, so that the map stays in the order of the last change.
    this.#ends.delete(name);
    this.#ends.set(name, { id: message.id, n: message.n });
    if (this.#ends.size > CHAINS_MAX) this.#forget();
  }

  /** The one that has not changed for longest. */
  #forget() {
    const [[name, { id }]] = this.#ends;
    this.#ends.delete(name);
    if (this.#begun !== undefined && Chains.#sequence(name) === "direct") this.#begun = Math.max(this.#begun, id);
  }

  /** From here on the server has another history. @param {Position | undefined} position */
  cut(position) {
    this.#begun = undefined;
    for (const [name, { id }] of this.#ends) {
      if (!position || id > position[Chains.#sequence(name)]) this.#ends.delete(name);
    }
  }
}
