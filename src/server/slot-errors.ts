/** What callers are told where the server, or a slot of it, can't serve them. Pure. */
import { encode } from "../transport/codec.ts";
import { serverPeer } from "../transport/control.ts";
import { AirlockError, errorToWire } from "../transport/errors.ts";
import type { Limits } from "../transport/limits.ts";
import type { Call } from "./session.ts";
import type { Worker } from "./workers/worker.ts";

/** Where a pack's workers write, for errors. */
interface Log {
  readonly path: string;
  tail(): string;
}

/** A worker that has ended. */
type Ended = Pick<Worker, "pid" | "exceeded" | "crashStack">;

/** An error of the server's own; it says so where nobody was given the call, and so nothing that the call holds. */
export function ownErrorBody(call: Call, error: AirlockError): Uint8Array {
  const isUndelivered = call.callee === undefined && call.destination !== serverPeer;
  return encode({ ...errorToWire(error), ...(isUndelivered && { delivered: false }) });
}

export function stoppingError(): AirlockError {
  return new AirlockError("server_stopping", "the server is stopping and takes no new calls");
}

export function tooMuchWaits(pack: string, limits: Limits): AirlockError {
  const message = `pack ${pack}: too much waits for its worker to start; ${limits.outboxBytesMax} bytes may`;
  return new AirlockError("limit_exceeded", message, { pack, hint: "prepare the pack before calling it" });
}

export function startFailed(pack: string, worker: Ended, exit: string, log: Log): AirlockError {
  const message = `pack ${pack}: its worker (pid ${worker.pid}) ended before it was ready: ${exit}`;
  const hint = raiseHint(worker);
  return new AirlockError("worker_start_failed", message, {
    pack,
    exit,
    ...lastWords(worker, log),
    ...(hint && { hint }),
  });
}

export function workerDied(pack: string, worker: Ended, exit: string, log: Log): AirlockError {
  const how = worker.exceeded === undefined ? `ended during the call: ${exit}` : `was ended: ${worker.exceeded.what}`;
  const message = `pack ${pack}: its worker (pid ${worker.pid}) ${how}`;
  const next = `the next call starts a fresh worker; its log is ${log.path}`;
  const hint = [raiseHint(worker), next].filter((each) => each !== undefined).join("; ");
  return new AirlockError("worker_died", message, { pack, exit, ...lastWords(worker, log), hint });
}

function lastWords({ crashStack }: Ended, log: Log): { log: string; stack?: string } {
  return { log: log.tail(), ...(crashStack !== undefined && { stack: crashStack }) };
}

/** What to do about a worker that a limit has ended. */
function raiseHint({ exceeded }: Ended): string | undefined {
  return exceeded && `raise ${exceeded.source}, or have the pack take less`;
}

/** @param lastExit how the last of its workers ended. */
export function packHeld(pack: string, lastExit: string, log: Log, limits: Limits): AirlockError {
  const often = `${limits.deathsMax} of its workers died within ${limits.deathsWindowMs / 1000} s`;
  const message = `pack ${pack} is held: ${often}, the last one: ${lastExit}`;
  const hint = `mend the pack, or have it tried again by: airlock restart ${pack}; its log is ${log.path}`;
  return new AirlockError("pack_held", message, { pack, exit: lastExit, log: log.tail(), hint });
}
