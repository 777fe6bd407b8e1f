/** @import { Connection } from "./connection.js" */
/** @import { Ending, Page } from "./types.js" */

import { connectionLost, HalleyError } from "./errors.js";
import { EventStreamParser, LineSplitter, parseJson } from "./parsers.js";
import { errorOf, isType } from "./server.js";
import { Limit } from "./time.js";

/** The bytes of an endless reply. @param {Connection} connection @param {string} path @param {string} type
 * @returns {AsyncGenerator<Uint8Array, void>} */
async function* bytes(connection, path, type) {
  const { server } = connection;
  const limit = new Limit(connection.signal);
  limit.expect(server.timing.connect);
  try {
    const url = server.address(path, { after: connection.cursor, heartbeat: server.heartbeat });
    const reply = await server.request(connection, url, limit, { headers: { accept: type } });
    if (!isType(reply, type) || !reply.body) throw new HalleyError("bad_reply", `the reply is not ${type}`);
    const reader = reply.body.getReader();
    for (;;) {
      const { done, value } = await limit.race(reader.read());
      // While the application works, nobody reads, so the server's silence means nothing.
      limit.relax();
      if (done) throw connectionLost();
      connection.heard();
      yield value;
      limit.expect(connection.spoken ? server.timing.silence : server.timing.connect);
    }
  } catch (error) {
    throw errorOf(error, limit);
  } finally {
    limit.close();
  }
}

/** @param {Connection} connection @returns {AsyncGenerator<Page, void>} */
export async function* events(connection) {
  const parser = new EventStreamParser();
  for await (const chunk of bytes(connection, "v1/inbox/sse", "text/event-stream")) {
    // A comment is a sign of life as well, and may be all that comes for long.
    connection.live();
    for (const { event, data, id } of parser.push(chunk)) {
      const object = data === undefined ? undefined : parseJson(data);
      if (event === "end") {
        yield { messages: [], next: id };
        return ended(connection, object);
      }
      const named = event !== undefined && event !== "message";
      yield { messages: object === undefined || named ? [] : [object], next: id };
    }
  }
}

/** @param {Connection} connection @returns {AsyncGenerator<Page, void>} */
export async function* lines(connection) {
  const splitter = new LineSplitter(/\n/);
  for await (const chunk of bytes(connection, "v1/inbox/stream", "application/x-ndjson")) {
    for (const line of splitter.push(chunk)) {
      if (line === "") continue;
      const object = parseJson(line);
      connection.live();
      if (object.end) {
        yield { messages: [], next: object.end.next };
        return ended(connection, object.end);
      }
      yield object;
    }
  }
}

/** The server ended it: in order, or because something is wrong.
 * @param {Connection} connection @param {Ending} ending */
export function ended({ server, token }, { code, detail = "" }) {
  if (code === "stream_over") return;
  if (code === "token_expired") return server.tokens.expired(token);
  throw new HalleyError(code, detail);
}
