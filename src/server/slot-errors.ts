/** What callers are told where the server, or a slot of it, can't serve them. Pure. */
import { AirlockError } from "../transport/errors.ts";
import type { Limits } from "../transport/limits.ts";

/** Where a pack's workers write, for errors. */
interface Log {
  readonly path: string;
  tail(): string;
}

export function stoppingError(): AirlockError {
  return new AirlockError("server_stopping", "the server is stopping and takes no new calls");
}

export function tooMuchWaits(pack: string, limits: Limits): AirlockError {
  const message = `pack ${pack}: too much waits for its worker to start; ${limits.outboxBytesMax} bytes may`;
  return new AirlockError("limit_exceeded", message, { pack, hint: "prepare the pack before calling it" });
}

export function startFailed(pack: string, pid: number, exit: string, log: Log): AirlockError {
  const message = `pack ${pack}: its worker (pid ${pid}) ended before it was ready: ${exit}`;
  return new AirlockError("worker_start_failed", message, { pack, exit, log: log.tail() });
}

export function workerDied(pack: string, pid: number, exit: string, log: Log): AirlockError {
  const message = `pack ${pack}: its worker (pid ${pid}) ended during the call: ${exit}`;
  const hint = `the next call starts a fresh worker; its log is ${log.path}`;
  return new AirlockError("worker_died", message, { pack, exit, log: log.tail(), hint });
}

/** @param lastExit how the last of its workers ended. */
export function packHeld(pack: string, lastExit: string, log: Log, limits: Limits): AirlockError {
  const often = `${limits.deathsMax} of its workers died within ${limits.deathsWindowMs / 1000} s`;
  const message = `pack ${pack} is held: ${often}, the last one: ${lastExit}`;
  const hint = `mend the pack, or have it tried again by: airlock restart ${pack}; its log is ${log.path}`;
  return new AirlockError("pack_held", message, { pack, exit: lastExit, log: log.tail(), hint });
}
