/** Statuses after which the same request may succeed later. */
const RETRY_STATUS = new Set([408, 425, 429]);

export class HalleyError extends Error {
  /**
   * @param {string} code
   * @param {string} detail
   * @param {{ status?: number, fatal?: boolean, retryAfter?: number, key?: string,
   *   problem?: Record<string, any>, cause?: unknown }} [more]
   */
  constructor(code, detail, { status = 0, fatal = false, retryAfter, key, problem, cause } = {}) {
    super(`${code}: ${detail}`, cause === undefined ? undefined : { cause });
    this.name = "HalleyError";
    this.code = code;
    this.detail = detail;
    this.status = status;
    this.fatal = fatal;
    this.retryAfter = retryAfter;
    this.key = key;
    this.problem = problem;
  }

  /** A copy with changes. @param {{ fatal?: boolean, key?: string }} more */
  with(more) {
    const { code, detail, status, fatal, retryAfter, key, problem, cause } = this;
    return new HalleyError(code, detail, { status, fatal, retryAfter, key, problem, cause, ...more });
  }
}

/** @param {unknown} cause @returns {HalleyError} */
export function asError(cause) {
  if (cause instanceof HalleyError) return cause;
  const inner = cause instanceof Error && cause.cause instanceof Error ? ` (${cause.cause.message})` : "";
  const text = cause instanceof Error ? cause.message : String(cause);
  return new HalleyError("network", `cannot reach the server: ${text}${inner}`, { cause });
}

export const connectionLost = () => new HalleyError("connection_lost", "the connection broke");
export const timedOut = () => new HalleyError("timeout", "no answer from the server in time");
export const stopped = () => new HalleyError("stopped", "the client was stopped");

/** An error from a problem object, as replies and answers on the socket carry it.
 * @param {Record<string, any>} problem @param {number} [retryAfter] */
export function problemError(problem, retryAfter) {
  const { code, detail, title, status } = problem;
  return new HalleyError(code, detail ?? title ?? "", { status, retryAfter, problem });
}

/** Whether the server itself answered, so the way to it is open. @param {HalleyError} error */
export const answered = (error) => error.problem !== undefined;

/** Whether the same request may succeed later. @param {HalleyError} error */
export function isTransient(error) {
  if (error.fatal) return false;
  return error.status < 400 || error.status >= 500 || RETRY_STATUS.has(error.status);
}
