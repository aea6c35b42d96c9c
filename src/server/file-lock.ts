/**
 * Locks between processes, by `flock`: held until released or until the process ends, however it ends.
 *
 * A lock's file is there only while somebody holds or wants it. Its holder removes it before letting go, so whoever then
 * gets the lock finds that the file it locked has lost its name, and starts over: two processes never hold two files of
 * one name.
 */
import { closeSync, fstatSync, openSync, statSync, unlinkSync } from "node:fs";
import type { Clock } from "../transport/clock.ts";
import { AirlockError } from "../transport/errors.ts";
import type { Libc } from "../transport/libc.ts";
import type { FileLock } from "./environments/file-lock.ts";

/** How often a lock that somebody else holds is tried again. flock can wait itself, but only by blocking the loop. */
const retryMs = 50;

export type TryLock = Libc["tryLock"];

export function fileLocker(tryLock: TryLock, clock: Clock): FileLock {
  return async (path, signal) => {
    for (;;) {
      const descriptor = openLocked(path, "a", tryLock);
      if (descriptor !== undefined) return { release: () => release(path, descriptor) };
      if (signal.aborted) throw new AirlockError("cancelled", `waiting for the lock ${path} was cancelled`);
      await new Promise<void>((resolve) => clock.after(retryMs, resolve));
    }
  };
}

/**
 * Opens a file, made for its user only if need be, and locks it until its last descriptor is closed, in whatever process.
 *
 * @returns undefined where somebody else holds the lock, or took the file's name from it a moment ago.
 */
export function openLocked(path: string, flags: "a" | "a+", tryLock: TryLock): number | undefined {
  const descriptor = openSync(path, flags, 0o600);
  try {
    if (tryLock(descriptor) && statSync(path, { throwIfNoEntry: false })?.ino === fstatSync(descriptor).ino) {
      return descriptor;
    }
  } catch (error) {
    closeSync(descriptor);
    throw error;
  }
  closeSync(descriptor);
  return undefined;
}

function release(path: string, descriptor: number): void {
  try {
    unlinkSync(path);
  } catch {
    // Its folder was removed with it.
  }
  closeSync(descriptor);
}
