// The overview: what /v1/status says, every two seconds, with the last minutes as small curves.

import { bytes, duration, element, number, stamp } from "./admin-nodes.js";

const ASK_MS = 2000;
/** A status older than this is not shown as the present one. */
const STALE_MS = 5000;
/** Five minutes. */
const KEPT = 150;
/** A curve begins at this width, so that the first minute is not a sliver. */
const WIDE = 30;
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 120;
const HEIGHT = 36;

/** What is shown of a status `now` after a status `before`; `null` is not known. */
const TILES = [
  { name: "Messages pushed", unit: "a second", of: rate((status) => status.watermark.direct + status.watermark.group) },
  { name: "Messages delivered", unit: "a second", of: rate((status) => status.delivered) },
  { name: "Held requests", of: ({ now }) => held(now) },
  { name: "Connections", of: ({ now }) => now.connections.client + now.connections.admin, about: ({ connections }) => `${number(connections.client)} clients, ${number(connections.admin)} backends` },
  { name: "Waiting for the disk", of: ({ now }) => now.queued_bytes, show: bytes },
  { name: "Data on disk", of: ({ now }) => now.journal.bytes + now.view_bytes, show: bytes, about: ({ journal, view_bytes }) => `${bytes(journal.bytes)} journal, ${bytes(view_bytes)} view` },
  { name: "Disk free", of: ({ now }) => now.disk_free_bytes, show: bytes },
  { name: "Last ids", of: ({ now }) => now.watermark.direct + now.watermark.group, about: ({ watermark }) => `${number(watermark.direct)} direct, ${number(watermark.group)} group` },
];

const TRANSPORTS = ["socket", "sse", "stream", "poll", "icomet"];

/** The growth of a number a second. */
function rate(of) {
  return ({ now, before, seconds }) => {
    const [newer, older] = [of(now), before && of(before)];
    if (newer === undefined || older === undefined || !(seconds > 0)) return null;
    // A restarted server counts from the beginning.
    return newer >= older ? (newer - older) / seconds : null;
  };
}

function held(status) {
  if (!status.held) return status.waiters ?? null;
  return Object.values(status.held).reduce((sum, count) => sum + count, 0);
}

/** Asks as long as it is not stopped. */
export class Live {
  #ask;
  #timer;
  #before;
  #beforeMs = 0;
  #answeredAt = 0;
  #tiles = new Map();

  /** @param ask gives the status, or throws. */
  constructor(ask) {
    this.#ask = ask;
    const made = TILES.map((tile) => {
      const box = element("div", "tile card");
      const value = element("dd", "value", "–");
      const about = element("dd", "note");
      const curve = makeCurve();
      box.append(element("dt", "", tile.name), value, about, curve.svg);
      this.#tiles.set(tile, { value, about, curve, values: [] });
      return box;
    });
    document.getElementById("tiles").replaceChildren(...made);
  }

  start() {
    if (this.#timer !== undefined) return;
    if (this.#answeredAt && Date.now() - this.#answeredAt > STALE_MS) {
      this.#forget();
      health("", "Loading…");
    }
    void this.#round();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#before = undefined;
  }

  async #round() {
    // Set at once, so that a second start does not make a second round.
    const mine = (this.#timer = setTimeout(() => {}, 0));
    // A server that hangs gives no error for a long time.
    const late = setTimeout(() => mine === this.#timer && this.#silent("the server is slow to answer"), STALE_MS - ASK_MS);
    try {
      const status = await this.#ask();
      if (mine !== this.#timer) return;
      this.#show(status);
    } catch (error) {
      if (mine !== this.#timer) return;
      this.#silent(error.message);
    } finally {
      clearTimeout(late);
    }
    this.#timer = setTimeout(() => this.#round(), ASK_MS);
  }

  #show(now) {
    const ms = performance.now();
    const seconds = (ms - this.#beforeMs) / 1000;
    for (const [tile, shown] of this.#tiles) {
      const value = tile.of({ now, before: this.#before, seconds });
      keep(shown.values, value);
      shown.text = value === null ? "–" : (tile.show ?? number)(value);
      shown.value.replaceChildren(shown.text);
      if (tile.unit) shown.value.append(element("span", "unit", ` ${tile.unit}`));
      shown.about.textContent = tile.about?.(now) ?? range(shown.values, tile.show ?? number);
      shown.curve.draw(shown.values);
    }
    [this.#before, this.#beforeMs, this.#answeredAt] = [now, ms, Date.now()];
    showHeld(now);
    showFacts(now);
    const well = now.writes === "ok";
    health(well ? "good" : "bad", well ? "The server accepts messages." : `The server refuses messages: ${now.writes}`);
    document.getElementById("asked").textContent = "updated every 2 s";
    document.getElementById("version").textContent = `version ${now.version}`;
  }

  #silent(reason) {
    this.#forget();
    const since = this.#answeredAt ? ` since ${stamp(this.#answeredAt)}` : "";
    health("bad", `No answer${since}: ${reason}`);
  }

  /** The present state is unknown: the last values are shown with their time. */
  #forget() {
    this.#before = undefined;
    const at = this.#answeredAt ? stamp(this.#answeredAt) : "";
    for (const shown of this.#tiles.values()) {
      keep(shown.values, null);
      shown.curve.draw(shown.values);
      shown.value.replaceChildren("–");
      shown.about.textContent = at && shown.text !== "–" ? `${shown.text} at ${at}` : "";
    }
    document.getElementById("asked").textContent = at && `last answer ${at}`;
    const unknown = at ? `Unknown since ${at}` : "Unknown";
    document.getElementById("held").replaceChildren(element("p", "note", unknown));
    document.getElementById("facts").replaceChildren(element("dt", "", "State"), element("dd", "", unknown));
  }
}

function keep(values, value) {
  values.push(value);
  if (values.length > KEPT) values.shift();
}

function health(kind, text) {
  const shown = document.getElementById("health");
  shown.dataset.kind = kind;
  // Said again only if it is something else.
  if (shown.textContent !== text) shown.textContent = text;
}

function range(values, show) {
  const known = values.filter((value) => value !== null);
  const [least, most] = [show(Math.min(...known)), show(Math.max(...known))];
  return known.length < 2 || least === most ? "" : `${least} to ${most} lately`;
}

function showHeld(status) {
  const box = document.getElementById("held");
  if (!status.held) {
    box.replaceChildren(element("p", "note", `${number(status.waiters ?? 0)} held; this server does not tell them apart.`));
    return;
  }
  const names = [...new Set([...TRANSPORTS, ...Object.keys(status.held)])].filter((name) => name in status.held);
  const most = Math.max(1, ...Object.values(status.held));
  const table = element("table", "bars");
  const head = table.createCaption();
  head.className = "hidden";
  head.textContent = "Held requests and connections by transport";
  for (const name of names) {
    const row = table.insertRow();
    const label = element("th", "", name);
    label.scope = "row";
    const count = element("td", "bar-count", number(status.held[name]));
    const cell = element("td", "bar-cell");
    const bar = element("span", "bar");
    bar.style.width = `${(100 * status.held[name]) / most}%`;
    cell.append(bar);
    row.append(label, count, cell);
  }
  box.replaceChildren(table);
}

function showFacts(status) {
  const facts = [
    ["Up for", duration(status.uptime_s)],
    ["Log id", status.log],
    ["Last direct id", number(status.watermark.direct)],
    ["Last group id", number(status.watermark.group)],
    ["Journal", `${number(status.journal.offset)} entries in ${number(status.journal.segments)} ${status.journal.segments === 1 ? "file" : "files"}`],
    ...(status.journal.damage ? [["Damage", status.journal.damage]] : []),
    ["Applied", `${number(status.applied)} entries`],
    ["Writes", status.writes],
  ];
  const box = document.getElementById("facts");
  box.replaceChildren(...facts.flatMap(([name, value]) => [element("dt", "", name), element("dd", "", String(value))]));
}

/** A curve that fills its box, from the oldest on the left to now on the right. */
function makeCurve() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("curve");
  const area = document.createElementNS(SVG, "path");
  const line = document.createElementNS(SVG, "path");
  area.classList.add("area");
  line.classList.add("line");
  svg.append(area, line);
  return { svg, draw: (values) => draw(values, area, line) };
}

function draw(values, area, line) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) {
    area.setAttribute("d", "");
    line.setAttribute("d", "");
    return;
  }
  const least = Math.min(...known);
  const most = Math.max(...known);
  // A steady value is a line in the middle, not noise over the whole height.
  const margin = most - least <= most * 0.02 ? most * 0.02 : 0;
  const low = least - margin;
  const high = most + margin;
  const x = (index) => WIDTH - (values.length - 1 - index) * (WIDTH / (Math.max(WIDE, values.length) - 1));
  const y = (value) => HEIGHT - 2 - ((value - low) / (high - low || 1)) * (HEIGHT - 4);
  // What is not known is a gap.
  const pieces = [[]];
  for (const [index, value] of values.entries()) {
    if (value === null) pieces.push([]);
    else pieces.at(-1).push([x(index).toFixed(1), y(value).toFixed(1)].join(" "));
  }
  const lines = pieces.filter((points) => points.length > 1);
  line.setAttribute("d", lines.map((points) => `M${points.join("L")}`).join(""));
  area.setAttribute("d", lines.map((points) => `M${foot(points.at(0))}L${points.join("L")}L${foot(points.at(-1))}Z`).join(""));
}

/** The place at the bottom below a point. */
function foot(point) {
  return `${point.split(" ")[0]} ${HEIGHT}`;
}
