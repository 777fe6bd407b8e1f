// Nodes of the chat page that need some care: links within texts, and lists for the keyboard.

/** What may be a link. Control and format characters are left out: they could show another address than is opened. */
const ADDRESS = /\bhttps?:\/\/[^\s<>"\p{Cc}\p{Cf}]+/giu;
const CLOSING = new Map([[")", "("], ["]", "["], ["}", "{"]]);

/** A text with its web addresses as links. */
export function linked(text) {
  const nodes = document.createDocumentFragment();
  let done = 0;
  for (const { 0: found, index } of text.matchAll(ADDRESS)) {
    const address = withoutPunctuation(found);
    const url = urlOf(address);
    if (!url) continue;
    nodes.append(text.slice(done, index), linkTo(url, address));
    done = index + address.length;
  }
  nodes.append(text.slice(done));
  return nodes;
}

/** The address without the end of the sentence that it stands in. */
function withoutPunctuation(found) {
  const count = (character) => found.split(character).length - 1;
  const surplus = new Map([...CLOSING].map(([close, open]) => [close, count(close) - count(open)]));
  let end = found.length;
  for (; end > 0; end--) {
    const last = found[end - 1];
    if (CLOSING.has(last)) {
      // A bracket that was opened within the address belongs to it.
      if (surplus.get(last) <= 0) break;
      surplus.set(last, surplus.get(last) - 1);
    } else if (!".,;:!?'*_~…”’»".includes(last)) {
      break;
    }
  }
  return found.slice(0, end);
}

/** Only web addresses, and none that names a user: that part looks like the host to a hasty reader. */
function urlOf(address) {
  try {
    const url = new URL(address);
    return /^https?:$/.test(url.protocol) && !url.username && !url.password ? url : null;
  } catch {
    return null;
  }
}

function linkTo(url, text) {
  const link = document.createElement("a");
  link.textContent = text;
  link.href = url.href;
  // The host as it is opened, if it was written in other letters.
  link.title = url.href;
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow";
  return link;
}

/** Makes a list one stop of the Tab key, whatever its length; arrows, Home and End move within it. Without a focused
 * or current item, the stop is the item at `start`. */
export function oneStop(list, selector, start = 0) {
  const items = () => [...list.querySelectorAll(selector)];
  const mark = () => {
    const all = items();
    const stop = all.find((item) => item === document.activeElement) ?? all.find((item) => item.hasAttribute("aria-current")) ?? all.at(start);
    for (const item of all) item.tabIndex = item === stop ? 0 : -1;
  };
  new MutationObserver(mark).observe(list, { childList: true, subtree: true });
  list.addEventListener("focusin", mark);
  list.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const all = items();
    const at = all.indexOf(document.activeElement);
    if (at < 0) return;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    all[to]?.focus();
  });
}
