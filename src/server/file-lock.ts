/**
 * Locks between processes, by `flock`: held until released or until the process ends, however it ends.
 */
import { closeSync, openSync } from "node:fs";
import type { Clock } from "../transport/clock.ts";
import { AirlockError } from "../transport/errors.ts";
import type { Libc } from "../transport/libc.ts";
import type { FileLock } from "./environments/file-lock.ts";

/** How often a lock that somebody else holds is tried again. flock can wait itself, but only by blocking the loop. */
const retryMs = 50;

/** Locks files that are made if need be, and stay: deleting one would let two holders lock two files of one name. */
export function fileLocker(libc: Libc, clock: Clock): FileLock {
  return async (path, signal) => {
    const descriptor = openSync(path, "a", 0o600);
    try {
      while (!libc.tryLock(descriptor)) {
        if (signal.aborted) throw new AirlockError("cancelled", `waiting for the lock ${path} was cancelled`);
        await new Promise<void>((resolve) => clock.after(retryMs, resolve));
      }
    } catch (error) {
      closeSync(descriptor);
      throw error;
    }
    return { release: () => closeSync(descriptor) };
  };
}
