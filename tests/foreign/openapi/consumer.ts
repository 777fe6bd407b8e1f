// What a strict TypeScript program makes of the generated types: it need not cast, and mistakes are errors.

import type { components as Admin, operations as AdminOperations } from "./admin.js";
import type { components as Client } from "./client.js";

type Message = Client["schemas"]["Message"];

export function receiver(message: Message): string {
  switch (message.sequence) {
    case "direct":
      return message.to;
    case "group":
      return message.group;
  }
}

export function advice(problem: Client["schemas"]["Problem"]): string {
  return problem.code === "cursor_ahead" && problem.restart !== undefined ? problem.restart : problem.detail;
}

export const many: Admin["schemas"]["PushMany"] = [
  { to: "bob", from: "alice", body: { any: ["thing"] } },
  { group: "team", from: "alice", body: null, idempotency_key: "order-17" },
];

export const asked: NonNullable<AdminOperations["getStatus"]> extends { responses: { 200: infer Reply } } ? Reply : never =
  undefined as never;

// @ts-expect-error: a message to a user has no group
export const wrong: Client["schemas"]["DirectMessage"]["group"] = "team";

// @ts-expect-error: there is no such code
export const unknown: Client["schemas"]["ErrorCode"] = "cursor_behind";

// @ts-expect-error: a push needs its sender
export const short: Admin["schemas"]["Push"] = { body: 1 };
