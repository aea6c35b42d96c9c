/**
 * The kernel, as the limits see it: the files by which it tells of processes and is told what they may use (`/proc`, the
 * cgroup file system), and the signal that ends one.
 *
 * The only place of the limits that touches any of it, so that tests can put a kernel of their own in its place.
 */
import { closeSync, constants, mkdirSync, openSync, readdirSync, readFileSync, rmdirSync, writeSync } from "node:fs";
import { readFile } from "node:fs/promises";

export interface Kernel {
  /** @throws Error where there is no such file, or its process is gone. */
  read(path: string): string;
  /** As {@link read}, off this thread: for files that the kernel takes long to write, such as smaps_rollup. */
  readLater(path: string): Promise<string>;
  /** @throws Error where the kernel refuses it. */
  write(path: string, text: string): void;
  list(path: string): string[];
  /** @throws Error `EEXIST` where it is there already. */
  makeFolder(path: string): void;
  /** Removes a cgroup, which its files do not keep. @throws Error `EBUSY` while a process is in it. */
  removeFolder(path: string): void;
  /** Ends one process at once; one that is gone already is no error. */
  kill(pid: number): void;
}

export const systemKernel: Kernel = {
  read: (path) => readFileSync(path, "latin1"),
  readLater: (path) => readFile(path, "latin1"),
  write: (path, text) => {
    // Not to be made, as a file that the kernel has not made means nothing to it; nor to be read, as some can't be.
    const file = openSync(path, constants.O_WRONLY);
    try {
      writeSync(file, text);
    } finally {
      closeSync(file);
    }
  },
  list: (path) => readdirSync(path),
  makeFolder: (path) => mkdirSync(path),
  removeFolder: (path) => rmdirSync(path),
  kill: (pid) => {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // ESRCH: it is gone already.
    }
  },
};

/** What the file says; undefined where it can't be read, as when its process has just ended. */
export function tryRead(kernel: Kernel, path: string): string | undefined {
  try {
    return kernel.read(path);
  } catch {
    return undefined;
  }
}

/** The number after `key` in a file of lines such as `oom_kill 1` or `Pss: 290 kB`; undefined where there is none. */
export function numberAfter(text: string, key: string): number | undefined {
  for (const line of text.split("\n")) {
    if (!line.startsWith(key)) continue;
    const [, digits] = /^:?\s+(\d+)/.exec(line.slice(key.length)) ?? [];
    if (digits !== undefined) return Number(digits);
  }
  return undefined;
}
