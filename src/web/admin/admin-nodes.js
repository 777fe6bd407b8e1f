// Nodes and numbers, as every section of the admin page shows them.

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** A name or text of a user within other text: written from right to left it does not turn what stands around it. */
export function bdi(text) {
  return element("bdi", "", text);
}

/** A refusal as the server said it: title, detail, code. */
export function trouble(error) {
  const box = element("div", "problem");
  box.setAttribute("role", "alert");
  const { problem } = error;
  const title = problem?.title ?? "The request failed";
  box.append(element("p", "problem-title", title));
  const detail = error.message.charAt(0).toUpperCase() + error.message.slice(1);
  if (detail !== title) box.append(element("p", "", detail));
  if (problem?.code) box.append(element("p", "note", `${error.status} ${problem.code}`));
  return box;
}

/** @param title a text, or a list of texts and nodes */
export function card(title, nodes) {
  const box = element("section", "card");
  const heading = element("h3");
  heading.append(...[title].flat());
  box.append(heading, ...nodes);
  return box;
}

/** A table that scrolls sideways if need be. The label is for screen readers. */
export function table(label, heads, rows) {
  const frame = element("div", "table-frame");
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", label);
  const made = element("table");
  const head = made.createTHead().insertRow();
  for (const text of heads) {
    const cell = element("th", "", text);
    cell.scope = "col";
    head.append(cell);
  }
  made.createTBody();
  frame.append(made);
  addRows(frame, rows);
  return frame;
}

export function addRows(frame, rows) {
  const body = frame.querySelector("tbody");
  const heads = [...frame.querySelectorAll("th")].map((cell) => cell.textContent);
  for (const row of rows) {
    const made = body.insertRow();
    row.forEach((content, index) => {
      const cell = made.insertCell();
      // A phone shows each row as a list, with these words.
      cell.dataset.head = heads[index];
      cell.append(content);
    });
  }
}

export function messageTable(label, messages) {
  return table(label, ["Id", "From", "To", "When", "Body"], messages.map(messageRow));
}

export function messageRow(message) {
  const link = element("a", "nowrap", `${message.sequence} ${message.id}`);
  link.href = `#messages/${message.sequence}/${message.id}`;
  return [link, bdi(message.from), bdi(message.group ?? message.to), element("span", "nowrap", stamp(message.at)), preview(message)];
}

export function preview({ body }) {
  const text = typeof body === "string" ? body : typeof body?.text === "string" ? body.text : jsonText(body);
  const shown = element("span", "preview", text.slice(0, 300));
  shown.dir = "auto";
  return shown;
}

/** JSON of a value. A body may be nested deeper than the browser's stack is. */
export function jsonText(value) {
  try {
    return JSON.stringify(value);
  } catch {
    return "(JSON nested too deeply to show here)";
  }
}

/** A button that is there as long as there is more. */
export function moreButton(text, more, next) {
  const button = element("button", "small", text);
  button.type = "button";
  button.hidden = !more;
  let told;
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      button.hidden = !(await next());
      told?.remove();
    } catch (error) {
      told?.remove();
      button.after((told = trouble(error)));
    } finally {
      button.disabled = false;
    }
  });
  return button;
}

const COUNT = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const FINE = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export function number(value) {
  return (value < 10 ? FINE : COUNT).format(value);
}

export function bytes(value) {
  const units = ["B", "KB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${(value < 10 && unit > 0 ? FINE : COUNT).format(value)} ${units[unit]}`;
}

export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

const STAMP = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });
const TIME = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** The time of day, with the date if it is not today's. */
export function stamp(ms) {
  const today = new Date(ms).toDateString() === new Date().toDateString();
  return (today ? TIME : STAMP).format(ms);
}
