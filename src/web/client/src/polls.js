/** @import { Connection } from "./connection.js" */
/** @import { Page } from "./types.js" */

import { errorOf } from "./server.js";
import { Limit, now, sleep } from "./time.js";

/** A held poll without messages that returns sooner than this was not held. */
const HELD_MS_MIN = 200;

/** One poll. @param {Connection} connection @param {number} wait @returns {Promise<Page>} */
export async function pollOnce(connection, wait) {
  const { server, signal } = connection;
  const limit = new Limit(signal);
  limit.expect(wait * 1000 + server.timing.request);
  try {
    const url = server.address("v1/inbox", { after: connection.currentCursor(), wait });
    const page = await server.requestJson(connection, url, limit);
    connection.heard();
    return page;
  } catch (error) {
    throw errorOf(error, limit);
  } finally {
    limit.close();
  }
}

/** @param {Connection} connection @returns {AsyncGenerator<Page, void>} */
export async function* polls(connection) {
  // The first is answered at once, which shows that the server is there.
  let wait = 0;
  for (;;) {
    const begun = now();
    const page = await pollOnce(connection, wait);
    connection.live();
    yield page;
    // Not held although it was to be: something is ending. Without a pause this would be a busy loop.
    const hasty = wait > 0 && page.messages.length === 0 && now() - begun < HELD_MS_MIN;
    if (hasty) await sleep(HELD_MS_MIN + Math.random() * 800, connection.signal);
    wait = page.more ? 0 : connection.server.wait;
  }
}
