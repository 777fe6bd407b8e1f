// The panel "from push to screen": how long each message took on each leg of its way.

/** How many messages are kept for the sums, and how many of them are listed. */
const KEPT = 500;
const LISTED = 30;

const LEGS = [
  { key: "commit", name: "sent → committed" },
  { key: "travel", name: "committed → received" },
  { key: "paint", name: "received → painted" },
];

export class Times {
  #samples = [];
  #sums = document.getElementById("sums");
  #list = document.getElementById("times");
  #empty = document.getElementById("timing-empty");
  #rows = new Map();

  constructor() {
    for (const leg of [...LEGS, { key: "total", name: "sent → painted" }]) {
      this.#rows.set(leg.key, this.#sumRow(leg));
    }
    this.clear();
  }

  /** Takes messages that were painted `paint` milliseconds after they were received, and gives what is told of
   * them. `received` is as `Date.now()` says, like the times that others have put on the message. */
  add(arrivals) {
    const samples = arrivals.map(sampleOf);
    this.#samples.push(...samples);
    this.#samples.splice(0, this.#samples.length - KEPT);
    this.#list.prepend(...samples.slice(-LISTED).reverse().map(rowOf));
    while (this.#list.childElementCount > LISTED) this.#list.lastElementChild.remove();
    this.#show();
    return samples;
  }

  clear() {
    this.#samples = [];
    this.#list.replaceChildren();
    this.#show();
  }

  #show() {
    this.#empty.hidden = this.#samples.length > 0;
    for (const [key, cells] of this.#rows) {
      const values = this.#samples.map((sample) => sample[key]).filter((value) => value !== null);
      values.sort((one, other) => one - other);
      const shown = [values.at(0), median(values), values.at(-1)];
      cells.forEach((cell, index) => (cell.textContent = millis(shown[index] ?? null)));
    }
  }

  #sumRow({ key, name }) {
    const row = this.#sums.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.append(swatchOf(key), name);
    row.append(head);
    row.className = `sum-${key}`;
    return [row.insertCell(), row.insertCell(), row.insertCell()];
  }
}

function sampleOf({ message, text, received, paint, transport }) {
  const sent = message.body?.sent;
  const known = typeof sent === "number";
  return {
    message,
    text,
    transport,
    // Two clocks may differ; what took less than nothing took nothing that we could tell.
    commit: known ? Math.max(0, message.at - sent) : null,
    travel: Math.max(0, received - message.at),
    paint,
    total: known ? Math.max(0, received - sent) + paint : null,
  };
}

function rowOf(sample) {
  const item = document.createElement("li");
  const who = element("span", "times-who", sample.message.from);
  const what = element("span", "times-what", sample.text);
  const total = element("span", "times-total", sample.total === null ? "" : `${millis(sample.total)} ms`);
  who.dir = "auto";
  what.dir = "auto";
  const head = element("div", "times-head");
  head.append(who, what, total);
  const bar = element("div", "bar");
  bar.ariaHidden = "true";
  const legs = element("p", "times-legs");
  for (const { key, name } of LEGS) {
    if (sample[key] !== null) {
      const part = element("span", `leg-${key}`);
      part.style.flexGrow = String(Math.max(sample[key], 0.05));
      bar.append(part);
    }
    const leg = element("span", "");
    leg.title = name;
    leg.append(swatchOf(key), element("span", "hidden", `${name}: `), millis(sample[key]));
    legs.append(leg);
  }
  legs.append(element("span", "times-by", sample.transport ?? ""));
  item.append(head, bar, legs);
  return item;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function swatchOf(key) {
  const swatch = element("span", `swatch leg-${key}`);
  swatch.ariaHidden = "true";
  return swatch;
}

function median(sorted) {
  if (sorted.length === 0) return undefined;
  const middle = sorted.length / 2;
  if (sorted.length % 2 === 1) return sorted[Math.floor(middle)];
  return (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Milliseconds with as many digits as they are worth. */
export function millis(value) {
  if (value === null || value === undefined) return "–";
  return value < 10 ? value.toFixed(1) : String(Math.round(value));
}
