/**
 * Follows the logs of one pack as they grow: files that are set aside and begun anew, and such as come later.
 *
 * Looks at the folder again and again rather than to ask the system to tell of changes: that works on every file system,
 * and a log that is read by a person may be a fifth of a second old. Prints whole lines only; each says whose it is.
 */
import { closeSync, fstatSync, openSync, readSync, statSync } from "node:fs";
import type { Clock } from "../transport/clock.ts";

const lookMs = 200;
const readBytes = 256 * 1024;

export interface FollowOptions {
  readonly clock: Clock;
  /** The files there are now, by path. */
  find(): readonly string[];
  /** @param path the file that the bytes, whole lines, are of. */
  write(bytes: Uint8Array, path: string): void;
  readonly signal: AbortSignal;
}

/** One file from its name to the end of its bytes. */
class FollowedFile {
  readonly #path: string;
  #descriptor: number | undefined;
  #position: number;

  /** @param position where to begin: what is before it is known. */
  constructor(path: string, position: number) {
    this.#path = path;
    this.#position = position;
  }

  /** Writes out what has come. */
  look(write: (bytes: Uint8Array) => void): void {
    this.#descriptor ??= openOf(this.#path);
    if (this.#descriptor === undefined) return;
    this.#copy(this.#descriptor, write);
    if (statSync(this.#path, { throwIfNoEntry: false })?.ino === fstatSync(this.#descriptor).ino) return;
    // It was set aside: what was written to it between the two looks, then the fresh one from its beginning.
    this.#copy(this.#descriptor, write);
    this.close();
    this.#position = 0;
    this.#descriptor = openOf(this.#path);
    if (this.#descriptor !== undefined) this.#copy(this.#descriptor, write);
  }

  #copy(descriptor: number, write: (bytes: Uint8Array) => void): void {
    // Somebody emptied it.
    if (fstatSync(descriptor).size < this.#position) this.#position = 0;
    const buffer = Buffer.alloc(readBytes);
    for (;;) {
      const count = readSync(descriptor, buffer, 0, readBytes, this.#position);
      // The server writes whole lines; a line that is longer than the buffer is none of its.
      const whole = buffer.lastIndexOf(0x0a, count - 1) + 1 || (count === readBytes ? count : 0);
      if (count === 0 || whole === 0) return;
      write(buffer.subarray(0, whole));
      this.#position += whole;
    }
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }
}

function openOf(path: string): number | undefined {
  try {
    return openSync(path, "r");
  } catch {
    return undefined;
  }
}

/**
 * Follows until the signal.
 *
 * @param known how much of each file has been shown already; a file that is not in it is shown from its beginning.
 */
export async function followLogs(known: ReadonlyMap<string, number>, options: FollowOptions): Promise<void> {
  const { clock, find, write, signal } = options;
  const files = new Map<string, FollowedFile>();
  let wake = (): void => undefined;
  signal.addEventListener("abort", () => wake(), { once: true });
  const look = (): void => {
    for (const path of find()) {
      const file = files.get(path) ?? new FollowedFile(path, known.get(path) ?? 0);
      files.set(path, file);
      file.look((bytes) => write(bytes, path));
    }
  };
  try {
    while (!signal.aborted) {
      look();
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = clock.after(lookMs, resolve);
      wake = resolve;
      await promise;
      timer.cancel();
    }
    // What came since.
    look();
  } finally {
    for (const file of files.values()) file.close();
  }
}
