/**
 * The closed set of errors that Airlock itself raises, on every side of the wire.
 *
 * Twin of `worker/src/comfy_airlock/wire/errors.py`; `tests/vectors/errors.json` holds the codes and both sides' tests
 * read it. An exception raised by a node is not one of these: it travels as {@link RemoteException} beside the code
 * `remote_exception`.
 */

/** Every error code, with what it means. */
export const errorCodes = {
  protocol_error: "a peer broke the wire protocol; its connection is closed",
  unsupported_version: "the two sides share no protocol version",
  unauthorized: "this peer may not connect here, or may not do what it asked for",
  bad_request: "a control message or an argument is malformed",
  limit_exceeded: "something is larger or more numerous than a limit allows",
  manifest_invalid: "a pack's manifest is missing or wrong",
  environment_failed: "a pack's Python environment could not be made",
  pack_not_open: "the pack was never opened by this host, or is closed",
  worker_start_failed: "the worker process ended before it was ready",
  pack_held: "too many of the pack's workers died: none is started until somebody says so, or the pack is edited",
  worker_died: "the worker process ended while the call was under way",
  reference_gone: "an object is gone that a reference named: its process ended, or the reference was released",
  lease_gone: "memory is gone that a message named: its owner took it back, or freed it",
  node_not_found: "the pack has no such node",
  node_invalid: "the pack or the node does not follow ComfyUI's conventions",
  value_unsupported: "a value has a type that cannot cross the wire",
  value_invalid: "bytes from a peer are not a valid value",
  remote_exception: "the node raised an exception",
  cancelled: "the caller cancelled the call",
  deadline_exceeded: "the call took longer than its deadline",
  server_stopping: "the server is shutting down and takes no new calls",
  disconnected: "the connection to the server ended",
  workflow_invalid: "a workflow file is malformed or cannot be run with these packs",
  internal_error: "a fault in Airlock itself",
} as const;

export type ErrorCode = keyof typeof errorCodes;

/** What may accompany a code and a message. Every field is optional because the wire leaves absent fields out. */
export interface ErrorDetails {
  /** What the reader can do about it, as a sentence. */
  readonly hint?: string;
  /** Name of the pack that the error is about. */
  readonly pack?: string;
  /** How a worker ended, e.g. `killed by SIGKILL` or `exit code 3`. */
  readonly exit?: string;
  /** The last lines of a worker's log or of a tool's output. */
  readonly log?: string;
  /** The Python stack that a worker left when it crashed. */
  readonly stack?: string;
  /** The exception behind `remote_exception`. */
  readonly exception?: RemoteException;
}

/** A Python exception as it crosses the wire. */
export interface RemoteException {
  /** Qualified names (`module.Class`) from the exception's own class upwards, without `object`. */
  readonly types: readonly string[];
  /** `str(exception)`, for peers that cannot rebuild it. */
  readonly message: string;
  /** The formatted remote traceback. */
  readonly traceback: string;
  /** `exception.args`. */
  readonly args?: readonly unknown[];
  /** `exception.__dict__`. */
  readonly state?: Record<string, unknown>;
}

/** An error of the closed set: what happened, to whom, and what to do. */
export class AirlockError extends Error {
  override readonly name = "AirlockError";
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.details = details;
  }

  /** The error as a person should read it: message, then the log's last lines, the stack, and the hint. */
  describe(): string {
    const { log, stack, hint, exception } = this.details;
    const parts = [this.message];
    if (exception?.traceback) parts.push(exception.traceback.trimEnd());
    if (log?.trim()) parts.push(log.trimEnd());
    if (stack?.trim()) parts.push(stack.trimEnd());
    if (hint) parts.push(`→ ${hint}`);
    return parts.join("\n");
  }
}

/** Narrows an unknown thrown value to an {@link AirlockError}, wrapping anything else as `internal_error`. */
export function toAirlockError(thrown: unknown, code: ErrorCode = "internal_error"): AirlockError {
  if (thrown instanceof AirlockError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new AirlockError(code, message, {}, { cause: thrown });
}

/**
 * An error as the body of an ERROR frame: a map of the fields that are there.
 *
 * Its texts quote what others wrote (manifests, logs, output that was cut to length), which may hold half of a surrogate
 * pair. That has no UTF-8; U+FFFD stands for it, because an error must arrive.
 */
export function errorToWire(error: AirlockError): Record<string, unknown> {
  const { exception, ...texts } = error.details;
  const fields = Object.entries({ code: error.code, message: error.message, ...texts });
  const sendable = Object.fromEntries(fields.map(([key, text]) => [key, text.toWellFormed()]));
  return exception === undefined ? sendable : { ...sendable, exception };
}

/** The error that an ERROR frame's decoded body stands for; a body that makes no sense becomes a `protocol_error`. */
export function errorFromWire(body: unknown): AirlockError {
  const fields = typeof body === "object" && body !== null ? (body as Record<string, unknown>) : {};
  const { code, message, ...rest } = fields;
  if (typeof code !== "string" || !Object.hasOwn(errorCodes, code) || typeof message !== "string") {
    return new AirlockError("protocol_error", "the peer sent an error without a known code and a message");
  }
  const details: { -readonly [Key in keyof ErrorDetails]: ErrorDetails[Key] } = {};
  for (const key of ["hint", "pack", "exit", "log", "stack"] as const) {
    const value = rest[key];
    if (typeof value === "string") details[key] = value;
  }
  if (isRemoteException(rest["exception"])) details.exception = rest["exception"];
  return new AirlockError(code as ErrorCode, message, details);
}

/** Whether an ERROR frame's decoded body says that the call reached nobody: what it holds is its sender's alone. */
export function isUndelivered(body: unknown): boolean {
  return typeof body === "object" && body !== null && (body as Record<string, unknown>)["delivered"] === false;
}

function isRemoteException(value: unknown): value is RemoteException {
  if (typeof value !== "object" || value === null) return false;
  const fields = value as Partial<Record<keyof RemoteException, unknown>>;
  return Array.isArray(fields.types) && typeof fields.message === "string" && typeof fields.traceback === "string";
}
