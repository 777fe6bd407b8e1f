/** @import { Message } from "../halley.d.ts" */
/** @import { Position, Sequence } from "./types.js" */

/** Conversations and groups whose last id is remembered. */
const CHAINS_MAX = 10_000;

/** The last id of each conversation and group, as far as this client has seen them. */
export class Chains {
  /** @type {Map<string, number>} */
  #last = new Map();
  /** Direct conversations that are not in `#last` have shown nothing after this id. It says nothing of groups, whose
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

  /** @param {Message} message */
  last(message) {
    const id = this.#last.get(Chains.#name(message));
    return id === undefined && message.sequence === "direct" ? this.#begun : id;
  }

  /** From here on everything is seen. @param {Position | undefined} position */
  begin(position) {
    this.#begun ??= position?.direct;
  }

  /** @param {Message} message */
  seen(message) {
    const name = Chains.#name(message);
    // Deleted first, so that the map stays in the order of the last change.
    this.#last.delete(name);
    this.#last.set(name, message.id);
    if (this.#last.size > CHAINS_MAX) this.#forget();
  }

  /** The one that has not changed for longest. */
  #forget() {
    const [[name, id]] = this.#last;
    this.#last.delete(name);
    if (this.#begun !== undefined && Chains.#sequence(name) === "direct") this.#begun = Math.max(this.#begun, id);
  }

  /** From here on the server has another history. @param {Position | undefined} position */
  cut(position) {
    this.#begun = undefined;
    for (const [name, id] of this.#last) {
      if (!position || id > position[Chains.#sequence(name)]) this.#last.delete(name);
    }
  }
}
