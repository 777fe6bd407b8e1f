// A clock that the test moves, and a server in memory: what the client does in minutes is tested in milliseconds, and
// "nothing happened for a minute" is a fact. One file must not use this for tests that run at the same time.

/** Everything in memory that follows from one event happens within this many turns of the event loop. */
const TURNS = 20;
const turn = () => new Promise((done) => setImmediate(done));

/** Stands for the global timers, `performance.now` and `Date.now` until the test ends. */
export class Clock {
  /** What `performance.now` says. */
  now = 0;
  /** The wall clock: a test may set it. */
  wall = Date.UTC(2026, 10, 27);
  /** @type {Map<number, { at: number, call: () => void }>} */
  #timers = new Map();
  #made = 0;

  /** @param {import("node:test").TestContext} t */
  constructor(t) {
    const set = (/** @type {() => void} */ call, ms = 0) => {
      const number = (this.#made += 1);
      this.#timers.set(number, { at: this.now + Math.max(ms, 1), call });
      return number;
    };
    t.mock.method(globalThis, "setTimeout", /** @type {any} */ (set));
    t.mock.method(globalThis, "clearTimeout", (/** @type {any} */ number) => void this.#timers.delete(number));
    t.mock.method(performance, "now", () => this.now);
    t.mock.method(Date, "now", () => this.wall);
  }

  /** Lets all follow that follows without time. */
  async settle() {
    for (let turns = 0; turns < TURNS; turns++) await turn();
  }

  /** Moves both clocks on; timers go off at their times. @param {number} ms */
  async advance(ms) {
    const end = this.now + ms;
    for (;;) {
      await this.settle();
      const [first] = [...this.#timers].sort(([a, one], [b, other]) => one.at - other.at || a - b);
      if (!first || first[1].at > end) break;
      const [number, { at, call }] = first;
      this.#timers.delete(number);
      this.#pass(at);
      call();
    }
    this.#pass(end);
  }

  /** Moves on, timer by timer, until something is so. Returns how long that took, milliseconds.
   * @param {() => unknown} condition @param {number} most */
  async until(condition, most = 24 * 3600_000) {
    const begun = this.now;
    await this.settle();
    while (!condition()) {
      const next = Math.min(...[...this.#timers.values()].map(({ at }) => at));
      if (next - begun > most) throw new Error(`not within ${most} ms: ${condition}`);
      await this.advance(next - this.now);
    }
    return this.now - begun;
  }

  /** @param {number} at */
  #pass(at) {
    this.wall += Math.max(at - this.now, 0);
    this.now = Math.max(at, this.now);
  }
}
